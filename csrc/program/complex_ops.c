/* complex_ops.c -- complex tensors (C64: pairs of F32) beyond views and products: conversions, functions of elements,
 * sums, matrix products.
 * A conjugate is written out: torch only marks its view, and every op that reads it resolves the mark. */
#include "compose.h"
#include "numbers.h"

#include <complex.h>
#include <math.h>

typedef struct pair {
    float re, im;
} pair;

/* x as F32 with a last dimension of 2. */
static port_status
as_pairs(op_call *call, const port_tensor *x, port_tensor **out)
{
    if (x->ndim == PORT_MAX_NDIM) {
        return fail_unsupported(call, "a complex tensor of %d dimensions", x->ndim);
    }
    port_status status = tensor_alias(call, x, out);
    if (status == PORT_OK) {
        for (int32_t d = 0; d < x->ndim; d++) {
            (*out)->strides[d] = 2 * x->strides[d];
        }
        (*out)->dtype = PORT_F32;
        (*out)->ndim = x->ndim + 1;
        (*out)->shape[x->ndim] = 2;
        (*out)->strides[x->ndim] = 1;
    }
    return status;
}

/* The real (0) or imaginary (1) parts, as they lie. */
static port_status
part_of(op_call *call, const port_tensor *x, int32_t part, port_tensor **out)
{
    port_status status = as_pairs(call, x, out);
    if (status == PORT_OK) {
        (*out)->ndim--;
        (*out)->offset_bytes += part * (int64_t)sizeof(float);
    }
    return status;
}

port_status
tensor_cast_complex(op_call *call, const port_tensor *tensor, port_dtype dtype, const port_tensor **out)
{
    int64_t strides[PORT_MAX_NDIM];
    port_tensor *made, *part;
    if (tensor->dtype == PORT_C64) { /* torch drops the imaginary part with a warning */
        port_status status = part_of(call, tensor, 0, &part);
        return status == PORT_OK ? tensor_cast(call, part, dtype, out) : status;
    }
    const port_tensor *real;
    preserve_strides(tensor, strides);
    port_status status = tensor_cast(call, tensor, PORT_F32, &real);
    if (status != PORT_OK ||
        (status = tensor_new(call, PORT_C64, tensor->ndim, tensor->shape, strides, &made)) != PORT_OK ||
        (status = part_of(call, made, 0, &part)) != PORT_OK) {
        return status;
    }
    memset(tensor_view(made).data, 0, (size_t)made->buffer->size_bytes);
    port_view to = tensor_view(part), from = tensor_view(real);
    copy_view(call, &to, &from);
    *out = made;
    return PORT_OK;
}

/* ------------------------------------------------------------------ functions of elements */

static pair
function_of(const char *name, pair v)
{
    float complex z; // its parts in an array's order (C11 6.2.5); CMPLXF is not everywhere, and re + I * im loses signs and infinities
    memcpy(&z, (float[2]){v.re, v.im}, sizeof z);
    float complex y = z;
    if (strcmp(name, "neg") == 0) {
        return (pair){-v.re, -v.im};
    }
    if (strncmp(name, "_conj", 5) == 0 || strncmp(name, "conj", 4) == 0) {
        return (pair){v.re, -v.im};
    }
    if (strcmp(name, "sgn") == 0 || strcmp(name, "sign") == 0) {
        float size = cabsf(z);
        return size == 0.0f ? (pair){0.0f, 0.0f} : (pair){v.re / size, v.im / size};
    }
    if (strcmp(name, "exp") == 0) {
        y = cexpf(z);
    } else if (strcmp(name, "log") == 0) {
        y = clogf(z);
    } else if (strcmp(name, "sqrt") == 0) {
        y = csqrtf(z);
    } else if (strcmp(name, "sin") == 0) {
        y = csinf(z);
    } else if (strcmp(name, "cos") == 0) {
        y = ccosf(z);
    } else if (strcmp(name, "tanh") == 0) {
        y = ctanhf(z);
    } else if (strcmp(name, "reciprocal") == 0) {
        y = 1.0f / z;
    } else {
        y = z * z; /* square */
    }
    return (pair){crealf(y), cimagf(y)};
}

