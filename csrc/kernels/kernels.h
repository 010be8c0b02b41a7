/* kernels.h -- every op that has kernels: its operands and its parameters. Private to csrc/.
 *
 * For each op: `in` and `out` of port_kernel_call in order, and the struct behind `params` (NULL if none is named).
 * All views may be strided (any strides, 0 for broadcast) unless it says "row-major". The caller has already broadcast
 * operands to the shape of `out` (stride 0) where it says "broadcast", promoted them to one dtype where it says
 * "same dtype", and allocated `out` with the right shape. Python scalars arrive as 0-dimensional views broadcast likewise.
 */
#ifndef PORT_KERNELS_H
#define PORT_KERNELS_H

#include "kernel.h"

/* ---- unary.c, gelu.c: in (x), out (y), broadcast, same dtype; y may be x itself.
 * neg abs exp log sin cos tanh sigmoid silu relu rsqrt sqrt reciprocal erf floor ceil round sign square
 * logical_not (any dtype -> BOOL), bitwise_not (BOOL and integers) */

/* gelu: in (x), out (y) */
typedef struct port_gelu_params {
    bool tanh_approximation; /* approximate="tanh"; else erf */
} port_gelu_params;
/* Elements that each of the reference's threads gets at least in gelu of n. */
int64_t port_gelu_grain(int64_t n, int32_t num_threads);

/* pow_scalar: in (x), out (y), floating or integer; exponents 2, 3, 0.5, -0.5, -1, -2 as torch specialises them */
typedef struct port_pow_params {
    port_scalar exponent;
} port_pow_params;

/* clamp: in (x), out (y) */
typedef struct port_clamp_params {
    port_scalar min, max; /* kind NONE: open */
} port_clamp_params;

/* ---- binary.c: in (a, b), out (y), broadcast, same dtype; y may be a or b.
 * add sub: y = a + alpha * b     mul div pow maximum minimum     divide.c: remainder fmod floor_divide trunc_divide
 * bitwise_and bitwise_or bitwise_xor logical_and logical_or (BOOL and integers)
 * eq ne lt le gt ge: out is BOOL
 * where: in (condition BOOL, a, b), out (y); the row is by the dtype of y */
typedef struct port_binary_params {
    port_scalar alpha;  /* add, sub only */
    port_scalar number; /* mul and div of BF16 and F16: stands for b, as an f32 that is not rounded to the half; b is not read. Kind NONE: there is none */
} port_binary_params;

/* ---- cast.c
 * cast: in (x any dtype), out (y any dtype, same shape): torch's conversion; the row is by the dtype of x
 * fill: out (y); the row is by the dtype of y
 * arange: out (y, one dimension) */
typedef struct port_fill_params {
    port_scalar value;
} port_fill_params;
typedef struct port_arange_params {
    port_scalar start, step;
} port_arange_params;

/* ---- reduce.c: in (x), out (y): y has x's ndim, size 1 at the reduced dimensions. BOOL and integers sum to I64.
 * sum mean prod amax amin any all (out BOOL); argmax argmin (out I64; one dimension or all: flat index);
 * var, std (correction); welford_mean (the mean that var sums up with) */
typedef struct port_reduce_params {
    uint32_t dims;     /* bit d set: dimension d is reduced */
    double correction; /* var, std only */
    bool about_mean;   /* var, std of F32 and F64 with one output: two passes, as the reference; else Welford's update always */
    bool signs_in_order; /* amax, amin of floats: which of two zeros it is follows the reference's order; else it is the first */
} port_reduce_params;

/* ---- scans.c: in (x), out (y of x's shape) along one dimension, which is the only one in port_reduce_params.dims
 * cumsum, cumprod (I64 for BOOL and integers); cummax, cummin: a second out, the places (I64) */

/* ---- softmax.c: softmax, log_softmax: in (x), out (y), same shape; floating. Along the last dimension softmax may have x and y in one place. */
typedef struct port_softmax_params {
    int32_t dim;
} port_softmax_params;

/* ---- norm.c
 * layer_norm: in (x, weight or NULL, bias or NULL), out (y, mean, rstd); x row-major (rows, cols): the last
 *             `normalized_ndim` dimensions are cols. mean, rstd: rows elements, row-major, of any floating dtype; may be NULL
 *             Halves may have a weight and bias of F32.
 * rms_norm:   in (x, weight or NULL), out (y) */
typedef struct port_norm_params {
    int32_t normalized_ndim;
    double eps;
} port_norm_params;

