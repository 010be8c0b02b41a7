/* triangular.c -- systems of equations with a triangular matrix, by substitution.
 *     left: a x = b      else: x a = b      over stacks of matrices
 * a: (B, N, N), its matrices row- or column-major with any leading dimension; only one triangle is read, with `unit`
 * not even its diagonal. x: (B, N, K), or (B, K, N) if not left; it comes in as b; its matrices are column-major and
 * dense.
 * The reference calls ?trsm of its BLAS; the own loops add in float64 and round once.
 * Source: at::native linalg_solve_triangular (BSD-3-Clause; restated). */
#include "matmul.h"

static bool
is_column_major(const port_view *a)
{
    return a->strides[1] == 1 && a->strides[2] >= a->shape[1];
}

static port_status
solve_check(const port_kernel_call *call, port_error *err)
{
    const port_triangular_params *p = call->params;
    const port_view *a = call->in[0], *x = call->out[0];
    if (p == NULL || a->ndim != 3 || x->ndim != 3 || a->shape[1] != a->shape[2] || x->shape[0] != a->shape[0] ||
        x->shape[p->left ? 1 : 2] != a->shape[1]) {
        return port_fail(err, PORT_E_SHAPE,
                         "solve_triangular: expected stacks of square matrices and of right sides that fit");
    }
    bool rows = a->strides[2] == 1 && a->strides[1] >= a->shape[2];
    bool dense = x->strides[1] == 1 && x->strides[2] == x->shape[1];
    if (a->shape[1] > INT32_MAX || x->shape[1] > INT32_MAX || x->shape[2] > INT32_MAX || a->strides[1] > INT32_MAX ||
        a->strides[2] > INT32_MAX || (!rows && !is_column_major(a)) || !dense) {
        return port_fail(err, PORT_E_SHAPE,
                         "solve_triangular: matrices that are too large, or neither row- nor column-major");
    }
    return a->dtype == x->dtype ? PORT_OK
                                : port_fail(err, PORT_E_DTYPE, "solve_triangular: a of %s and x of %s",
                                            port_dtype_name(a->dtype), port_dtype_name(x->dtype));
}

/* One matrix by the library; y^T = x^T in its column-major terms is what x already is, so only a may have to be
 * transposed. */
static void
solve_by_blas(const port_kernel_call *call, const float *matrix, float *x)
{
    const port_triangular_params *p = call->params;
    const port_view *a = call->in[0], *to = call->out[0];
    bool columns = is_column_major(a);
    int rows = (int)to->shape[1], cols = (int)to->shape[2], lead = (int)a->strides[columns ? 2 : 1];
    lead = lead > 1 ? lead : 1;
    const float one = 1.0f;
    call->provider->strsm(p->left ? "L" : "R", p->upper == columns ? "U" : "L", columns ? "N" : "T",
                          p->unit ? "U" : "N", &rows, &cols, &one, matrix, &lead, x, &rows);
}

#define SOLVE(real)                                                                                                       \
    static void solve_##real(const port_kernel_call *call, const real *matrix, real *x)                                   \
    {                                                                                                                     \
        const port_triangular_params *p = call->params;                                                                   \
        const port_view *a = call->in[0], *to = call->out[0];                                                             \
        int64_t n = a->shape[1], lines = to->shape[p->left ? 2 : 1]; /* a line: the unknowns of one right side */         \
        int64_t step = p->left ? 1 : to->strides[2], next = p->left ? to->strides[2] : 1;                                 \
        int64_t down = a->strides[p->left ? 1 : 2], across = a->strides[p->left ? 2 : 1]; /* x a = b is a^T x^T = b^T */  \
        bool backwards = p->upper == p->left;                                                                             \
        for (int64_t line = 0; line < lines; line++) {                                                                    \
            real *y = x + line * next;                                                                                    \
            for (int64_t k = 0; k < n; k++) {                                                                             \
                int64_t i = backwards ? n - 1 - k : k;                                                                    \
                double sum = (double)y[i * step];                                                                         \
                for (int64_t j = backwards ? i + 1 : 0; j < (backwards ? n : i); j++) {                                   \
                    sum -= (double)matrix[i * down + j * across] * (double)y[j * step];                                   \
                }                                                                                                         \
                y[i * step] = (real)(p->unit ? sum : sum / (double)matrix[i * (down + across)]);                          \
            }                                                                                                             \
        }                                                                                                                 \
    }

SOLVE(float)
SOLVE(double)

static void
solve_run(const port_kernel_call *call)
{
    const port_view *a = call->in[0], *x = call->out[0];
    bool blas =
        a->dtype == PORT_F32 && call->provider != NULL && call->provider->strsm != NULL && port_view_elems(x) > 0;
    int before = blas ? port_provider_use_threads(call->provider, call->profile->num_threads) : -1;
    for (int64_t item = 0; item < x->shape[0]; item++) {
        int64_t from = item * a->strides[0], to = item * x->strides[0];
        if (blas) {
            solve_by_blas(call, (const float *)a->data + from, (float *)x->data + to);
        } else if (a->dtype == PORT_F32) {
            solve_float(call, (const float *)a->data + from, (float *)x->data + to);
        } else {
            solve_double(call, (const double *)a->data + from, (double *)x->data + to);
        }
    }
    if (blas) {
        port_provider_restore_threads(call->provider, before);
    }
}

const port_kernel_row port_triangular_rows[] = {
    {"solve_triangular", PORT_F32, "ref", 0, solve_check, NULL, solve_run},
    {"solve_triangular", PORT_F64, "ref", 0, solve_check, NULL, solve_run},
    {.op = NULL},
};