static bool
has_function(const char *name)
{
    static const char *const known[] = {"neg", "sign", "_conj",      "_conj_physical", "conj_physical",
                                        "sgn", "exp",  "log",        "sqrt",           "sin",
                                        "cos", "tanh", "reciprocal", "square"};
    for (size_t k = 0; k < sizeof known / sizeof known[0]; k++) {
        if (strcmp(known[k], name) == 0) {
            return true;
        }
    }
    return false;
}

/* abs and angle give F32; everything else C64. */
port_status
run_complex_unary(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    const char *name = call->row->name;
    bool size = strcmp(name, "abs") == 0, angle = strcmp(name, "angle") == 0;
    int64_t strides[PORT_MAX_NDIM];
    port_tensor *dense, *made;
    if (!size && !angle && !has_function(name)) {
        return fail_unsupported(call, "a complex operand");
    }
    preserve_strides(x, strides);
    port_status status = tensor_new(call, PORT_C64, x->ndim, x->shape, strides, &dense);
    if (status != PORT_OK || (status = tensor_new(call, size || angle ? PORT_F32 : PORT_C64, x->ndim, x->shape, strides,
                                                  &made)) != PORT_OK) {
        return status;
    }
    port_view to = tensor_view(dense), from = tensor_view(x);
    copy_view(call, &to, &from);
    for (int64_t i = 0, n = tensor_elems(x); i < n; i++) {
        pair v = ((const pair *)to.data)[i];
        if (size || angle) {
            ((float *)tensor_view(made).data)[i] = size ? hypotf(v.re, v.im) : atan2f(v.im, v.re);
        } else {
            ((pair *)tensor_view(made).data)[i] = function_of(name, v);
        }
    }
    return emit(call, made);
}

/* angle, _conj, _conj_physical: of real tensors too. */
static port_status
run_either(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    if (x->dtype == PORT_C64) {
        return run_complex_unary(call);
    }
    if (strcmp(call->row->name, "angle") == 0) {
        return run_formula(call,
                           "%self: self = _to_copy(self, dtype=F32); c = lt.Scalar(self, 0); y = zeros_like(self); y = "
                           "masked_fill.Scalar(y, c, 3.14159265358979323846); "
                           "n = isnan(self); y = where.self(n, self, y) -> y",
                           NULL, 0);
    }
    return emit(call, x);
}

/* complex(real, imag). */
static port_status
run_complex(op_call *call)
{
    const port_tensor *in[2] = {arg_tensor(call, 0), arg_tensor(call, 1)};
    op_plan plan;
    port_tensor *made, *part;
    if (in[0]->dtype != PORT_F32 || in[1]->dtype != PORT_F32) {
        return fail_unsupported(call, "%s and %s", port_dtype_name(in[0]->dtype), port_dtype_name(in[1]->dtype));
    }
    port_status status = plan_pointwise(call, (const op_operand[]){{.tensor = in[0]}, {.tensor = in[1]}}, 2, &plan);
    if (status != PORT_OK ||
        (status = tensor_new(call, PORT_C64, plan.ndim, plan.shape, plan.strides, &made)) != PORT_OK) {
        return status;
    }
    for (int32_t k = 0; k < 2; k++) {
        if ((status = part_of(call, made, k, &part)) != PORT_OK) {
            return status;
        }
        port_view to = tensor_view(part), from = view_broadcast(in[k], plan.ndim, plan.shape);
        copy_view(call, &to, &from);
    }
    return emit(call, made);
}

/* ------------------------------------------------------------------ spectra */

/* A transform of n points: cos and sin of all n angles. */
typedef struct spectrum {
    int64_t n;
    const double *table; /* n pairs */
} spectrum;

static int64_t
least_factor(int64_t n)
{
    for (int64_t p = 2; p * p <= n; p++) {
        if (n % p == 0) {
            return p;
        }
    }
    return n;
}

