/* sort.h -- a stable sort of places, for whoever can say which of two comes first. Private to csrc/. */
#ifndef PORT_SORT_H
#define PORT_SORT_H

#include "core.h"

/* Sorts order[0..n) by merging: places of which neither comes before the other stay as they stand. comes_before must be a strict weak
 * order. spare: room for n numbers. Inline, so that the comparison is too. */
static inline __attribute__((always_inline)) void
port_sort_stable(int64_t n, int64_t *order, int64_t *spare, bool (*comes_before)(const void *context, int64_t a, int64_t b),
                 const void *context)
{
    int64_t *from = order, *to = spare;
    for (int64_t width = 1; width < n; width *= 2) {
        for (int64_t begin = 0; begin < n; begin += 2 * width) {
            int64_t middle = begin + width < n ? begin + width : n, end = begin + 2 * width < n ? begin + 2 * width : n;
            for (int64_t a = begin, b = middle, k = begin; k < end; k++) {
                bool second = a == middle || (b < end && comes_before(context, from[b], from[a]));
                to[k] = second ? from[b++] : from[a++];
            }
        }
        int64_t *last = from;
        from = to;
        to = last;
    }
    if (from != order) {
        memcpy(order, from, (size_t)n * sizeof *from);
    }
}

#endif /* PORT_SORT_H */