/* ---- indexing.c
 * embedding: in (weight (V, D), indices I32 or I64 any shape), out (indices.shape, D); the row is by weight's dtype.
 *            check refuses an index outside 0..V-1 (VALUE, naming index and place)
 * index:     in (x, index_0, index_1, ...), out (y): x[..., idx0, idx1, ..., ...]; index k applies to dimension dims[k];
 *            the index tensors are already broadcast to one shape; first_dim says where that shape stands in y
 * gather:    in (x, index), out (y)   params: dim
 * index_select: in (x, index 1-d), out (y)  params: dim
 * isin:      in (elements, test_elements), out (BOOL like elements)   params: invert */
typedef struct port_index_params {
    int32_t num_indices, dims[PORT_KERNEL_MAX_IN - 1], first_dim;
} port_index_params;
typedef struct port_dim_params {
    int32_t dim;
} port_dim_params;
typedef struct port_isin_params {
    bool invert;
} port_isin_params;

/* ---- gemm.c
 * gemm: in (a (M, K), b (K, N), c or NULL, broadcast to (M, N)), out (y (M, N) row-major): y = beta * c + alpha * a @ b.
 *       a and b strided (b = w.t() has strides (1, K)); goes to the provider's sgemm when it has one
 * bmm:  in (a (B, M, K), b (B, K, N), c or NULL), out (y (B, M, N) row-major)
 * Both for F32 and F64; BF16 and F16 are summed in f32, in the reference's order (matmul.h), and rounded once. */
typedef struct port_gemm_params {
    double alpha, beta;
    bool as_rows; /* of gemm: a library is asked for rows of a y of one column too, as ATen asks where y lies in given memory */
    bool is_spread; /* of bmm: y stands for given memory whose rows are not dense, which oneDNN sums by its plain loops */
} port_gemm_params;
/* Whether the variant `chain` of gemm has a fast way for this call (chain.h): of F32, large enough, on a CPU with AVX-512. */
bool port_gemm_is_packed(const port_kernel_call *call);
/* ATen does not ask a BLAS for small batches: products of fewer multiplications for each item are plain loops. */
enum { PORT_SMALL_PRODUCT = 400 };
/* Whether each item of a stack of B products of (M, K) and (K, N) has the bits in it that it has by itself in one thread.
 * sizes: B, M, K, N. Own loops always, but where the size of a BF16 stack decides its order; a library's float32 products where none takes its
 * small path and each has one thread. */
bool port_bmm_is_itemwise(const port_provider *provider, port_dtype dtype, const int64_t sizes[4], const port_profile *profile);

/* ---- attention.c, attention_f64.c: sdpa_flash
 * in (q (B, H, T, D), k (B, G, S, D), v (B, G, S, D), mask or NULL (broadcast to (B, H, T, S), F32 or BOOL)), out (y (B, H, T, D), lse (B, H, T) F32 or NULL)
 * H is a multiple of G (grouped queries: head h uses h / (H / G)). With an F64 query the mask and lse may be F64 too. */
typedef struct port_sdpa_params {
    bool is_causal;
    double scale;
} port_sdpa_params;

port_status port_sdpa_check(const port_kernel_call *call, port_error *err);

/* ---- scatter.c
 * scatter: in (index I64 or I32, src), out (y, which holds what is to be changed), all of one ndim; check refuses an index outside of y */
typedef enum port_scatter_kind {
    PORT_SCATTER_SET = 0, PORT_SCATTER_ADD, PORT_SCATTER_MUL, PORT_SCATTER_MAX, PORT_SCATTER_MIN
} port_scatter_kind;
typedef struct port_scatter_params {
    int32_t dim;
    port_scatter_kind kind;
} port_scatter_params;

/* ---- topk.c: in (x (rows, n)), out (values (rows, k), places I64 (rows, k)) */
typedef enum port_topk_order { /* of the k; the last two want k = n */
    PORT_TOPK_ANY = 0, PORT_TOPK_ORDERED, /* torch.topk without and with `sorted` */
    PORT_TOPK_SORT, PORT_TOPK_STABLE      /* torch.sort: equal elements as its library leaves them, and as they were */
} port_topk_order;
typedef struct port_topk_params {
    bool largest;
    port_topk_order order;
} port_topk_params;
/* ranked: in (x (rows, n)), out (value (rows, 1), place I64 (rows, 1)): one element of each row */
typedef enum port_rank_kind {
    PORT_RANK_KTH = 0, PORT_RANK_MEDIAN, PORT_RANK_NANMEDIAN, PORT_RANK_MODE
} port_rank_kind;
typedef struct port_ranked_params {
    port_rank_kind kind;
    int64_t k;     /* KTH: from 0 */
    bool by_place; /* medians: of equal elements the first comes first; else as the reference's library selects */
} port_ranked_params;

