/* rare_ops.c -- ops that few models use and that other ops make: affine grids, masked softmax, distances of all pairs, mantissas
 * and exponents, exponentials of matrices, places of a fixed number of elements, assertions. */
#include "compose.h"
#include "floats.h"
#include "numbers.h"

#define INTEGER(NAME, VALUE) {NAME, {.kind = PORT_ARG_INT, .i = VALUE, .d = (double)(VALUE)}}
#define COUNT(EXTRA) ((int32_t)(sizeof EXTRA / sizeof EXTRA[0]))

/* A line from -1 to 1 along one dimension of the grid, of which one place is 0; without align_corners the places are pixels' middles. */
#define AXIS(NAME, STEPS, SHAPE)                                                                                     \
    "!" STEPS "=1: " NAME " = linspace(-1, 1, " STEPS ", dtype=theta.dtype); ?" STEPS "=1: " NAME " = zeros([1], dtype=theta.dtype); " \
    "!align_corners: " NAME " = mul.Scalar(" NAME ", " STEPS "_less); !align_corners: " NAME " = div.Scalar(" NAME ", " STEPS "); " \
    NAME " = reshape(" NAME ", " SHAPE "); "

/* affine_grid_generator(theta (N, 2, 3) or (N, 3, 4), size (N, C, [D], H, W), align_corners): (N, [D], H, W, 2 or 3). */
static port_status
run_affine_grid(op_call *call)
{
    const port_tensor *theta = arg_tensor(call, 0);
    int64_t len = arg_len(call, 1), spatial = len - 2, sizes[3] = {1, 1, 1}, places = 1;
    if ((spatial != 2 && spatial != 3) || theta->ndim != 3 || theta->shape[0] != arg_int_at(call, 1, 0) || theta->shape[1] != spatial ||
        theta->shape[2] != spatial + 1 || !dtype_is_float(theta->dtype)) {
        return fail_op(call, PORT_E_SHAPE, "expected theta (N, 2, 3) and 4 sizes, or (N, 3, 4) and 5, of one N");
    }
    for (int64_t d = 0; d < spatial; d++) {
        sizes[3 - spatial + d] = arg_int_at(call, 1, 2 + d);
        if (sizes[3 - spatial + d] < 1 || __builtin_mul_overflow(places, sizes[3 - spatial + d], &places)) {
            return fail_op(call, PORT_E_VALUE, "size %lld of dimension %lld", (long long)sizes[3 - spatial + d], (long long)d);
        }
    }
    const port_named_arg extra[] = {INTEGER("N", theta->shape[0]), INTEGER("D", sizes[0]), INTEGER("H", sizes[1]), INTEGER("W", sizes[2]),
                                    INTEGER("D_less", sizes[0] - 1), INTEGER("H_less", sizes[1] - 1), INTEGER("W_less", sizes[2] - 1),
                                    INTEGER("places", places)};
#define GRID "o = ones([1], dtype=theta.dtype); t = transpose.int(theta, 1, 2); " AXIS("x", "W", "[-1, 1]") AXIS("y", "H", "[-1, 1, 1]")
    return run_formula(call,
                       spatial == 2 ? GRID "x = expand(x, [N, H, W, 1]); y = expand(y, [N, H, W, 1]); o = expand(o, [N, H, W, 1]); "
                                           "g = cat([x, y, o], -1); g = view(g, [N, places, 3]); g = bmm(g, t); y = view(g, [N, H, W, 2]) -> y"
                                    : GRID AXIS("z", "D", "[-1, 1, 1, 1]")
                                          "x = expand(x, [N, D, H, W, 1]); y = expand(y, [N, D, H, W, 1]); z = expand(z, [N, D, H, W, 1]); "
                                          "o = expand(o, [N, D, H, W, 1]); g = cat([x, y, z, o], -1); g = view(g, [N, places, 4]); "
                                          "g = bmm(g, t); y = view(g, [N, D, H, W, 3]) -> y",
                       extra, COUNT(extra));
}

typedef struct masked_lines {
    port_dtype dtype;
    const void *x;
    const char *mask; /* as x */
    void *y;
    int64_t count, step; /* of a line */
} masked_lines;

