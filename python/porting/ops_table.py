"""What each kernel promises: one label per op and dtype, which tests/kernels demands of every row and `porting ops` prints.

EXACT    all bits of torch's result, on the same machine under the recorded profile
LIBRARY  EXACT with the torch provider, whose functions do it; without it within `ulp` (or, for products, within 16 u s; for systems of
         equations within 64 times u times the condition of the matrix)
BOUND    within `ulp` representable values of torch's result; differences of at most `atol` do not count

Not here: where the exact recipes end (docs/NUMERICS.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from . import _core


@dataclass(frozen=True)
class Label:
    """A promise: its kind and, unless it is EXACT, how far a result may be from torch's."""

    kind: str
    ulp: int = 0
    atol: float = 0.0
    unit: str = "ulp"

    def __str__(self) -> str:
        if self.kind == "EXACT":
            return self.kind
        distance = f"{self.ulp} {self.unit}" + (f", or {self.atol:g}" if self.atol else "")
        return f"{self.kind}({distance})"


class Row(NamedTuple):
    """One op and dtype, the variants that compute it, and their label."""

    op: str
    dtype: str
    variants: tuple[str, ...]
    label: Label


EXACT = Label("EXACT")
VML = Label("LIBRARY", 1)
PRODUCT = Label("LIBRARY", 16, unit="u s")
HALF_PRODUCT = Label("BOUND", 2, unit="u s")
SUM = Label("BOUND", 16, unit="u s")
PRODUCTS = {"F32": PRODUCT, "F64": PRODUCT, "BF16": HALF_PRODUCT, "F16": HALF_PRODUCT}
EXACT_IN_F16 = PRODUCTS | {"F16": EXACT}  # BF16 too, but for oneDNN on CPUs without AVX512_BF16 or with AMX

# Labels other than EXACT, by op and dtype.
LABELS: dict[str, dict[str, Label]] = {
    "cos": {"F64": Label("BOUND", 4)},
    "erf": {"F64": Label("BOUND", 4), "BF16": Label("BOUND", 1), "F16": Label("BOUND", 1)},
    "exp": {"F64": Label("BOUND", 4)},
    "gelu": {"F64": Label("BOUND", 64, 1e-15), "BF16": Label("BOUND", 2, 1e-06), "F16": Label("BOUND", 8, 1e-06)},
    "log": {"F64": Label("BOUND", 4)},
    "log_softmax": {"F64": Label("BOUND", 64, 1e-14)},
    "maximum": {"F16": Label("BOUND", 1)},
    "minimum": {"F16": Label("BOUND", 1)},
    "pow": {"F64": Label("BOUND", 2)},
    "pow_scalar": {"F64": Label("BOUND", 2), "BF16": Label("BOUND", 1), "F16": Label("BOUND", 1)},
    "reciprocal": {"F64": Label("BOUND", 4)},
    "rms_norm": {"BF16": Label("BOUND", 1), "F16": Label("BOUND", 1)},
    "rsqrt": {"F64": Label("BOUND", 4)},
    "sigmoid": {"F64": Label("BOUND", 4)},
    "silu": {"F64": Label("BOUND", 4)},
    "sin": {"F64": Label("BOUND", 4)},
    "softmax": {"F64": Label("BOUND", 64)},
    "sqrt": {"F64": Label("BOUND", 4)},
    "tanh": {"F64": Label("BOUND", 4)},
    "var": {"F64": Label("BOUND", 64)},
    "gemm": dict(EXACT_IN_F16),
    "bmm": dict(EXACT_IN_F16),
    "sdpa_flash": PRODUCTS | {"F64": SUM},
}
# Functions whose vector forms or halves torch computes otherwise than libm and vecmath.h do.
for _name in ("hardswish", "hardsigmoid", "mish", "log1p", "expm1", "softplus", "elu"):
    LABELS[_name] = {"F64": Label("BOUND", 64, 1e-14), "BF16": Label("BOUND", 2, 1e-06), "F16": Label("BOUND", 16, 1e-06)}
for _name in ("log2", "log10", "tan", "atan", "acos", "asin"):
    LABELS[_name] = {"F32": Label("LIBRARY", 4, 1e-37), "F64": Label("BOUND", 16, 1e-15), "BF16": Label("BOUND", 1), "F16": Label("BOUND", 1)}
