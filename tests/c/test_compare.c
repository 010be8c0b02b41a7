/* test_compare.c -- port_compare from C: what it counts, where, and what it refuses. */
#include "core/core.h"
#include "compare/compare_blocks.h"
#include "compare/error_map.h"
#include "compare/row_sizes.h"

#include "check.h"

#include <math.h>
#include <stdlib.h>

static port_view
vector_of(void *data, port_dtype dtype, int64_t elems)
{
    return port_view_contiguous(data, dtype, 1, &elems);
}

static void
finds_one_wrong_element(void)
{
    enum { N = 5000 };
    static float e[N], a[N];
    for (int where = 0; where < N; where += 617) {
        for (int i = 0; i < N; i++) {
            e[i] = a[i] = 1.0f + (float)i;
        }
        a[where] = nextafterf(a[where], 1e9f);
        port_view ve = vector_of(e, PORT_F32, N), va = vector_of(a, PORT_F32, N);
        port_metrics m;
        CHECK(port_compare(&ve, &va, NULL, &m, NULL) == PORT_OK);
        CHECK(m.num_unequal == 1 && m.max_ulp == 1 && m.max_ulp_idx == where && m.max_abs_idx == where);
        CHECK(m.ulp_histogram[0] == N - 1 && m.ulp_histogram[1] == 1);
        CHECK(m.max_err_scale == -1 && m.mean_signed_ulp > 0);
    }
}

static void
nan_is_never_close(void)
{
    float e[] = {1, 2, NAN, INFINITY}, a[] = {1, NAN, NAN, INFINITY};
    port_view ve = vector_of(e, PORT_F32, 4), va = vector_of(a, PORT_F32, 4);
    port_metrics m;
    CHECK(port_compare(&ve, &va, NULL, &m, NULL) == PORT_OK);
    CHECK(m.num_nan_mismatch == 1 && m.first_nonfinite_mismatch == 1 && m.max_ulp == UINT64_MAX);
    CHECK(m.num_inf_mismatch == 0 && m.num_unequal == 1 && m.max_abs == 0);
    CHECK(!(m.max_err_scale > 0));
}

static void
scale_and_strides(void)
{
    double e[6] = {1, 9, 2, 9, 3, 9}, a[3] = {1, 2, 3.5}, s[1] = {4};
    int64_t shape[2] = {3, 1};
    port_view ve = port_view_contiguous(e, PORT_F64, 2, shape), va = port_view_contiguous(a, PORT_F64, 2, shape);
    port_view vs = port_view_contiguous(s, PORT_F64, 2, shape);
    ve.strides[0] = 2;
    vs.strides[0] = 0;
    port_compare_options options = {.scale = &vs, .unit_roundoff = 0.25};
    port_metrics m;
    CHECK(port_compare(&ve, &va, &options, &m, NULL) == PORT_OK);
    CHECK(m.max_err_scale == 0.5 && m.max_err_scale_idx == 2 && m.max_abs == 0.5 && m.max_rel == 0.5 / 3);
    CHECK(m.mean_error == 0.5 / 3 && m.num_unequal == 1);
}

static void
refuses(void)
{
    float x[4] = {0};
    int32_t k[4] = {0};
    double bad[4] = {1, 1, NAN, 1};
    port_view four = vector_of(x, PORT_F32, 4), three = vector_of(x, PORT_F32, 3), ints = vector_of(k, PORT_I32, 4);
    port_view scale = vector_of(bad, PORT_F64, 4), none = vector_of(NULL, PORT_F32, 4);
    port_compare_options options = {.scale = &scale}, negative = {.scale_scalar = -1};
    port_metrics m;
    port_error err;
    CHECK(port_compare(&four, &three, NULL, &m, &err) == PORT_E_SHAPE && strstr(err.message, "[3]") != NULL);
    CHECK(port_compare(&four, &ints, NULL, &m, &err) == PORT_E_DTYPE);
    CHECK(port_compare(&four, &four, &options, &m, &err) == PORT_E_VALUE && strstr(err.message, "element 2") != NULL);
    CHECK(port_compare(&four, &four, &negative, &m, &err) == PORT_E_VALUE);
    CHECK(port_compare(&four, &none, NULL, &m, &err) == PORT_E_VALUE);
    for (size_t n = 1; n <= 3; n++) {
        port_alloc_fail_after(n);
        CHECK(port_compare(&four, &four, NULL, &m, &err) == PORT_E_NOMEM);
        port_alloc_fail_after(0);
    }
    CHECK(port_compare(&four, &four, NULL, &m, &err) == PORT_OK);
}

