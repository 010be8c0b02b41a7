/* fft_ops.c -- Fourier transforms of F32 and C64. By the reference's library (kernels/fft.c) where it is there, with the bits of
 * torch; else in double, rounded once. */
#include "numbers.h"

#include <math.h>

/* One op's arguments. */
typedef struct spectrum_call {
    const port_tensor *x;
    bool r2c, c2r, forward;
    int64_t num_dims, normalization, last_size; /* last_size: points of the last dimension, of the signal */
    int32_t dims[PORT_MAX_NDIM];
} spectrum_call;

/* ------------------------------------------------------------------ own loops, in double */

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
        status = tensor_as_pairs(call, x, &pairs);
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


/* ------------------------------------------------------------------ how torch lays its results */

/* Dimensions by their strides, the greatest first. */
static void
sort_dims(const int64_t *strides, int32_t *dims, int64_t count)
{
    for (int64_t i = 1; i < count; i++) {
        int32_t d = dims[i];
        int64_t at = i;
        for (; at > 0 && strides[dims[at - 1]] < strides[d]; at--) {
            dims[at] = dims[at - 1];
        }
        dims[at] = d;
    }
}

/* All dimensions: those that are not transformed by their strides, then the others as they are given. */
static void
order_dims(const port_tensor *x, const int32_t *dims, int64_t num_dims, int32_t *order)
{
    int32_t count = 0;
    uint32_t transformed = 0;
    for (int64_t k = 0; k < num_dims; k++) {
        transformed |= 1u << dims[k];
    }
    for (int32_t d = 0; d < x->ndim; d++) {
        if ((transformed >> d & 1u) == 0) {
            order[count++] = d;
        }
    }
    sort_dims(x->strides, order, count);
    memcpy(order + count, dims, (size_t)num_dims * sizeof *dims);
}

/* Of a tensor that is dense in this order of dimensions. */
static void
ordered_strides(int32_t ndim, const int64_t *shape, const int32_t *order, int64_t *strides)
{
    int64_t step = 1;
    for (int32_t k = ndim - 1; k >= 0; k--) {
        strides[order[k]] = step;
        step *= shape[order[k]] > 1 ? shape[order[k]] : 1;
    }
}

static port_status
new_ordered(op_call *call, port_dtype dtype, int32_t ndim, const int64_t *shape, const int32_t *order, port_tensor **made)
{
    int64_t strides[PORT_MAX_NDIM];
    ordered_strides(ndim, shape, order, strides);
    return tensor_new(call, dtype, ndim, shape, strides, made);
}

/* ------------------------------------------------------------------ by the library */

static double
scale_of(int64_t normalization, int64_t points)
{
    return normalization == 0 ? 1.0 : (normalization == 1 ? 1.0 / sqrt((double)points) : 1.0 / (double)points);
}

/* x with its dimensions in this order, the first of them as one: (batch, signal...); a copy where strides do not allow that. */
static port_status
as_signals(op_call *call, const port_tensor *x, const int32_t *order, int32_t batch_dims, port_tensor **out)
{
    int64_t shape[PORT_MAX_NDIM] = {1}, strides[PORT_MAX_NDIM];
    int32_t ndim = x->ndim - batch_dims + 1;
    port_tensor *permuted;
    if (ndim > PORT_MAX_NDIM) {
        return fail_unsupported(call, "a transform of all of %d dimensions", x->ndim);
    }
    port_status status = tensor_alias(call, x, &permuted);
    for (int32_t k = 0; status == PORT_OK && k < x->ndim; k++) {
        permuted->shape[k] = x->shape[order[k]];
        permuted->strides[k] = x->strides[order[k]];
        if (k < batch_dims) {
            shape[0] *= permuted->shape[k];
        } else {
            shape[k - batch_dims + 1] = permuted->shape[k];
        }
    }
    const port_tensor *base = permuted;
    if (status == PORT_OK && !view_strides(permuted, ndim, shape, strides)) {
        status = tensor_contiguous(call, permuted, &base);
        dense_strides(ndim, shape, strides);
    }
    if (status == PORT_OK && (status = tensor_alias(call, base, out)) == PORT_OK) {
        (*out)->ndim = ndim;
        memcpy((*out)->shape, shape, sizeof shape);
        memcpy((*out)->strides, strides, sizeof strides);
    }
    return status;
}

/* The library takes no stride of 0, and so torch copies what has one. */
static port_status
without_repeats(op_call *call, port_tensor **t)
{
    const port_tensor *dense;
    bool repeats = false;
    for (int32_t d = 0; d < (*t)->ndim; d++) {
        repeats = repeats || (*t)->strides[d] == 0;
    }
    if (!repeats) {
        return PORT_OK;
    }
    port_status status = tensor_contiguous(call, *t, &dense);
    return status == PORT_OK ? tensor_reshaped(call, dense, dense->ndim, dense->shape, t) : status;
}