/* y[0..m) = transform of x at stride (pairs); decimation in time by the least prime factor. room: 2 m numbers. */
static void
transform(const spectrum *s, int64_t m, const double *x, int64_t stride, double *y, double *room)
{
    if (m == 1) {
        y[0] = x[0];
        y[1] = x[1];
        return;
    }
    int64_t p = least_factor(m), q = m / p, step = s->n / m;
    for (int64_t a = 0; a < p; a++) {
        transform(s, q, x + 2 * a * stride, stride * p, room + 2 * a * q, y + 2 * a * q);
    }
    for (int64_t k = 0; k < m; k++) {
        double re = 0.0, im = 0.0;
        for (int64_t a = 0; a < p; a++) {
            const double *w = s->table + 2 * (a * k % m * step), *v = room + 2 * (a * q + k % q);
            re += w[0] * v[0] - w[1] * v[1];
            im += w[0] * v[1] + w[1] * v[0];
        }
        y[2 * k] = re;
        y[2 * k + 1] = im;
    }
}

/* Transforms rows (count, n) of pairs in place. */
static port_status
transform_rows(op_call *call, int64_t count, int64_t n, bool forward, double *rows)
{
    double *table, *room;
    port_status status = new_doubles(call, 2 * n, &table);
    if (status != PORT_OK || (status = new_doubles(call, 4 * n, &room)) != PORT_OK) {
        return status;
    }
    for (int64_t k = 0; k < n; k++) {
        double angle = 2.0 * 3.14159265358979323846 * (double)k / (double)n;
        table[2 * k] = cos(angle);
        table[2 * k + 1] = forward ? -sin(angle) : sin(angle);
    }
    spectrum s = {n, table};
    for (int64_t r = 0; r < count; r++) {
        transform(&s, n, rows + 2 * r * n, 1, room, room + 2 * n);
        memcpy(rows + 2 * r * n, room, (size_t)(2 * n) * sizeof *rows);
    }
    return PORT_OK;
}

/* Values of all dimensions as pairs of double, row-major. */
typedef struct field {
    int32_t ndim;
    int64_t shape[PORT_MAX_NDIM];
    double *pairs;
} field;

static int64_t
field_elems(const field *f)
{
    int64_t n = 1;
    for (int32_t d = 0; d < f->ndim; d++) {
        n *= f->shape[d];
    }
    return n;
}

static port_status
load_field(op_call *call, const port_tensor *x, field *f)
{
    port_tensor *pairs;
    const port_tensor *wide;
    f->ndim = x->ndim;
    memcpy(f->shape, x->shape, sizeof f->shape);
    int64_t n = tensor_elems(x);
    port_status status = new_doubles(call, 2 * n, &f->pairs);
    if (status != PORT_OK) {
        return status;
    }
    if (x->dtype == PORT_C64) {
        status = as_pairs(call, x, &pairs);
        x = pairs;
    }
    if (status != PORT_OK || (status = tensor_cast(call, x, PORT_F64, &wide)) != PORT_OK ||
        (status = tensor_contiguous(call, wide, &wide)) != PORT_OK) {
        return status;
    }
    const double *from = (const double *)tensor_view(wide).data;
    bool complex_input = x->ndim > f->ndim;
    for (int64_t i = 0; i < n; i++) {
        f->pairs[2 * i] = complex_input ? from[2 * i] : from[i];
        f->pairs[2 * i + 1] = complex_input ? from[2 * i + 1] : 0.0;
    }
    return PORT_OK;
}

/* The field with size `size` at dimension d: cut, or (mirror) filled up as the spectrum of real numbers is. */
static port_status
resize_field(op_call *call, field *f, int32_t d, int64_t size, bool mirror)
{
    field made = *f;
    int64_t elems;
    uint64_t bytes;
    made.shape[d] = size;
    if (!port_shape_bytes(PORT_F64, made.ndim, made.shape, &elems, &bytes)) {
        return fail_op(call, PORT_E_SHAPE, "a spectrum of %lld points along dimension %d is too large", (long long)size, d);
    }
    port_status status = new_doubles(call, 2 * elems, &made.pairs);
    int64_t inner = 1, outer, from_size = f->shape[d];
    for (int32_t k = d + 1; k < f->ndim; k++) {
        inner *= f->shape[k];
    }
    outer = status == PORT_OK && inner * size > 0 ? field_elems(&made) / (inner * size) : 0;
    for (int64_t i = 0; i < outer * size * inner; i++) {
        int64_t o = i / (size * inner), k = i / inner % size, from = k;
        double sign = 1.0;
        if (mirror && k > size / 2) {
            from = size - k;
            sign = -1.0;
        }
        bool inside = from < from_size;
        const double *v = f->pairs + 2 * ((o * from_size + (inside ? from : 0)) * inner + i % inner);
        made.pairs[2 * i] = inside ? v[0] : 0.0;
        made.pairs[2 * i + 1] = inside ? sign * v[1] : 0.0;
    }
    *f = made;
    return status;
}