for _name in ("exp2", "sinh", "cosh", "atan2"):
    LABELS[_name] = {"F32": Label("BOUND", 4, 1e-37), "F64": Label("BOUND", 16, 1e-15), "BF16": Label("BOUND", 1), "F16": Label("BOUND", 1)}
for _name in ("log_sigmoid", "exp_minus_abs"):
    LABELS[_name] = {"F64": Label("BOUND", 64, 1e-14), "BF16": Label("BOUND", 2, 0.004), "F16": Label("BOUND", 16, 0.001)}
LABELS["vector_norm"] = {"F64": Label("BOUND", 1024)}
LABELS["solve_triangular"] = {"F32": PRODUCT, "F64": SUM}  # in double by loops of its own
LABELS["gemv"] = LABELS["dot"] = {"F32": PRODUCT, "F64": PRODUCT}
# Without the library the distance grows with the matrix's condition; eigh and svd are refused then.
SYSTEM = Label("LIBRARY", 64, unit="u cond")
for _name in ("lu", "lu_solve", "cholesky", "qr", "qr_basis", "eigh", "svd"):
    LABELS[_name] = {"F32": SYSTEM, "F64": SYSTEM}
LABELS["std"] = {"F64": Label("BOUND", 64), "BF16": Label("BOUND", 1), "F16": Label("BOUND", 1)}
LABELS["floor_divide"] = {"BF16": Label("BOUND", 1), "F16": Label("BOUND", 1)}
LABELS["trunc_divide"] = {"BF16": Label("BOUND", 1, 1.0), "F16": Label("BOUND", 1, 1.0)}
LABELS["convolution"] = {"F32": PRODUCT, "F64": PRODUCT}
LABELS["onednn_convolution"] = LABELS["onednn_deconvolution"] = {"F32": SUM}  # EXACT but for the kinds that docs/NUMERICS.md lists
LABELS["resize"] = {"F32": Label("BOUND", 32, 1e-05), "F64": Label("BOUND", 8, 1e-13)}
LABELS["arange"] = {"F32": Label("BOUND", 4, 1e-05)}  # EXACT where floats hold every element's sum, as those of whole numbers do
LABELS["group_norm"] = {"F64": Label("BOUND", 64, 1e-12)}
LABELS["adaptive_avg_pool"] = {"F64": Label("BOUND", 4, 1e-15)}
for _name in ("exp", "log", "sin", "cos", "tanh", "erf", "sqrt"):
    LABELS[_name]["F32"] = VML

# Functions of special.c: libm's, or in double and rounded, where torch has SLEEF's or its own in float.
for _name in ("acosh", "asinh", "atanh", "erfc", "erfinv", "lgamma", "digamma", "i0", "sinc", "hypot", "logaddexp", "logaddexp2"):
    LABELS[_name] = {"F32": Label("BOUND", 16, 1e-06), "F64": Label("BOUND", 64, 1e-13), "BF16": Label("BOUND", 2, 1e-06), "F16": Label("BOUND", 2, 1e-06)}

# Ops without a kernel of their own: formulas over other ops (csrc/program/composed_ops.c) and handlers that compute by themselves. tests/program demands it.
NEAR = Label("BOUND", 32, 4e-06)
HANDLERS: dict[str, Label] = {name: EXACT for name in """isnan isinf isposinf isneginf signbit count_nonzero equal allclose frac sgn nan_to_num hardshrink threshold
    _prelu_kernel trace cummax cummin cumprod logcumsumexp nll_loss_forward nll_loss2d_forward kthvalue median nanmedian mode _unique2 unique_dim unique_consecutive bincount histc slice_scatter
    select_scatter diagonal_scatter as_strided_scatter pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle rot90 diag_embed block_diag take
    _shape_as_tensor adaptive_max_pool2d adaptive_max_pool3d max_unpool2d max_unpool3d _pack_padded_sequence _upsample_nearest_exact1d
    _upsample_nearest_exact3d complex _conj _conj_physical conj_physical _int_mm fmax fmin grid_sampler_3d
    _embedding_bag _embedding_bag_forward_only _ctc_loss multi_margin_loss multilabel_margin_loss_forward frexp nonzero_static _assert_async
    isin logspace linalg_cross _masked_softmax index_reduce special_zeta polygamma""".split()}