/* The same numbers as F32 and as F64. */
static void
paths_agree(void)
{
    enum { N = 1000 };
    static float e[N], a[N];
    static double de[N], da[N];
    for (int i = 0; i < N; i++) {
        de[i] = e[i] = (float)sin(i) * 100;
        da[i] = a[i] = i % 7 == 0 ? e[i] : e[i] * (1 + 1e-3f * (float)cos(i));
    }
    port_view ve = vector_of(e, PORT_F32, N), va = vector_of(a, PORT_F32, N);
    port_view we = vector_of(de, PORT_F64, N), wa = vector_of(da, PORT_F64, N);
    port_metrics m, w;
    CHECK(port_compare(&ve, &va, NULL, &m, NULL) == PORT_OK && port_compare(&we, &wa, NULL, &w, NULL) == PORT_OK);
    CHECK(m.num_unequal == w.num_unequal && m.max_abs == w.max_abs && m.max_abs_idx == w.max_abs_idx);
    CHECK(m.max_rel == w.max_rel && m.max_rel_idx == w.max_rel_idx && m.num_rel_inf == w.num_rel_inf);
    CHECK(m.p99_abs == w.p99_abs && m.p999_abs == w.p999_abs && fabs(m.pcc - w.pcc) < 1e-14);
    CHECK(m.min_actual == w.min_actual && m.max_expected == w.max_expected);
}

static bool
same_findings(const port_metrics *m, const port_metrics *w)
{
    return m->num_unequal == w->num_unequal && m->max_abs == w->max_abs && m->max_abs_idx == w->max_abs_idx &&
           m->max_rel == w->max_rel && m->max_rel_idx == w->max_rel_idx && m->num_rel_inf == w->num_rel_inf &&
           m->num_nan_mismatch == w->num_nan_mismatch && m->num_inf_mismatch == w->num_inf_mismatch &&
           m->first_nonfinite_mismatch == w->first_nonfinite_mismatch &&
           m->max_err_scale == w->max_err_scale && m->max_err_scale_idx == w->max_err_scale_idx;
}

/* Every length of a tail, at every alignment of the memory, with NaN and infinity at its end. */
static void
tails(void)
{
    enum { MOST = 1100 };
    static float e[MOST + 16], a[MOST + 16];
    static double de[MOST + 16], da[MOST + 16];
    for (int n = 1; n < MOST; n += n < 40 || n > 1020 ? 1 : 97) {
        for (int variant = 0; variant < 4; variant++) {
            int at = n % 16; /* elements into the array: not the alignment of a vector */
            for (int i = 0; i < n; i++) {
                e[at + i] = (float)cos(i * 0.7);
                a[at + i] = i % 5 == 1 ? e[at + i] : e[at + i] + 1e-4f * (float)sin(i);
            }
            a[at + n - 1] = variant == 0 ? a[at + n - 1] : variant == 1 ? NAN : variant == 2 ? INFINITY : 40.0f;
            e[at + n - 1] = variant == 3 ? 0.0f : e[at + n - 1];
            for (int i = 0; i < n; i++) {
                de[i] = e[at + i];
                da[i] = a[at + i];
            }
            port_view ve = vector_of(e + at, PORT_F32, n), va = vector_of(a + at, PORT_F32, n);
            port_view we = vector_of(de, PORT_F64, n), wa = vector_of(da, PORT_F64, n);
            port_compare_options options = {.scale_scalar = 0.25, .scale_slope = 2, .basic = (n & 1) != 0};
            port_metrics m, w;
            CHECK(port_compare(&ve, &va, &options, &m, NULL) == PORT_OK);
            CHECK(port_compare(&we, &wa, &options, &w, NULL) == PORT_OK);
            CHECK(same_findings(&m, &w) && fabs(m.mean_abs - w.mean_abs) <= 1e-15 * (1 + w.mean_abs));
            CHECK(n == 1 || isnan(m.p99_abs) == options.basic);
        }
    }
}