/* What is masked is 0; what is not, exp(x - max) by libm, times one over the sum: in F32 both in double, in halves rounded to them. */
static void
soften_lines(const void *opaque, int64_t begin, int64_t end)
{
    const masked_lines *m = opaque;
    const port_dtype dtype = m->dtype;
    bool half = dtype == PORT_F16 || dtype == PORT_BF16;
    for (int64_t line = begin; line < end; line++) {
        int64_t at = line / m->step * m->count * m->step + line % m->step, last = at + m->count * m->step;
        double most = (double)NAN, sum = 0.0;
        bool seen = false;
        for (int64_t i = at; i < last; i += m->step) {
            double value = float_load(dtype, m->x, i);
            most = m->mask[i] != 0 || (seen && !(most < value)) ? most : value;
            seen = seen || m->mask[i] == 0;
        }
        for (int64_t i = at; i < last; i += m->step) {
            double value = 0.0;
            if (m->mask[i] == 0) {
                double below = float_rounded(dtype, float_load(dtype, m->x, i) - most);
                value = float_rounded(dtype, dtype == PORT_F64 ? exp(below) : (double)expf((float)below));
            }
            float_store(dtype, m->y, i, value);
            sum = half ? (double)((float)sum + (float)value) : sum + value;
        }
        double factor = sum == 0.0 ? (double)NAN : (half ? float_rounded(dtype, (double)(1.0f / (float)sum)) : 1.0 / sum);
        for (int64_t i = at; i < last; i += m->step) {
            float_store(dtype, m->y, i, float_load(dtype, m->y, i) * factor);
        }
    }
}

/* _masked_softmax(self, mask, dim, mask_type): without what is masked. A mask of type 0 is (T, T), of type 1 (B, T) for (B, H, T, T). */
static port_status
run_masked_softmax(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0), *mask = arg_tensor(call, 1);
    int64_t type = arg_given(call, 3) ? arg_int(call, 3) : 2;
    bool fits = mask->dtype == PORT_BOOL && dtype_is_float(x->dtype) && type >= 0 && type <= 2;
    fits = fits && (type == 2 ? mask->ndim == x->ndim && memcmp(mask->shape, x->shape, (size_t)x->ndim * sizeof x->shape[0]) == 0
                              : mask->ndim == 2 && x->ndim == 4 && x->shape[2] == x->shape[3] && mask->shape[0] == x->shape[type == 0 ? 2 : 0] &&
                                    mask->shape[1] == x->shape[3]);
    if (!fits) {
        return fail_op(call, PORT_E_SHAPE, "expected a BOOL mask of the scores' shape, or of 4-dimensional scores (B, H, T, T) a (T, T) or (B, T) by its type");
    }
    int32_t d;
    const port_tensor *dense;
    port_tensor *out, *hidden;
    port_view kept = tensor_view(x);
    preserve_strides(x, kept.strides);
    if (!port_view_is_contiguous(&kept)) {
        return fail_unsupported(call, "scores that are not row-major, whose result torch writes to other places");
    }
    port_status status = wrap_dim(call, arg_given(call, 2) ? arg_int(call, 2) : -1, x->ndim, &d);
    if (status != PORT_OK || (status = tensor_contiguous(call, x, &dense)) != PORT_OK ||
        (status = tensor_new(call, x->dtype, x->ndim, x->shape, NULL, &out)) != PORT_OK ||
        (status = tensor_new(call, PORT_BOOL, x->ndim, x->shape, NULL, &hidden)) != PORT_OK) {
        return status;
    }
    port_view to = tensor_view(hidden), from = view_broadcast(mask, x->ndim, x->shape);
    if (type == 1) {
        memcpy(from.strides, (const int64_t[]){mask->strides[0], 0, 0, mask->strides[1]}, 4 * sizeof from.strides[0]);
    }
    copy_view(call, &to, &from);
    masked_lines lines = {x->dtype, tensor_view(dense).data, to.data, tensor_view(out).data, x->ndim > 0 ? x->shape[d] : 1, 1};
    for (int32_t k = d + 1; k < x->ndim; k++) {
        lines.step *= x->shape[k];
    }
    if (tensor_elems(out) > 0) {
        port_deal(tensor_elems(out) / lines.count, lines.count * 32, call->options->profile.num_threads, soften_lines, &lines);
    }
    return emit(call, out);
}

