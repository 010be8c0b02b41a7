/* dot2.c -- elements of a matrix product whose terms cancel, in twice the working precision (dot2.h). */
#include "dot2.h"

#include <math.h>

/* Below this part of the terms' size a float64 sum may not hold all 24 bits of a float32 result. */
#define CANCELLED 0x1p-20
#define COLUMNS 64

typedef struct strided {
    const double *data;
    int64_t step; /* to the next term, in elements */
} strided;

static double
norm_of(strided x, int64_t n)
{
    double sum = 0.0;
    for (int64_t k = 0; k < n; k++) {
        sum += x.data[k * x.step] * x.data[k * x.step];
    }
    return sqrt(sum);
}

/* sum += x, and what the rounding of that lost goes to error. */
static void
add_term(double *sum, double *error, double x)
{
    double total = *sum + x, back = total - *sum;
    *error += (*sum - (total - back)) + (x - back);
    *sum = total;
}

static double
dot2(strided a, strided b, int64_t n, double alpha, double addend)
{
    double sum = addend, error = 0.0;
    for (int64_t k = 0; k < n; k++) {
        double x = alpha * a.data[k * a.step], y = b.data[k * b.step], product = x * y;
        error += fma(x, y, -product);
        add_term(&sum, &error, product);
    }
    return sum + error;
}

/* y (M, N) of one product; c may be NULL. */
typedef struct product {
    int64_t M, N, K;
    const double *a, *b, *c;
    double *y;
    const int64_t *a_strides, *b_strides, *c_strides; /* of rows and columns */
    double alpha, beta;
} product;

static void
refine(const product *p)
{
    double norms[COLUMNS];
    for (int64_t first = 0; first < p->N; first += COLUMNS) {
        int64_t count = p->N - first < COLUMNS ? p->N - first : COLUMNS;
        for (int64_t j = 0; j < count; j++) {
            norms[j] = norm_of((strided){p->b + (first + j) * p->b_strides[1], p->b_strides[0]}, p->K);
        }
        for (int64_t i = 0; i < p->M; i++) {
            strided row = {p->a + i * p->a_strides[0], p->a_strides[1]};
            double size = fabs(p->alpha) * norm_of(row, p->K);
            for (int64_t j = 0; j < count; j++) {
                double *y = p->y + i * p->N + first + j;
                double c = p->c != NULL ? p->beta * p->c[i * p->c_strides[0] + (first + j) * p->c_strides[1]] : 0.0;
                double limit = CANCELLED * (size * norms[j] + fabs(c));
                if (fabs(*y) < limit && isfinite(limit)) {
                    *y = dot2(row, (strided){p->b + (first + j) * p->b_strides[1], p->b_strides[0]}, p->K, p->alpha, c);
                }
            }
        }
    }
}

void
port_dot2_refine(const port_kernel_call *call, double alpha, double beta)
{
    const port_view *a = call->in[0], *b = call->in[1], *c = beta != 0.0 ? call->in[2] : NULL, *y = call->out[0];
    int32_t row = a->ndim - 2, batches = a->ndim == 3;
    if (port_view_elems(y) == 0 || (c != NULL && c->data == y->data)) {
        return;
    }
    product p = {.M = y->shape[row], .N = y->shape[row + 1], .K = a->shape[row + 1], .alpha = alpha, .beta = beta,
                 .a_strides = a->strides + row, .b_strides = b->strides + row,
                 .c_strides = c != NULL ? c->strides + row : NULL};
    for (int64_t n = 0; n < (batches ? y->shape[0] : 1); n++) {
        p.a = (const double *)a->data + n * (batches ? a->strides[0] : 0);
        p.b = (const double *)b->data + n * (batches ? b->strides[0] : 0);
        p.c = c != NULL ? (const double *)c->data + n * (batches ? c->strides[0] : 0) : NULL;
        p.y = (double *)y->data + n * p.M * p.N;
        refine(&p);
    }
}