/* One plan of torch's: dims, sorted, of x become those of `made`, which has `size` elements in the last of them. */
static port_status
run_plan(op_call *call, const port_tensor *x, const int32_t *dims, int64_t num_dims, int64_t size, port_dtype dtype, bool forward,
         int64_t normalization, port_tensor **made)
{
    int32_t order[PORT_MAX_NDIM], batch_dims = x->ndim - (int32_t)num_dims, last = dims[num_dims - 1];
    int64_t shape[PORT_MAX_NDIM], points = 1;
    port_fft_params params = {.num_dims = (int32_t)num_dims, .forward = forward};
    port_tensor *from, *to;
    memcpy(shape, x->shape, sizeof shape);
    shape[last] = size;
    for (int64_t k = 0; k < num_dims; k++) {
        params.sizes[k] = x->shape[dims[k]] > shape[dims[k]] ? x->shape[dims[k]] : shape[dims[k]];
        points *= params.sizes[k];
    }
    params.scale = scale_of(normalization, points);
    order_dims(x, dims, num_dims, order);
    port_status status = as_signals(call, x, order, batch_dims, &from);
    if (status != PORT_OK || (status = without_repeats(call, &from)) != PORT_OK ||
        (status = new_ordered(call, dtype, x->ndim, shape, order, made)) != PORT_OK ||
        (status = as_signals(call, *made, order, batch_dims, &to)) != PORT_OK) {
        return status;
    }
    port_view x_view = tensor_view(from), y_view = tensor_view(to);
    port_error inner = {.message = ""};
    status = port_fft_run(call->options->provider, call->options->profile.num_threads, &params, &x_view, &y_view, &inner);
    call->kernel_ran = true;
    return status == PORT_OK ? PORT_OK : fail_op(call, status, "%s", inner.message);
}

/* The second half of a spectrum of real numbers along the last of dims: conjugates of what stands opposite. */
static void
mirror_spectrum(const port_tensor *t, const int32_t *dims, int64_t num_dims)
{
    int32_t last = dims[num_dims - 1];
    int64_t n = t->shape[last], at[PORT_MAX_NDIM] = {0};
    uint32_t mirrored = 0;
    float *data = (float *)tensor_view(t).data;
    for (int64_t k = 0; k < num_dims; k++) {
        mirrored |= 1u << dims[k];
    }
    for (int64_t i = 0, count = tensor_elems(t); i < count; i++) {
        int64_t to = 0, from = 0, rest = i;
        for (int32_t d = t->ndim - 1; d >= 0; d--) {
            at[d] = rest % t->shape[d];
            rest /= t->shape[d];
            to += at[d] * t->strides[d];
            from += ((mirrored >> d & 1u) != 0 && at[d] > 0 ? t->shape[d] - at[d] : at[d]) * t->strides[d];
        }
        if (at[last] > n / 2) {
            data[2 * to] = data[2 * from];
            data[2 * to + 1] = -data[2 * from + 1];
        }
    }
}

static port_status
run_by_library(op_call *call, const spectrum_call *s)
{
    const port_tensor *x = s->x;
    int32_t dims[PORT_MAX_NDIM];
    int64_t last = s->num_dims - 1, half = s->last_size / 2 + 1;
    port_tensor *made;
    memcpy(dims, s->dims, sizeof dims);
    port_status status = PORT_OK;
    sort_dims(x->strides, dims, s->r2c || s->c2r ? last : s->num_dims);
    if (s->c2r && last > 0) { /* torch makes two transforms of it */
        status = run_plan(call, x, dims, last, x->shape[dims[last - 1]], PORT_C64, false, s->normalization, &made);
        x = made;
    }
    if (status != PORT_OK) {
        return status;
    }
    if (s->c2r) {
        status = run_plan(call, x, dims + last, 1, s->last_size, PORT_F32, false, s->normalization, &made);
    } else {
        bool onesided = s->r2c && arg_bool(call, 3);
        status = run_plan(call, x, dims, s->num_dims, onesided ? half : x->shape[dims[last]], PORT_C64, s->forward, s->normalization, &made);
        if (status == PORT_OK && s->r2c && !onesided) {
            mirror_spectrum(made, s->dims, s->num_dims);
        }
    }
    return status == PORT_OK ? emit(call, made) : status;
}

/* ------------------------------------------------------------------ the ops */