HANDLERS |= {name: NEAR for name in """grid_sampler_2d softshrink deg2rad rad2deg ldexp celu round mse_loss smooth_l1_loss huber_loss soft_margin_loss binary_cross_entropy
    binary_cross_entropy_with_logits logsumexp nansum dist norm addr
    _cdist_forward conv_tbc _weight_int8pack_mm _grouped_mm put col2im unfold_backward _upsample_bilinear2d_aa
    _upsample_bicubic2d_aa mkldnn_rnn_layer _native_multi_head_attention _transformer_encoder_layer_fwd _trilinear hann_window hamming_window bartlett_window blackman_window angle acosh asinh atanh erfc erfinv lgamma digamma i0 sinc hypot logaddexp logaddexp2
    special_entr special_xlog1py renorm embedding_renorm _pdist_forward mvlgamma special_i0e special_i1
    special_i1e special_modified_bessel_i0 special_modified_bessel_i1 special_modified_bessel_k0 special_modified_bessel_k1 special_scaled_modified_bessel_k0
    special_scaled_modified_bessel_k1 special_bessel_j0 special_bessel_j1 special_bessel_y0 special_bessel_y1 special_spherical_bessel_j0 special_erfcx
    special_log_ndtr special_ndtri igamma igammac kaiser_window""".split()}
# Orthogonal polynomials, by torch's own recurrences in the dtype. NaN above the first degree is NaN; torch returns memory that it has not set.
HANDLERS |= {name: EXACT for name in """special_chebyshev_polynomial_t special_chebyshev_polynomial_u special_chebyshev_polynomial_v
    special_chebyshev_polynomial_w special_shifted_chebyshev_polynomial_t special_shifted_chebyshev_polynomial_u special_shifted_chebyshev_polynomial_v
    special_shifted_chebyshev_polynomial_w special_hermite_polynomial_h special_hermite_polynomial_he special_laguerre_polynomial_l
    special_legendre_polynomial_p""".split()}
# A logarithm or a root of the library is in them.
HANDLERS |= {name: Label("LIBRARY", 32, 4e-06) for name in """logit native_batch_norm _native_batch_norm_legit _batch_norm_with_update
    _native_batch_norm_legit_no_training""".split()}
HANDLERS |= {name: Label("LIBRARY", 32, 4e-06) for name in ("_fft_r2c", "_fft_c2c", "_fft_c2r")}
HANDLERS |= {"_euclidean_dist": PRODUCT, "affine_grid_generator": PRODUCT, "linalg_inv_ex": SYSTEM, "cholesky": SYSTEM, "linalg_pinv": SYSTEM, "geqrf": SYSTEM, "linalg_householder_product": SYSTEM, "_linalg_check_errors": EXACT}
HANDLERS |= {name: Label("BOUND", 64, unit="u cond") for name in ("cholesky_solve", "cholesky_inverse")}
# In double, rounded once. torch's own polynomials are off: by 300 u in F32, by 1.6e6 u in F64, where the one of degree 8 is used. Norms are sums of columns.
HANDLERS["linalg_matrix_exp"] = Label("BOUND", 1024, unit="u |e^|A|| (1 + |A|)")

# Variants that compute something else on purpose; they are never chosen by themselves. Distances over [1, 4) on AMD Zen 4 (bench/rsqrt.py); the
# approximation of other makers' CPUs is up to 1.5 * 2^-12 = 6144 ulp off.
NAMED: dict[tuple[str, str], Label] = {
    ("rsqrt", "correct"): Label("BOUND", 1),
    ("rsqrt", "newton2"): Label("BOUND", 4),
    ("rsqrt", "newton1"): Label("BOUND", 8),
    ("rsqrt", "rsqrtss"): Label("BOUND", 6144),
    # Of the profiles strict and golden (docs/NUMERICS.md): other sums than the reference's.
    ("sum", "strict"): SUM,
    ("mean", "strict"): SUM,
    ("var", "strict"): SUM,
    ("std", "strict"): SUM,
    ("pow_scalar", "strict"): Label("BOUND", 2),
    ("gemm", "golden"): SUM,
    ("bmm", "golden"): SUM,
}