/* _pdist_forward(self (N, M), p): the distances of all pairs, row by row of the upper triangle. */
static port_status
run_pdist(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    if (x->ndim != 2 || (x->dtype != PORT_F32 && x->dtype != PORT_F64)) {
        return fail_op(call, PORT_E_SHAPE, "expected (N, M) of F32 or F64, got %d dimensions of %s", x->ndim, port_dtype_name(x->dtype));
    }
    const port_named_arg extra[] = {INTEGER("N", x->shape[0])};
    return run_formula(call,
                       "p2 = triu_indices(N, N, 1); i = select.int(p2, 0, 0); j = select.int(p2, 0, 1); a = index_select(self, 0, i); "
                       "b = index_select(self, 0, j); d = sub.Tensor(a, b); !p=0: y = linalg_vector_norm(d, p, [-1]); "
                       "?p=0: d = abs(d); ?p=0: d = ceil(d); ?p=0: d = clamp_max(d, 1); ?p=0: y = sum.dim_IntList(d, [-1]) -> y",
                       extra, COUNT(extra));
}

/* mvlgamma(self, p): the sum of lgamma(x - (i - 1) / 2), i = 1 ... p, and a constant. */
static port_status
run_mvlgamma(op_call *call)
{
    int64_t p = arg_int(call, 1);
    if (p < 1 || p > INT32_MAX) {
        return fail_op(call, PORT_E_VALUE, "p is %lld; expected 1 or more", (long long)p);
    }
    if (arg_tensor(call, 0)->dtype == PORT_BOOL) {
        return fail_op(call, PORT_E_DTYPE, "a tensor of BOOL; expected numbers");
    }
    const port_named_arg extra[] = {{"first", {.kind = PORT_ARG_FLOAT, .d = -(double)p / 2.0 + 0.5}},
                                    {"more", {.kind = PORT_ARG_FLOAT, .d = (double)(p * p - p) * log(3.14159265358979323846) / 4.0}}};
    return run_formula(call,
                       "%self: self = _to_copy(self, dtype=F32); a = arange.start_step(first, 0.5, 0.5, dtype=self.dtype); "
                       "x = unsqueeze(self, -1); x = add.Tensor(x, a); x = lgamma(x); y = sum.dim_IntList(x, [-1]); y = add.Scalar(y, more) -> y",
                       extra, COUNT(extra));
}

/* frexp.Tensor(self): mantissas of sizes in [0.5, 1), and I32 exponents. */
static port_status
run_frexp(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    int64_t strides[PORT_MAX_NDIM];
    port_tensor *mantissa, *exponent;
    if (!dtype_is_float(x->dtype)) {
        return fail_op(call, PORT_E_DTYPE, "elements of %s have no exponent", port_dtype_name(x->dtype));
    }
    preserve_strides(x, strides);
    port_status status = tensor_new(call, x->dtype, x->ndim, x->shape, strides, &mantissa);
    if (status != PORT_OK || (status = tensor_new(call, PORT_I32, x->ndim, x->shape, strides, &exponent)) != PORT_OK) {
        return status;
    }
    port_view to = tensor_view(mantissa), from = tensor_view(x);
    copy_view(call, &to, &from);
    for (int64_t i = 0, n = tensor_elems(x); i < n; i++) {
        int of = 0;
        float_store(x->dtype, to.data, i, frexp(float_load(x->dtype, to.data, i), &of));
        ((int32_t *)tensor_view(exponent).data)[i] = of;
    }
    status = emit(call, mantissa);
    return status == PORT_OK ? emit(call, exponent) : status;
}

/* to = a @ b for dense n x n. */
static void
multiply_square(int64_t n, const double *a, const double *b, double *to)
{
    memset(to, 0, (size_t)(n * n) * sizeof *to);
    for (int64_t i = 0; i < n; i++) {
        for (int64_t k = 0; k < n; k++) {
            for (int64_t j = 0; j < n; j++) {
                to[i * n + j] += a[i * n + k] * b[k * n + j];
            }
        }
    }
}

/* e^a by Taylor's series of a / 2^s, whose 1-norm is below 1, squared s times. room: n * n; NaN where an element is not finite. */
static void
exponential_of(int64_t n, double *a, double *room, double *to)
{
    double norm = 0.0;
    int halvings = 0;
    for (int64_t j = 0; j < n; j++) {
        double sum = 0.0;
        for (int64_t i = 0; i < n; i++) {
            sum += fabs(a[i * n + j]);
        }
        norm = sum <= norm ? norm : sum;
    }
    if (!isfinite(norm)) {
        for (int64_t i = 0; i < n * n; i++) {
            to[i] = (double)NAN;
        }
        return;
    }
    for (; norm > 1.0; halvings++) {
        norm /= 2.0;
    }
    for (int64_t i = 0; i < n * n; i++) {
        a[i] = ldexp(a[i], -halvings);
        to[i] = i % (n + 1) == 0 ? 1.0 : 0.0;
    }
    for (int k = 20; k > 0; k--) {
        multiply_square(n, a, to, room);
        for (int64_t i = 0; i < n * n; i++) {
            to[i] = room[i] / k + (i % (n + 1) == 0 ? 1.0 : 0.0);
        }
    }
    for (; halvings > 0; halvings--) {
        multiply_square(n, to, to, room);
        memcpy(to, room, (size_t)(n * n) * sizeof *to);
    }
}