static port_status
transform_dim(op_call *call, field *f, int32_t d, bool forward)
{
    int64_t inner = 1, n = f->shape[d], count = field_elems(f);
    double *rows;
    for (int32_t k = d + 1; k < f->ndim; k++) {
        inner *= f->shape[k];
    }
    if (count == 0) {
        return PORT_OK;
    }
    port_status status = new_doubles(call, 2 * count, &rows);
    for (int32_t pass = 0; status == PORT_OK && pass < 2; pass++) {
        for (int64_t i = 0; i < count; i++) { /* dimension d last, and back */
            int64_t at = (i / (n * inner) * inner + i % inner) * n + i / inner % n;
            double *from = pass == 0 ? f->pairs + 2 * i : rows + 2 * at,
                   *to = pass == 0 ? rows + 2 * at : f->pairs + 2 * i;
            to[0] = from[0];
            to[1] = from[1];
        }
        status = pass == 0 ? transform_rows(call, count / n, n, forward, rows) : PORT_OK;
    }
    return status;
}

/* The strides of torch's result: the other dimensions by their strides in x, outermost first, then those that are
 * transformed. */
static void
spectrum_strides(int32_t ndim, const int64_t *shape, const int64_t *x_strides, const int32_t *dims, int64_t num_dims,
                 int64_t *strides)
{
    int32_t order[PORT_MAX_NDIM], count = 0;
    uint32_t transformed = 0;
    for (int64_t k = 0; k < num_dims; k++) {
        transformed |= 1u << dims[k];
    }
    for (int32_t d = 0; d < ndim; d++) {
        int32_t at = count;
        if ((transformed >> d & 1u) != 0) {
            continue;
        }
        for (; at > 0 && x_strides[order[at - 1]] < x_strides[d]; at--) {
            order[at] = order[at - 1];
        }
        order[at] = d;
        count++;
    }
    for (int64_t k = 0; k < num_dims; k++) {
        order[count++] = dims[k];
    }
    int64_t step = 1;
    for (int32_t k = count - 1; k >= 0; k--) {
        strides[order[k]] = step;
        step *= shape[order[k]] > 1 ? shape[order[k]] : 1;
    }
}

/* Dimensions by their strides, the greatest first; of r2c all but the last. */
static void
sort_dims(const int64_t *x_strides, int32_t *dims, int64_t count)
{
    for (int64_t i = 1; i < count; i++) {
        int32_t d = dims[i];
        int64_t at = i;
        for (; at > 0 && x_strides[dims[at - 1]] < x_strides[d]; at--) {
            dims[at] = dims[at - 1];
        }
        dims[at] = d;
    }
}

/* How torch's result lies: a transform to real numbers of several dimensions is two transforms. */
static void
result_strides(const port_tensor *x, const field *f, const int32_t *given, int64_t num_dims, bool r2c, bool c2r,
               int64_t *strides)
{
    int32_t dims[PORT_MAX_NDIM];
    int64_t between[PORT_MAX_NDIM], last = c2r ? num_dims - 1 : num_dims;
    memcpy(dims, given, sizeof dims);
    memcpy(between, x->strides, sizeof between);
    sort_dims(x->strides, dims, r2c ? num_dims - 1 : last);
    if (!c2r) {
        spectrum_strides(f->ndim, f->shape, x->strides, dims, num_dims, strides);
        return;
    }
    if (num_dims > 1) {
        spectrum_strides(x->ndim, x->shape, x->strides, dims, num_dims - 1, between);
    }
    spectrum_strides(f->ndim, f->shape, between, dims + num_dims - 1, 1, strides);
}

