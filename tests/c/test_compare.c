/* test_compare.c -- port_compare from C: what it counts, where, and what it refuses. */
#include "core/core.h"

#include "check.h"

#include <math.h>

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

/* The vector path and the decoded one must not differ: the same numbers as F32 and as F64. */
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

int
main(void)
{
    finds_one_wrong_element();
    nan_is_never_close();
    scale_and_strides();
    refuses();
    paths_agree();
    return CHECK_REPORT();
}