/* Half floats go through the same passes as f32: against themselves widened, ulp counted in their own dtype. */
static void
half_floats(void)
{
    enum { N = 2100 };
    static uint16_t e[N], a[N];
    static float fe[N], fa[N];
    for (int type = 0; type < 2; type++) {
        for (int i = 0; i < N; i++) {
            uint16_t bits = (uint16_t)(i * 24989u);
            bits = (bits & 0x7c00) == 0x7c00 ? 0x3c00 : bits; /* finite in both types */
            e[i] = bits;
            a[i] = (bits & 0x7fff) == 0 || i % 3 == 0 ? bits : (uint16_t)(bits - 1);
            fe[i] = type == 0 ? port_f16_to_f32(e[i]) : port_bf16_to_f32(e[i]);
            fa[i] = type == 0 ? port_f16_to_f32(a[i]) : port_bf16_to_f32(a[i]);
        }
        port_dtype dtype = type == 0 ? PORT_F16 : PORT_BF16;
        port_view ve = vector_of(e, dtype, N), va = vector_of(a, dtype, N);
        port_view we = vector_of(fe, PORT_F32, N), wa = vector_of(fa, PORT_F32, N);
        port_metrics m, w;
        CHECK(port_compare(&ve, &va, NULL, &m, NULL) == PORT_OK && port_compare(&we, &wa, NULL, &w, NULL) == PORT_OK);
        CHECK(same_findings(&m, &w) && m.p99_abs == w.p99_abs && m.sum_sq_error == w.sum_sq_error);
        CHECK(m.max_ulp == 1 && m.ulp_histogram[1] == m.num_unequal && m.ulp_histogram[0] == N - m.num_unequal);
    }
}

static bool
nearly(double x, double y, double size)
{
    return (isnan(x) && isnan(y)) || x == y || fabs(x - y) <= 1e-12 * size;
}

/* All that does not depend on the order of sums, and these up to their last bits. The histogram is not promised if basic. */
static bool
same_metrics(const port_metrics *m, const port_metrics *w, bool basic)
{
    return same_findings(m, w) && m->max_ulp == w->max_ulp && m->max_ulp_idx == w->max_ulp_idx &&
           (basic || memcmp(m->ulp_histogram, w->ulp_histogram, sizeof m->ulp_histogram) == 0) &&
           nearly(m->p99_abs, w->p99_abs, 0) && nearly(m->p999_abs, w->p999_abs, 0) &&
           nearly(m->min_expected, w->min_expected, 0) && nearly(m->max_expected, w->max_expected, 0) &&
           nearly(m->min_actual, w->min_actual, 0) && nearly(m->max_actual, w->max_actual, 0) &&
           nearly(m->mean_abs, w->mean_abs, w->mean_abs) && nearly(m->mean_error, w->mean_error, w->mean_abs) &&
           nearly(m->mean_rel, w->mean_rel, w->mean_rel) && nearly(m->mean_signed_ulp, w->mean_signed_ulp, (double)w->max_ulp) &&
           nearly(m->sum_sq_error, w->sum_sq_error, w->sum_sq_error) && nearly(m->cosine, w->cosine, 1) && nearly(m->pcc, w->pcc, 1) &&
           m->num_nan_expected == w->num_nan_expected && m->num_inf_actual == w->num_inf_actual;
}

enum { WIDE = 3 * PORT_COMPARE_BLOCK + 37, WIDE_CASES = 9 };