/* In double; the one dimension between real and complex is last, and is the first of r2c. */
static port_status
run_by_own_loops(op_call *call, const spectrum_call *s)
{
    int64_t points = 1, last = s->num_dims - 1;
    int32_t order[PORT_MAX_NDIM], dims[PORT_MAX_NDIM];
    field f;
    port_status status = load_field(call, s->x, &f);
    for (int64_t k = 0; status == PORT_OK && k < s->num_dims; k++) {
        int32_t d = s->dims[s->r2c ? last - k : k];
        if (s->c2r && k == last) {
            status = resize_field(call, &f, d, s->last_size, true);
        }
        points *= f.shape[d];
        status = status == PORT_OK ? transform_dim(call, &f, d, s->forward) : status;
    }
    if (status == PORT_OK && s->r2c && arg_bool(call, 3)) {
        status = resize_field(call, &f, s->dims[last], s->last_size / 2 + 1, false);
    }
    port_tensor *made, *laid, between = *s->x;
    if (status != PORT_OK || (status = tensor_new(call, s->c2r ? PORT_F32 : PORT_C64, f.ndim, f.shape, NULL, &made)) != PORT_OK) {
        return status;
    }
    double scale = scale_of(s->normalization, points);
    float *to = (float *)tensor_view(made).data;
    for (int64_t i = 0, n = tensor_elems(made) * (s->c2r ? 1 : 2); i < n; i++) {
        to[i] = (float)(f.pairs[s->c2r ? 2 * i : i] * scale);
    }
    memcpy(dims, s->dims, sizeof dims);
    sort_dims(s->x->strides, dims, s->r2c || s->c2r ? last : s->num_dims);
    if (s->c2r && last > 0) {
        order_dims(s->x, dims, last, order);
        ordered_strides(s->x->ndim, s->x->shape, order, between.strides);
    }
    order_dims(&between, s->c2r ? dims + last : dims, s->c2r ? 1 : s->num_dims, order);
    if ((status = new_ordered(call, made->dtype, f.ndim, f.shape, order, &laid)) != PORT_OK) {
        return status;
    }
    port_view to_view = tensor_view(laid), from_view = tensor_view(made);
    copy_view(call, &to_view, &from_view);
    return emit(call, laid);
}

static bool
library_fits(const op_call *call, const spectrum_call *s)
{
    bool whole = call->options->variant == NULL && port_fft_has_library(call->options->provider) && tensor_elems(s->x) > 0;
    return whole && (!s->c2r || s->x->shape[s->dims[s->num_dims - 1]] == s->last_size / 2 + 1);
}

/* _fft_r2c(self, dim, normalization, onesided), _fft_c2c(.., forward), _fft_c2r(.., last_dim_size). */
static port_status
run_fft(op_call *call)
{
    const port_tensor *x = arg_tensor(call, 0);
    spectrum_call s = {.x = x, .r2c = strcmp(call->row->name, "_fft_r2c") == 0, .c2r = strcmp(call->row->name, "_fft_c2r") == 0,
                       .num_dims = arg_len(call, 1), .normalization = arg_int(call, 2)};
    uint32_t seen = 0;
    s.forward = s.r2c || (!s.c2r && arg_bool(call, 3));
    if ((s.r2c ? x->dtype != PORT_F32 : x->dtype != PORT_C64) || s.num_dims < 1 || s.num_dims > x->ndim || s.normalization < 0 ||
        s.normalization > 2) {
        return fail_unsupported(call, "%lld dimensions of %d of %s", (long long)s.num_dims, x->ndim, port_dtype_name(x->dtype));
    }
    for (int64_t k = 0; k < s.num_dims; k++) {
        port_status status = wrap_dim(call, arg_int_at(call, 1, k), x->ndim, &s.dims[k]);
        if (status != PORT_OK || (seen >> s.dims[k] & 1u) != 0) {
            return status != PORT_OK ? status : fail_op(call, PORT_E_VALUE, "dimension %d is named twice", s.dims[k]);
        }
        seen |= 1u << s.dims[k];
    }
    s.last_size = s.c2r ? arg_int(call, 3) : x->shape[s.dims[s.num_dims - 1]];
    if (s.last_size < 1 || s.last_size > INT32_MAX) {
        return fail_op(call, PORT_E_VALUE, "a spectrum of %lld points", (long long)s.last_size);
    }
    return library_fits(call, &s) ? run_by_library(call, &s) : run_by_own_loops(call, &s);
}

#define FFT(NAME, LAST) {NAME, "T self, A dim, I normalization, " LAST, run_fft, NULL, MODE_SAME, 0}

const op_row op_fft_rows[] = {
    FFT("_fft_r2c", "B onesided"), FFT("_fft_c2c", "B forward"), FFT("_fft_c2r", "I last_dim_size"),
    {.name = NULL},
};