/* ---- pool.c, resize.c: in (x (N, C, ...)), out (y (N, C, ...)), 1 to 3 dimensions of space, F32 and F64
 * max_pool: also out places I64 with y's strides, optional: in the frame, row-major     avg_pool     adaptive_avg_pool (of params `given` alone)
 * resize: params say how */
typedef struct port_pool_params {
    int64_t kernel[3], stride[3], padding[3], dilation[3], divisor; /* divisor 0: the window's size */
    bool count_include_pad;
    port_dtype given; /* of the input before halves were widened */
} port_pool_params;
typedef enum port_resize_mode {
    PORT_RESIZE_NEAREST = 0, PORT_RESIZE_NEAREST_EXACT, PORT_RESIZE_LINEAR, PORT_RESIZE_CUBIC
} port_resize_mode;
typedef struct port_resize_params {
    port_resize_mode mode;
    bool align_corners;
    double factor[3]; /* out / in as the user gave it; 0: the quotient of the sizes */
    bool corners;     /* linear in two dimensions, or in three with x's channels side by side: all corners are one sum */
    port_dtype given; /* of the input before halves were widened: their weights are rounded to it, but those of corners */
} port_resize_params;

/* ---- channel_norm.c: x, y (N, C, ...), weight and bias (C) or NULL, F32 and F64
 * batch_norm: in (x, weight, bias, mean (C), var (C)), out (y)
 * group_norm: in (x, weight, bias), out (y, mean (N, groups), rstd (N, groups)) */
typedef struct port_batch_norm_params {
    double eps;
    bool rounded_product; /* mean * a, rounded by itself before bias takes it away: parameters of F16, which x, in F32, does not show */
} port_batch_norm_params;
typedef struct port_group_params {
    int64_t groups;
    double eps;
    bool channels_last; /* of the reference's tensors, which decides its order of sums */
    port_dtype given;   /* of x before halves were widened, whose order its sums have */
} port_group_params;

/* ---- activation.c: in (x), out (y), same dtype, floating
 * softplus (a: beta, b: threshold)  elu (a: alpha, b: scale, c: input_scale)  leaky_relu (a: slope); the others take no params:
 * hardswish hardsigmoid mish log_sigmoid exp_minus_abs (what log_sigmoid keeps) log1p expm1 trunc log2 log10 exp2 tan atan sinh cosh acos asin */
typedef struct port_activation_params {
    double a, b, c;
} port_activation_params;

/* ---- triples.c: in (u, v, w), as many of them as the op has, broadcast, out (y), one floating dtype
 * addcmul addcdiv (p: value)  lerp (w, or without it p: weight)  threshold (p: threshold, q: value)  hardshrink (F32 and F64) softshrink (p: lambd)
 * prelu (v: weight)  smooth_l1 (not F16) huber (not BF16) (v: target, p: beta or delta)  nan_to_num (p: nan, q: posinf, r: neginf) */
typedef struct port_triple_params {
    double p, q, r;
} port_triple_params;

/* ---- vector_norm.c
 * vector_norm: in (x), out (y with size 1 at the reduced dimensions), F32 and F64
 * weight_norm: in (v (R, C), g), out (w (R, C), norm), all dense; g and norm have R elements if `rows`, else C; F32 and F64 */
typedef struct port_vector_norm_params {
    double order; /* any: 0 counts, -infinity is the least size */
    uint32_t dims;
    bool computed; /* of one element too: the reference takes its size otherwise */
} port_vector_norm_params;
typedef struct port_weight_norm_params {
    bool rows; /* of each row, else of each column */
    bool halves; /* v and g were halves, whose rows take two vectors at a time */
} port_weight_norm_params;

/* ---- triangular.c
 * solve_triangular: in (a (B, N, N)), out (x (B, N, K), or (B, K, N) if not left, which comes in as the right sides), F32 and F64 */
typedef struct port_triangular_params {
    bool upper, left, unit;
} port_triangular_params;

/* ---- products.c: F32 and F64, all strided
 * gemv: in (a (M, K), x (K), c (M) or NULL), out (y (M) dense): y = beta * c + alpha * a @ x
 * dot:  in (x (K), y (K)), out (one element) */

