/* plane.c -- see plane.h. */
#include "plane.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

void
port_copy_run(char *to, int64_t to_step, const char *from, int64_t from_step, int64_t elems, size_t size_bytes)
{
    if (to_step == (int64_t)size_bytes && from_step == to_step) {
        memcpy(to, from, (size_t)elems * size_bytes);
        return;
    }
#define COPY(bytes)                                                                                                  \
    for (int64_t i = 0; i < elems; i++) {                                                                            \
        memcpy(to + i * to_step, from + i * from_step, bytes);                                                       \
    }                                                                                                                \
    break
    switch (size_bytes) {
    case 1: COPY(1);
    case 2: COPY(2);
    case 4: COPY(4);
    default: COPY(8);
    }
#undef COPY
}

#if defined(__SSE2__)
/* PORT_PLANE_TILE x PORT_PLANE_TILE elements of 4 bytes, dense along the rows of `from` and along the columns of `to`. */
static void
copy_tile4(char *to, int64_t to_row, const char *from, int64_t from_col)
{
    for (int64_t c = 0; c < PORT_PLANE_TILE; c += 4) {
        for (int64_t r = 0; r < PORT_PLANE_TILE; r += 4) {
            const char *read = from + c * from_col + r * 4;
            char *write = to + r * to_row + c * 4;
            __m128i v0 = _mm_loadu_si128((const void *)read), v1 = _mm_loadu_si128((const void *)(read + from_col));
            __m128i v2 = _mm_loadu_si128((const void *)(read + 2 * from_col)), v3 = _mm_loadu_si128((const void *)(read + 3 * from_col));
            __m128i low01 = _mm_unpacklo_epi32(v0, v1), low23 = _mm_unpacklo_epi32(v2, v3);
            __m128i high01 = _mm_unpackhi_epi32(v0, v1), high23 = _mm_unpackhi_epi32(v2, v3);
            _mm_storeu_si128((void *)write, _mm_unpacklo_epi64(low01, low23));
            _mm_storeu_si128((void *)(write + to_row), _mm_unpackhi_epi64(low01, low23));
            _mm_storeu_si128((void *)(write + 2 * to_row), _mm_unpacklo_epi64(high01, high23));
            _mm_storeu_si128((void *)(write + 3 * to_row), _mm_unpackhi_epi64(high01, high23));
        }
    }
}
#endif

static void
copy_tile(char *to, int64_t to_row, int64_t to_col, const char *from, int64_t from_col, int64_t tall, int64_t wide, size_t size_bytes)
{
#if defined(__SSE2__)
    if (size_bytes == 4 && to_col == 4 && tall == PORT_PLANE_TILE && wide == PORT_PLANE_TILE) {
        copy_tile4(to, to_row, from, from_col);
        return;
    }
#endif
    for (int64_t i = 0; i < tall; i++) {
        port_copy_run(to + i * to_row, to_col, from + i * (int64_t)size_bytes, from_col, wide, size_bytes);
    }
}

void
port_copy_plane(char *to, int64_t to_row, int64_t to_col, const char *from, int64_t from_col, int64_t rows, int64_t cols, size_t size_bytes)
{
    int64_t step = (int64_t)size_bytes;
    for (int64_t r = 0; r < rows; r += PORT_PLANE_TILE) {
        int64_t tall = rows - r < PORT_PLANE_TILE ? rows - r : PORT_PLANE_TILE;
        for (int64_t c = 0; c < cols; c += PORT_PLANE_TILE) {
            int64_t wide = cols - c < PORT_PLANE_TILE ? cols - c : PORT_PLANE_TILE;
            copy_tile(to + r * to_row + c * to_col, to_row, to_col, from + r * step + c * from_col, from_col, tall, wide, size_bytes);
        }
    }
}