/* linalg_matrix_exp(self (.., N, N)), in double. Halves are refused: the reference's series overflows in them. */
static port_status
run_matrix_exp(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0), *wide, *result;
    int64_t n = x->ndim >= 2 ? x->shape[x->ndim - 1] : -1;
    port_tensor *in, *out;
    double *room;
    if (n < 0 || x->shape[x->ndim - 2] != n || (x->dtype != PORT_F32 && x->dtype != PORT_F64)) {
        return fail_op(call, PORT_E_SHAPE, "expected square matrices of F32 or F64, got %d dimensions of %s", x->ndim, port_dtype_name(x->dtype));
    }
    port_status status = tensor_cast(call, x, PORT_F64, &wide);
    if (status != PORT_OK || (status = tensor_new(call, PORT_F64, x->ndim, x->shape, NULL, &in)) != PORT_OK ||
        (status = tensor_new(call, PORT_F64, x->ndim, x->shape, NULL, &out)) != PORT_OK || (status = new_doubles(call, n * n, &room)) != PORT_OK) {
        return status;
    }
    port_view to = tensor_view(in), from = tensor_view(wide);
    copy_view(call, &to, &from);
    for (int64_t at = 0; at < tensor_elems(x); at += n * n) {
        exponential_of(n, (double *)to.data + at, room, (double *)tensor_view(out).data + at);
    }
    status = tensor_cast(call, out, x->dtype, &result);
    return status == PORT_OK ? emit(call, result) : status;
}

/* nonzero_static(self, size, fill_value): the first `size` places, and rows of fill_value behind them. */
static port_status
run_nonzero_static(op_call *call)
{
    if (arg_int(call, 1) < 0) {
        return fail_op(call, PORT_E_VALUE, "size is %lld", (long long)arg_int(call, 1));
    }
    const port_named_arg extra[] = {INTEGER("ndim", arg_tensor(call, 0)->ndim)};
    return run_formula(call,
                       "n = nonzero(self); f = full([size, ndim], fill_value, dtype=I64); y = cat([n, f], 0); y = slice.Tensor(y, 0, 0, size); "
                       "y = contiguous(y) -> y",
                       extra, COUNT(extra));
}

/* _assert_async(self, message): an error if the one element is 0. */
static port_status
run_assert(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0), *flag;
    if (tensor_elems(x) != 1) {
        return fail_op(call, PORT_E_SHAPE, "expected one element, got %lld", (long long)tensor_elems(x));
    }
    port_status status = tensor_cast(call, x, PORT_BOOL, &flag);
    if (status == PORT_OK && *(const bool *)tensor_view(flag).data == false) {
        status = fail_op(call, PORT_E_VALUE, "the model asserts what does not hold: %s", call->num_args > 1 ? arg_text(call, 1, "") : "a tensor is 0");
    }
    return status;
}

const op_row op_rare_rows[] = {
    {"affine_grid_generator", "T theta, A size, B align_corners", run_affine_grid, NULL, MODE_SAME, 0},
    {"_masked_softmax", "T self, T mask, I? dim=None, I? mask_type=None", run_masked_softmax, NULL, MODE_SAME, 0},
    {"_pdist_forward", "T self, F p=2.0", run_pdist, NULL, MODE_SAME, 0},
    {"mvlgamma", "T self, I p", run_mvlgamma, NULL, MODE_SAME, OP_IN_PLACE},
    {"frexp.Tensor", "T self", run_frexp, NULL, MODE_SAME, 0},
    {"linalg_matrix_exp", "T self", run_matrix_exp, NULL, MODE_SAME, 0},
    {"nonzero_static", "T self, *, I size, I fill_value=-1", run_nonzero_static, NULL, MODE_SAME, 0},
    {"_assert_async", "T self", run_assert, NULL, MODE_SAME, 0},
    {"_assert_async.msg", "T self, s assert_msg", run_assert, NULL, MODE_SAME, 0},
    {.name = NULL},
};