/* ---- lapack.c: stacks of dense column-major matrices, F32 and F64. What is said to come in place is an `out` that holds the
 * operand. Matrices that cannot be solved are told by info (I32 (B), LAPACK's), not by an error.
 * lu:       out (a (B, M, N) in place, pivots I32 (B, min(M, N)) from 1, info)
 * lu_solve: in (lu (B, N, N), pivots I32 (B, N)), out (x (B, N, K) in place)     params: transposed
 * cholesky: out (a (B, N, N) in place, info)                                     params: upper
 * qr:       out (a (B, M, N) in place: R and the reflectors, tau (B, min(M, N)))
 * qr_basis: in (tau (B, K)), out (a (B, M, N) in place, of which the first K <= N columns are reflectors)
 * eigh:     out (a (B, N, N) in place, its vectors if `vectors`, w (B, N))       params: upper, vectors; the library only
 * svd:      out (a (B, M, N) in place, s (B, K), u (B, M, ..), vt (B, .., N)), K = min(M, N); u and vt of K or, if full, of all
 *           columns and rows; not there without `vectors`; the library only */
typedef struct port_lapack_params {
    bool transposed, upper, vectors, full;
} port_lapack_params;

/* ---- fft.c: a function, not rows: it is the library's or nobody's */
typedef struct port_fft_params {
    int32_t num_dims;
    int64_t sizes[PORT_MAX_NDIM]; /* of the whole signal in each dimension */
    bool forward;
    double scale;
} port_fft_params;
bool port_fft_has_library(const port_provider *provider);
/* x (B, ...) to y (B, ...), strided, F32 or C64; where one is real the other holds n / 2 + 1 or n numbers in the last dimension, of which
 * the first n / 2 + 1 are read or written. SHAPE if they do not fit, NOMEM if the library refuses. */
port_status port_fft_run(const port_provider *provider, int32_t num_threads, const port_fft_params *params, const port_view *x, const port_view *y,
                         port_error *err);

/* ---- special.c
 * in (x), out (y), floating: acosh asinh atanh erfc erfinv lgamma digamma i0 sinc
 * in (a, b), out (y), broadcast, same dtype: copysign hypot nextafter logaddexp logaddexp2 xlogy (floating), fmax fmin heaviside, gcd lcm (integers) */

/* ---- convolution.c
 * convolution: in (x (N, C, ...), weight (O, C / groups, ...) or transposed (C, O / groups, ...), bias (O) or NULL), out (y (N, O, ...)),
 *              1 to 3 dimensions; all but the bias dense, and row-major or channels-last alike; F32, F64 */
typedef struct port_conv_params {
    int64_t stride[3], padding[3], dilation[3], output_padding[3], groups;
    bool transposed, channels_last;
    port_dtype halves; /* F16 or BF16: x, weight and bias hold such numbers, and y gets them; any other dtype: not so */
} port_conv_params;

/* ---- onednn_convolution.c
 * onednn_convolution: the same, not transposed, all row-major F32, with the bits of oneDNN's AVX-512 code; of BF16 ones, which come widened,
 *                     what it rounds at the end */
typedef struct port_onednn_conv_params {
    port_conv_params conv; /* channels_last is not read */
    bool nhwc;             /* the reference's tensors were channels-last */
    bool paired;           /* ... and BF16, in its code for AVX512_BF16 */
} port_onednn_conv_params;

/* ---- onednn_deconvolution.c
 * onednn_deconvolution: the same, transposed; params: port_conv_params, of which channels_last is not read */

/* ---- onednn_lstm.c
 * onednn_lstm: in (x (T, B, I), w (4H, I), r (4H, H), bias (4H)), out (y (T, B, H), h and c (B, H), in place), all row-major F32, with the bits
 *              of oneDNN's AVX-512 code; gates are input, forget, cell, output */
typedef struct port_lstm_params {
    bool reverse; /* from the last step to the first */
} port_lstm_params;

extern const port_kernel_row port_unary_rows[], port_gelu_rows[], port_rsqrt_rows[], port_binary_rows[], port_divide_rows[], port_cast_rows[], port_reduce_rows[], port_scan_rows[], port_softmax_rows[],
    port_norm_rows[], port_indexing_rows[], port_gemm_rows[], port_attention_rows[], port_attention_f64_rows[],
    port_convolution_rows[], port_scatter_rows[], port_topk_rows[], port_pool_rows[], port_resize_rows[], port_activation_rows[], port_channel_norm_rows[],
    port_vector_norm_rows[], port_triangular_rows[], port_onednn_convolution_rows[],
    port_onednn_deconvolution_rows[], port_onednn_lstm_rows[], port_special_rows[], port_triple_rows[], port_products_rows[], port_lapack_rows[];

#endif /* PORT_KERNELS_H */