# Own orders of products of halves.
PLAIN = {(op, variant, "F16"): HALF_PRODUCT for op in ("gemm", "bmm") for variant in ("chain", "ref")}


def label(op: str, dtype: str, variant: str | None = None) -> Label:
    """What a kernel promises. An op that is in no table promises all bits."""
    if (op, variant, dtype) in PLAIN:
        return PLAIN[op, variant, dtype]
    if (op, variant) in NAMED:
        return NAMED[op, variant]
    return LABELS.get(op, {}).get(dtype, EXACT)


# Handlers that are EXACT in float32 alone: torch fuses or orders its double loops otherwise.
IN_DOUBLE = {op: Label("BOUND", 4, 1e-13) for op in "trace logit _euclidean_dist native_batch_norm _native_batch_norm_legit _batch_norm_with_update".split()}
IN_DOUBLE["linalg_matrix_exp"] = Label("BOUND", 2**22, unit="u |e^|A|| (1 + |A|)")

# Halves that torch rounds within each element's sum.
IN_HALVES = {op: Label("BOUND", 8, 0.0625) for op in """_adaptive_avg_pool3d upsample_linear1d upsample_bilinear2d upsample_bicubic2d
    upsample_trilinear3d native_batch_norm _native_batch_norm_legit _batch_norm_with_update""".split()}
IN_HALVES["mkldnn_rnn_layer"] = Label("BOUND", 8, 0.008)
IN_HALVES["polygamma"] = NEAR

# Halves for which an op's kernel has no row of its own are computed in F32 and rounded once; torch rounds some of them on the way.
WIDENED = Label("BOUND", 2, 0.01)


# Ops that round complex numbers otherwise than torch's vectors, products and sums of them do.
COMPLEX = {op: NEAR for op in """div reciprocal pow rsqrt sigmoid silu square sgn sign addcmul addcdiv lerp cumsum linalg_vector_norm
    linalg_cross norm""".split()}
COMPLEX |= {op: SUM for op in "mm bmm addmm baddbmm addbmm addmv mv dot vdot sum mean trace".split()}


def promise(name: str, dtype: str) -> Label:
    """What an op ("aten.topk.default") promises for results of a dtype, whether it has a kernel or not."""
    op = name.split(".")[1].rstrip("_")
    if dtype == "C64" and op in COMPLEX:
        return COMPLEX[op]
    if dtype == "F64" and op in IN_DOUBLE:
        return IN_DOUBLE[op]
    if dtype in ("BF16", "F16") and op in IN_HALVES:
        return IN_HALVES[op]
    if op in HANDLERS:
        return HANDLERS[op]
    kernel = _core.op_signature(name)[1] or op
    if kernel == "convolution" and dtype == "F32":
        return label("onednn_convolution", dtype)  # of the two kernels the one that promises less
    found = {row for row_op, row, _, _ in _core.kernel_rows() if row_op == kernel}
    return WIDENED if dtype in ("BF16", "F16") and found and dtype not in found else label(kernel, dtype)


def has_handler(name: str) -> bool:
    """Whether an op runs in C, as itself, in place or with out= (`_core.known_ops` does not list the last)."""
    try:
        _core.op_signature(name)
    except ValueError:
        return False
    return True


def rows() -> list[Row]:
    """The kernels of this build, sorted by op; named variants with a label of their own stand alone."""
    table: dict[tuple[str, str, Label], list[str]] = {}
    for op, dtype, variant, _ in _core.kernel_rows():
        table.setdefault((op, dtype, label(op, dtype, variant)), []).append(variant)
    return sorted((Row(op, dtype, tuple(variants), promise) for (op, dtype, promise), variants in table.items()), key=lambda row: row.op)


def as_text() -> list[tuple[str, str, str, str]]:
    """The table as strings; behind the kernels, the ops without one."""
    kernels = {row.op for row in rows()}
    handlers = [(op, "any", "handler", str(promise)) for op, promise in sorted(HANDLERS.items()) if op not in kernels]
    return [(row.op, row.dtype, " ".join(row.variants), str(row.label)) for row in rows()] + handlers