/* _fft_r2c(self, dim, normalization, onesided), _fft_c2c(.., forward), _fft_c2r(.., last_dim_size). */
static port_status
run_fft(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    bool r2c = strcmp(call->row->name, "_fft_r2c") == 0, c2r = strcmp(call->row->name, "_fft_c2r") == 0,
         forward = r2c || (!c2r && arg_bool(call, 3));
    int64_t num_dims = arg_len(call, 1), normalization = arg_int(call, 2), points = 1;
    int32_t dims[PORT_MAX_NDIM];
    uint32_t seen = 0;
    field f;
    if ((r2c ? x->dtype != PORT_F32 : x->dtype != PORT_C64) || num_dims < 1 || num_dims > x->ndim ||
        normalization < 0 || normalization > 2) {
        return fail_unsupported(call, "%lld dimensions of %d of %s", (long long)num_dims, x->ndim,
                                port_dtype_name(x->dtype));
    }
    port_status status = load_field(call, x, &f);
    for (int64_t k = 0; status == PORT_OK && k < num_dims; k++) {
        status = wrap_dim(call, arg_int_at(call, 1, k), x->ndim, &dims[k]);
        if (status == PORT_OK && (seen >> dims[k] & 1u) != 0) {
            return fail_op(call, PORT_E_VALUE, "dimension %d is named twice", dims[k]);
        }
        seen |= status == PORT_OK ? 1u << dims[k] : 0u;
    }
    int64_t last_size = status == PORT_OK ? (c2r ? arg_int(call, 3) : x->shape[dims[num_dims - 1]]) : 0;
    if (status != PORT_OK || last_size < 1 || last_size > INT32_MAX) {
        return status != PORT_OK ? status
                                 : fail_op(call, PORT_E_VALUE, "a spectrum of %lld points", (long long)last_size);
    }
    for (int64_t k = 0; status == PORT_OK && k < num_dims;
         k++) { /* the one between real and complex is last, and is the first of r2c */
        int32_t d = dims[r2c ? num_dims - 1 - k : k];
        bool half = c2r && k == num_dims - 1;
        if (half) {
            status = resize_field(call, &f, d, last_size, true);
        }
        points *= f.shape[d];
        status = status == PORT_OK ? transform_dim(call, &f, d, forward) : status;
    }
    if (status == PORT_OK && r2c && arg_bool(call, 3)) {
        status = resize_field(call, &f, dims[num_dims - 1], last_size / 2 + 1, false);
    }
    port_tensor *made;
    if (status != PORT_OK ||
        (status = tensor_new(call, c2r ? PORT_F32 : PORT_C64, f.ndim, f.shape, NULL, &made)) != PORT_OK) {
        return status;
    }
    double scale = normalization == 0 ? 1.0 : (normalization == 1 ? 1.0 / sqrt((double)points) : 1.0 / (double)points);
    float *to = (float *)tensor_view(made).data;
    for (int64_t i = 0, n = tensor_elems(made) * (c2r ? 1 : 2); i < n; i++) {
        to[i] = (float)(f.pairs[c2r ? 2 * i : i] * scale);
    }
    int64_t strides[PORT_MAX_NDIM];
    port_tensor *laid;
    result_strides(x, &f, dims, num_dims, r2c, c2r, strides);
    if ((status = tensor_new(call, made->dtype, f.ndim, f.shape, strides, &laid)) != PORT_OK) {
        return status;
    }
    port_view to_view = tensor_view(laid), from_view = tensor_view(made);
    copy_view(call, &to_view, &from_view);
    return emit(call, laid);
}

#define FFT(NAME, LAST) {NAME, "T self, A dim, I normalization, " LAST, run_fft, NULL, MODE_SAME, 0}

const op_row op_complex_rows[] = {
    {"complex", "T real, T imag", run_complex, NULL, MODE_SAME, 0},
    {"angle", "T self", run_either, NULL, MODE_SAME, 0},
    {"_conj", "T self", run_either, NULL, MODE_SAME, 0},
    {"_conj_physical", "T self", run_either, NULL, MODE_SAME, 0},
    {"conj_physical", "T self", run_either, NULL, MODE_SAME, OP_IN_PLACE},
    FFT("_fft_r2c", "B onesided"), FFT("_fft_c2c", "B forward"), FFT("_fft_c2r", "I last_dim_size"),
    {.name = NULL},
};