/* Elements of `dtype` by their bits: small, of all sizes, equal, apart in one place, zero, large, with NaN and infinity (f64). */
static void
fill_wide(port_dtype dtype, int variant, void *expected, void *actual)
{
    size_t size = port_dtype_size(dtype);
    uint64_t random = 12345;
    for (int i = 0; i < WIDE; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        uint64_t e = variant == 1 ? random : random >> 59, a = e + (variant < 2 || variant == 6 ? random >> 40 & 3 : 0);
        double x = sin(i) * 100, y = variant == 2 ? x : x * (1 + 1e-9 * cos(i * 3)) - (i % 11 == 0 ? 2 * x : 0);
        double special[] = {0, -0.0, (double)NAN, HUGE_VAL, -HUGE_VAL, 1e200, -1e200, 5e-324};
        e += variant == 6 ? (uint64_t)1 << 60 : 0;
        a += variant == 3 && i == 2000 ? 5 : 0;
        e = variant == 4 ? 0 : e;
        x = variant == 4 ? 0 : variant == 5 && i % 400 == 7 ? special[i / 400] : variant == 7 && i % 9 == 0 ? special[i / 9 % 8] : x;
        y = variant == 3 ? (i == 2000 ? -x : x) : variant == 5 && i % 400 == 7 ? special[i / 400 % 3] : variant == 8 ? -x : y;
        if (dtype == PORT_F64) {
            memcpy((double *)expected + i, &x, size);
            memcpy((double *)actual + i, &y, size);
        } else {
            e = dtype == PORT_BOOL ? e & 1 : e;
            a = dtype == PORT_BOOL ? a & 1 : a;
            memcpy((char *)expected + (size_t)i * size, &e, size); /* the low bytes */
            memcpy((char *)actual + (size_t)i * size, &a, size);
        }
    }
}

/* f64 and integers in lanes against element by element: bits as they come, counts and places the same. */
static void
wide_lanes(void)
{
    static double e[WIDE], a[WIDE];
    static const port_dtype dtypes[] = {PORT_F64, PORT_BOOL, PORT_U8, PORT_I8, PORT_U16, PORT_I16, PORT_U32, PORT_I32, PORT_U64, PORT_I64};
    const compare_kernels *kernels[2] = {compare_have_avx2() ? &compare_kernels_avx2 : NULL,
                                         compare_have_avx512() ? &compare_kernels_avx512 : NULL};
    for (size_t d = 0; d < sizeof dtypes / sizeof dtypes[0]; d++) {
        for (int variant = 0; variant < WIDE_CASES * 2; variant++) {
            fill_wide(dtypes[d], variant / 2, e, a);
            port_view ve = vector_of(e, dtypes[d], WIDE), va = vector_of(a, dtypes[d], WIDE);
            port_compare_options options = {.scale_scalar = 0.25, .scale_slope = 2, .basic = variant % 2 == 1};
            port_metrics m, w;
            CHECK(compare_by(NULL, &ve, &va, &options, &w, NULL) == PORT_OK);
            for (int k = 0; k < 2; k++) {
                CHECK(compare_by(kernels[k], &ve, &va, &options, &m, NULL) == PORT_OK && same_metrics(&m, &w, options.basic));
            }
        }
    }
    e[WIDE - 1] += 1; /* and a difference is seen at all */
    port_view ve = vector_of(e, PORT_I64, WIDE), va = vector_of(a, PORT_I64, WIDE);
    port_metrics m, w;
    CHECK(port_compare(&ve, &va, NULL, &m, NULL) == PORT_OK && compare_by(NULL, &ve, &ve, NULL, &w, NULL) == PORT_OK);
    CHECK(!same_metrics(&m, &w, false));
}

/* A tensor that is cut into parts: what is found does not depend on where a part ends. */
static void
parts(void)
{
    enum { N = 700001 };
    float *e = malloc(N * sizeof *e), *a = malloc(N * sizeof *a);
    CHECK(e != NULL && a != NULL);
    for (int i = 0; i < N && e != NULL && a != NULL; i++) {
        e[i] = 1 + (float)(i % 1000) / 1000;
        a[i] = e[i] + (float)(i % 7) * 1e-6f;
    }
    int places[] = {0, 131071, 350207, 350208, 699999, N - 1};
    for (size_t k = 0; e != NULL && a != NULL && k < sizeof places / sizeof places[0]; k++) {
        float before = a[places[k]];
        a[places[k]] = 50;
        port_view ve = vector_of(e, PORT_F32, N), va = vector_of(a, PORT_F32, N);
        port_compare_options options = {.scale_scalar = 1};
        port_metrics m;
        CHECK(port_compare(&ve, &va, &options, &m, NULL) == PORT_OK);
        CHECK(m.max_abs_idx == places[k] && m.max_rel_idx == places[k] && m.max_ulp_idx == places[k]);
        CHECK(m.max_err_scale_idx == places[k] && m.p99_abs > 5e-6 && m.p99_abs < 7e-6);
        int64_t counted = 0;
        for (int b = 0; b < PORT_ULP_BUCKETS; b++) {
            counted += m.ulp_histogram[b];
        }
        CHECK(counted == N && m.num_unequal == N - (N + 6) / 7 + (places[k] % 7 == 0));
        a[places[k]] = NAN;
        CHECK(port_compare(&ve, &va, NULL, &m, NULL) == PORT_OK);
        CHECK(m.num_nan_mismatch == 1 && m.first_nonfinite_mismatch == places[k] && m.max_ulp == UINT64_MAX);
        a[places[k]] = before;
    }
    free(e);
    free(a);
}

static void
row_sizes(void)
{
    float x[2][9] = {{3, -1, 2, 0, NAN, 5, -4, INFINITY, 0}, {0}};
    int64_t shape[2] = {2, 9};
    double sizes[2];
    port_view v = port_view_contiguous(x, PORT_F32, 2, shape);
    CHECK(port_row_sizes(&v, PORT_ROW_MEDIAN, sizes, NULL) == PORT_OK && sizes[0] == 3 && sizes[1] == 0);
    CHECK(port_row_sizes(&v, PORT_ROW_RMS, sizes, NULL) == PORT_OK && sizes[0] == sqrt(55.0 / 9) && sizes[1] == 0);
    v.strides[0] = 10;
    CHECK(port_row_sizes(&v, PORT_ROW_RMS, sizes, NULL) == PORT_E_VALUE);
}

static void
error_maps(void)
{
    enum { ROWS = 5, COLS = 2050 };
    static float e[ROWS * COLS], a[ROWS * COLS];
    a[3] = 1;
    a[4 * COLS + 2049] = -4;
    a[2 * COLS + 1024] = NAN;
    int64_t shape[2] = {ROWS, COLS}, worst[2];
    double cells[2 * 3];
    port_view ve = port_view_contiguous(e, PORT_F32, 2, shape), va = port_view_contiguous(a, PORT_F32, 2, shape);
    port_error_map map = {.rows = 2, .cols = 3, .cells = cells, .most_worst = 2, .worst = worst};
    CHECK(port_map_errors(&ve, &va, &map, NULL) == PORT_OK && map.num_worst == 2);
    CHECK(worst[0] == 2 * COLS + 1024 && worst[1] == 4 * COLS + 2049);
    CHECK(cells[0] == 1 && isinf(cells[1]) && cells[2] == 0 && cells[3] == 0 && cells[4] == 0 && cells[5] == 4);
    map.most_worst = 0;
    CHECK(port_map_errors(&ve, &va, &map, NULL) == PORT_OK && map.num_worst == 0);
    map.rows = 6;
    CHECK(port_map_errors(&ve, &va, &map, NULL) == PORT_E_VALUE);
}

int
main(void)
{
    finds_one_wrong_element();
    nan_is_never_close();
    scale_and_strides();
    refuses();
    paths_agree();
    tails();
    half_floats();
    wide_lanes();
    parts();
    row_sizes();
    error_maps();
    return CHECK_REPORT();
}
