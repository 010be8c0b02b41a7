"""The faults of bench/diagnose.py: ordinary mistakes of porting, made with torch code that knows nothing of the generators.

Most of them exchange one call of one torch function inside one module (`patch`), whatever the architecture; others change a parameter
(`weights`), the attention function (`attention`) or the rotary function (`rotary`) of one layer. A fault says which cause ids are right for it.
"""
import contextlib
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode


@dataclass
class Site:
    """One call of a torch function: the innermost module it happened in, the function's name, its number among such calls there."""

    module: str
    function: str
    number: int
    shapes: tuple
    arguments: tuple = ()


@dataclass
class Fault:
    """name : unique. causes : ids that are right. sites(model, sites) : where it can be planted; plant(model, site) : a context manager."""

    name: str
    causes: tuple
    sites: object
    plant: object
    families: tuple = field(default=())


FAULTS: list[Fault] = []


def name_of(function):
    name = getattr(function, "__name__", "")
    return {"__rmul__": "mul", "__radd__": "add", "__rsub__": "rsub", "__truediv__": "div", "true_divide": "div"}.get(name, name[2:-2] if name.startswith("__") else name)


def shapes_of(args):
    return tuple(tuple(a.shape) if isinstance(a, torch.Tensor) else None for a in args)


class Watching(TorchFunctionMode):
    """A mode that knows which module is running."""

    def __init__(self, model):
        super().__init__()
        self.stack, self.handles = [], []
        for name, module in model.named_modules():
            self.handles.append(module.register_forward_pre_hook(lambda m, a, name=name: self.stack.append((name, {}))))
            self.handles.append(module.register_forward_hook(lambda m, a, out: self.stack.pop() and None, always_call=True))

    def __exit__(self, *failure):
        for handle in self.handles:
            handle.remove()
        return super().__exit__(*failure)

    def number(self, function):
        counts = self.stack[-1][1]
        counts[function] = counts.get(function, 0) + 1
        return counts[function] - 1


class Listing(Watching):
    def __init__(self, model):
        super().__init__(model)
        self.sites = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if self.stack and name_of(function):
            name = name_of(function)
            self.sites.append(Site(self.stack[-1][0], name, self.number(name), shapes_of(args), tuple(a for a in args if not isinstance(a, torch.Tensor))))
        return function(*args, **(kwargs or {}))


class Patching(Watching):
    """Exchanges the call that a site names, in the module's first run."""

    def __init__(self, model, site, change):
        super().__init__(model)
        self.site, self.change = site, change

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if self.stack and self.stack[-1][0] == self.site.module and name_of(function) == self.site.function and self.number(self.site.function) == self.site.number:
            with torch._C.DisableTorchFunction():
                return self.change(function, *args, **kwargs)
        return function(*args, **kwargs)


def list_sites(model, inputs):
    with torch.no_grad(), Listing(model) as listing:
        model(**inputs)
    return listing.sites


def patch(function, *causes, when=lambda site: True, families=()):
    """Registers a change of calls of a torch function: change(original, *args, **kwargs)."""

    def register(change):
        FAULTS.append(Fault(change.__name__, causes, lambda model, sites: [s for s in sites if s.function == function and when(s)],
                            lambda model, site: Patching(model, site, change), families))  # fmt: skip
        return change

    return register


# ---------------------------------------------------------------- norms


@patch("layer_norm", "eps")
def layer_norm_eps(f, x, shape, weight=None, bias=None, eps=1e-5):
    return f(x, shape, weight, bias, 1e-2)


@patch("layer_norm", "bias-missing", "addend-missing")
def layer_norm_without_bias(f, x, shape, weight=None, bias=None, eps=1e-5):
    return f(x, shape, weight, None, eps)


@patch("layer_norm", "weight-ignored")
def layer_norm_without_weight(f, x, shape, weight=None, bias=None, eps=1e-5):
    return f(x, shape, None, bias, eps)


@patch("layer_norm", "mean-not-subtracted")
def layer_norm_as_rms(f, x, shape, weight=None, bias=None, eps=1e-5):
    y = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight
    return y if bias is None else y + bias


@patch("layer_norm", "variance-unbiased")
def layer_norm_unbiased(f, x, shape, weight=None, bias=None, eps=1e-5):
    y = (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, keepdim=True) + eps) * weight
    return y if bias is None else y + bias


@patch("layer_norm", "variance-unbiased")
def layer_norm_by_deviation(f, x, shape, weight=None, bias=None, eps=1e-5):
    y = (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + eps) * weight
    return y if bias is None else y + bias


@patch("layer_norm", "root-missing", "exponent")
def layer_norm_by_variance(f, x, shape, weight=None, bias=None, eps=1e-5):
    y = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + eps) * weight
    return y if bias is None else y + bias


@patch("layer_norm", "weight-plus-one")
def layer_norm_plus_one(f, x, shape, weight=None, bias=None, eps=1e-5):
    return f(x, shape, weight + 1, bias, eps)


@patch("layer_norm", "norm-missing")
def layer_norm_missing(f, x, *rest, **named):
    return x.clone()


@patch("layer_norm", "norm-axis", when=lambda s: len(s.shapes[0]) == 3)
def layer_norm_over_positions(f, x, shape, weight=None, bias=None, eps=1e-5):
    y = (x - x.mean(1, keepdim=True)) * torch.rsqrt(x.var(1, keepdim=True, unbiased=False) + eps) * weight
    return y if bias is None else y + bias


@patch("layer_norm", "norm-axis", when=lambda s: len(s.shapes[0]) == 3)
def layer_norm_over_all(f, x, shape, weight=None, bias=None, eps=1e-5):
    y = F.layer_norm(x, x.shape[1:], None, None, eps) * weight
    return y if bias is None else y + bias


@patch("layer_norm", "approximate-rsqrt")
def layer_norm_twelve_bits(f, x, shape, weight=None, bias=None, eps=1e-5):
    y = (x - x.mean(-1, keepdim=True)) * twelve_bits(x.var(-1, keepdim=True, unbiased=False) + eps) * weight
    return y if bias is None else y + bias


@patch("layer_norm", "operand-precision", "result-precision")
def layer_norm_of_bf16(f, x, *rest, **named):
    return f(x.bfloat16().to(x.dtype), *rest, **named)


@patch("layer_norm", "op-order", when=lambda s: len(s.shapes) > 3 and s.shapes[3] is not None)
def layer_norm_bias_first(f, x, shape, weight=None, bias=None, eps=1e-5):
    return (f(x, shape, None, None, eps) + bias) * weight


def twelve_bits(x):
    y = (1 / x.double().sqrt()).float()
    return ((y.view(torch.int32) + 0x800) & ~0xFFF).view(torch.float32)


@patch("rsqrt", "approximate-rsqrt")
def rsqrt_twelve_bits(f, x):
    return twelve_bits(x.float())


@patch("rsqrt", "exponent", "root-missing")
def rsqrt_as_reciprocal(f, x):
    return 1 / x


@patch("rsqrt", "norm-missing", "op-missing")
def rsqrt_missing(f, x):
    return torch.ones_like(x)


def in_norm(site):
    return "norm" in site.module.lower() or "ln_" in site.module


@patch("mean", "norm-axis", when=lambda s: in_norm(s) and len(s.shapes[0]) == 3)
def mean_over_positions(f, x, *rest, keepdim=False, **named):
    return f(x, 1, keepdim=True)


@patch("mean", "sum-for-mean", "scale", when=in_norm)
def mean_as_sum(f, x, *rest, keepdim=False, **named):
    return x.sum(-1, keepdim=True)


@patch("mean", "variance-unbiased", when=in_norm)
def mean_unbiased(f, x, *rest, keepdim=False, **named):
    return x.sum(-1, keepdim=True) / (x.shape[-1] - 1)


@patch("add", "eps", when=lambda s: in_norm(s) and len(s.shapes) > 1 and s.shapes[1] is None and len(s.shapes[0]) > 1)
def rms_eps(f, x, eps):
    return f(x, 1e-2)


@patch("add", "weight-plus-one", when=lambda s: in_norm(s) and 1 in [len(shape) for shape in s.shapes if shape is not None])
def rms_without_one(f, a, b):
    return a if isinstance(a, torch.Tensor) else b


@patch("mul", "weight-ignored", when=lambda s: in_norm(s) and len(s.shapes) == 2 and None not in s.shapes and 1 in map(len, s.shapes))
def rms_without_weight(f, a, b):
    return a if a.dim() > 1 else b


@patch("mul", "weight-plus-one", when=lambda s: in_norm(s) and len(s.shapes) == 2 and None not in s.shapes and 1 in map(len, s.shapes))
def rms_plus_one(f, a, b):
    return f(a + 1, b) if a.dim() == 1 else f(a, b + 1)


@patch("batch_norm", "eps")
def batch_norm_eps(f, x, mean, var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    return f(x, mean, var, weight, bias, False, momentum, 1e-2)


@patch("batch_norm", "statistics-ignored")
def batch_norm_without_mean(f, x, mean, var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    return f(x, torch.zeros_like(mean), var, weight, bias, False, momentum, eps)


@patch("batch_norm", "batch-statistics")
def batch_norm_in_training(f, x, mean, var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    return f(x, None, None, weight, bias, True, momentum, eps)


@patch("batch_norm", "root-missing")
def batch_norm_by_variance(f, x, mean, var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    return f(x, mean, (var + eps) ** 2 - eps, weight, bias, False, momentum, eps)


@patch("batch_norm", "weight-ignored")
def batch_norm_without_weight(f, x, mean, var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    return f(x, mean, var, None, bias, False, momentum, eps)


@patch("batch_norm", "weights-exchanged")
def batch_norm_weight_and_bias(f, x, mean, var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    return f(x, mean, var, bias, weight, False, momentum, eps)


@patch("batch_norm", "norm-missing")
def batch_norm_missing(f, x, *rest, **named):
    return x.clone()


@patch("group_norm", "norm-groups")
def group_norm_of_one(f, x, groups, *rest, **named):
    return f(x, 1 if groups != 1 else 2, *rest, **named)


# ---------------------------------------------------------------- products


def is_matrix(site):
    return len(site.shapes) > 1 and site.shapes[1] is not None and min(site.shapes[1]) >= 8


def blocks(w, size=32):
    return w.reshape(-1, size) if w.shape[-1] % size == 0 else None


def q8_0(w):
    rows = w.reshape(-1, 32)
    d = rows.abs().amax(1, keepdim=True) / 127
    return (torch.round(rows / d.clamp(min=1e-30)) * d.half().float()).reshape(w.shape)


def q4_0(w):
    rows = w.reshape(-1, 32)
    top = rows.gather(1, rows.abs().argmax(1, keepdim=True))
    d = top / -8
    q = torch.clamp(torch.floor(rows / d + 8.5), 0, 15)
    return ((q - 8) * d.half().float()).reshape(w.shape)


def q4_1(w):
    rows = w.reshape(-1, 32)
    low, high = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
    d = (high - low) / 15
    return (torch.floor((rows - low) / d + 0.5) * d.half().float() + low.half().float()).reshape(w.shape)


def per_tensor(w):
    d = w.abs().max() / 127
    return torch.round(w / d) * d


def per_row(w):
    d = w.abs().amax(-1, keepdim=True).clamp(min=1e-30) / 127
    return torch.round(w / d) * d


def tf32(x):
    bits = x.float().contiguous().view(torch.int32)
    return ((bits + 0xFFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)


def in_linear(name, causes, change, when=lambda s: True):
    def apply(f, x, w, b=None):
        if x.dtype == torch.float32:
            return change(x, w, b)
        return change(x.float(), w.float(), None if b is None else b.float()).to(x.dtype)

    apply.__name__ = f"linear_{name}"
    patch("linear", *causes, when=lambda s: is_matrix(s) and when(s))(apply)


def square(site):
    return site.shapes[1][0] == site.shapes[1][1]


def by_32(site):
    return site.shapes[1][-1] % 32 == 0


def has_bias(site):
    return len(site.shapes) > 2 and site.shapes[2] is not None


BF16, F16 = (lambda x: x.bfloat16().float()), (lambda x: x.half().float())
in_linear("no_bias", ("bias-missing", "addend-missing"), lambda x, w, b: F.linear(x, w), has_bias)
in_linear("bias_twice", ("bias-doubled", "addend-doubled"), lambda x, w, b: F.linear(x, w, b) + b, has_bias)
in_linear("transposed", ("weight-transposed",), lambda x, w, b: F.linear(x, w.t(), b), square)
in_linear("reshaped", ("weight-reshaped",), lambda x, w, b: F.linear(x, w.t().reshape(w.shape), b), lambda s: not square(s))
in_linear("rows_reversed", ("rows-permuted",), lambda x, w, b: F.linear(x, w.flip(0), b))
in_linear("rows_shifted", ("rows-permuted",), lambda x, w, b: F.linear(x, w.roll(1, 0), b))
in_linear("columns_reversed", ("columns-permuted",), lambda x, w, b: F.linear(x, w.flip(1), b))
in_linear("halves_exchanged", ("rows-permuted",), lambda x, w, b: F.linear(x, w.roll(w.shape[0] // 2, 0), b))
in_linear("bf16_weight", ("operand-precision",), lambda x, w, b: F.linear(x, BF16(w), b))
in_linear("f16_weight", ("operand-precision",), lambda x, w, b: F.linear(x, F16(w), b))
in_linear("bf16_input", ("operand-precision", "result-precision"), lambda x, w, b: F.linear(BF16(x), w, b))
in_linear("bf16_both", ("operand-precision",), lambda x, w, b: F.linear(BF16(x), BF16(w), b))
in_linear("tf32", ("operand-precision",), lambda x, w, b: F.linear(tf32(x), tf32(w), b))
in_linear("tf32_weight", ("operand-precision",), lambda x, w, b: F.linear(x, tf32(w), b))
in_linear("int8_tensor", ("operand-precision",), lambda x, w, b: F.linear(x, per_tensor(w), b))
in_linear("int8_row", ("operand-precision",), lambda x, w, b: F.linear(x, per_row(w), b))
in_linear("int8_both", ("operand-precision",), lambda x, w, b: F.linear(per_row(x), per_row(w), b))
in_linear("q8_0", ("operand-precision",), lambda x, w, b: F.linear(x, q8_0(w), b), by_32)
in_linear("q8_0_both", ("operand-precision",), lambda x, w, b: F.linear(q8_0(x), q8_0(w), b), by_32)
in_linear("q4_0", ("operand-precision",), lambda x, w, b: F.linear(x, q4_0(w), b), by_32)
in_linear("q4_1", ("operand-precision",), lambda x, w, b: F.linear(x, q4_1(w), b), by_32)
in_linear("bf16_result", ("result-precision", "operand-precision"), lambda x, w, b: BF16(F.linear(x, w, b)))
in_linear("all_bf16", ("computed-in-half", "operand-precision", "result-precision"), lambda x, w, b: F.linear(x.bfloat16(), w.bfloat16(), None if b is None else b.bfloat16()).float())
in_linear("all_f16", ("computed-in-half", "operand-precision", "result-precision"), lambda x, w, b: F.linear(x.half(), w.half(), None if b is None else b.half()).float())
in_linear("doubled", ("weight-doubled", "scale", "output-scaled"), lambda x, w, b: F.linear(x, 2 * w, b))
in_linear("negated", ("weight-sign", "output-negated", "scale"), lambda x, w, b: F.linear(x, -w, b))
in_linear("scaled", ("output-scaled", "scale"), lambda x, w, b: F.linear(x, 0.7 * w, b))
in_linear("one_row_zero", ("partly-wrong", "weight-zero"), lambda x, w, b: F.linear(x, torch.cat([w[:3], torch.zeros_like(w[3:4]), w[4:]]), b))
in_linear("bias_negated", ("weight-sign",), lambda x, w, b: F.linear(x, w, -b), has_bias)
in_linear("bias_shifted", ("rows-permuted",), lambda x, w, b: F.linear(x, w, b.roll(1)), has_bias)


def bf16_sums(block):
    def change(x, w, b):
        total = torch.zeros(*x.shape[:-1], w.shape[0])
        for i in range(0, x.shape[-1], block):
            total = BF16(total + x[..., i : i + block] @ w[:, i : i + block].t())
        return total if b is None else total + b

    return change


in_linear("accumulated_bf16_32", ("accumulation-half",), bf16_sums(32), lambda s: s.shapes[1][-1] > 32)
in_linear("accumulated_bf16_1", ("accumulation-half",), bf16_sums(1), lambda s: s.shapes[1][-1] > 1)


@patch("conv1d", "padding", when=lambda s: len(s.shapes) > 1 and len(s.shapes[1]) == 3 and s.shapes[1][-1] > 1)
def conv1d_causal(f, x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    p = padding[0] if isinstance(padding, tuple) else padding
    return f(F.pad(x, (2 * p, 0)), w, b, stride, 0, dilation, groups)


def in_conv(name, causes, change, when=lambda s: True):
    def apply(f, x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
        return change(f, x, w, b, stride, padding, dilation, groups)

    apply.__name__ = f"conv_{name}"
    patch("conv2d", *causes, when=lambda s: len(s.shapes) > 1 and when(s))(apply)
    other = lambda f, *a, **k: apply(f, *a, **k)  # noqa: E731
    other.__name__ = f"conv1d_{name}"
    patch("conv1d", *causes, when=lambda s: len(s.shapes) > 1 and when(s))(other)


def wide(site):
    return min(site.shapes[1][2:]) > 1


in_conv("flipped", ("kernel-flipped",), lambda f, x, w, b, s, p, d, g: f(x, w.flip(tuple(range(2, w.dim()))), b, s, p, d, g), wide)
in_conv("no_bias", ("bias-missing", "addend-missing"), lambda f, x, w, b, s, p, d, g: f(x, w, None, s, p, d, g), has_bias)
in_conv("bf16_weight", ("operand-precision",), lambda f, x, w, b, s, p, d, g: f(x, BF16(w), b, s, p, d, g))
in_conv("tf32", ("operand-precision",), lambda f, x, w, b, s, p, d, g: f(tf32(x), tf32(w), b, s, p, d, g))
in_conv("int8_channel", ("operand-precision",), lambda f, x, w, b, s, p, d, g: f(x, per_row(w.flatten(1)).view_as(w), b, s, p, d, g))
in_conv("int8_tensor", ("operand-precision",), lambda f, x, w, b, s, p, d, g: f(x, per_tensor(w), b, s, p, d, g))
in_conv("hwio", ("weight-layout",), lambda f, x, w, b, s, p, d, g: f(x, w.permute(*range(2, w.dim()), 1, 0).reshape(w.shape), b, s, p, d, g), lambda s: s.shapes[1][1] > 1 and wide(s))
in_conv("channels_reversed", ("rows-permuted",), lambda f, x, w, b, s, p, d, g: f(x, w.flip(0), b, s, p, d, g))
in_conv("bgr", ("columns-permuted",), lambda f, x, w, b, s, p, d, g: f(x.flip(1), w, b, s, p, d, g), lambda s: s.shapes[1][1] == 3)


@patch("conv2d", "kernel-transposed", when=lambda s: len(s.shapes) > 1 and s.shapes[1][2] == s.shapes[1][3] > 1)
def conv_kernel_transposed(f, x, w, *rest, **named):
    return f(x, w.transpose(2, 3), *rest, **named)


@patch("conv2d", "padding", when=lambda s: len(s.shapes) > 1 and s.shapes[1][2] in (3, 7))
def conv_padded_after(f, x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    p, q = padding if isinstance(padding, tuple) else (padding, padding)
    return f(F.pad(x, (0, 2 * q, 0, 2 * p)), w, b, stride, 0, dilation, groups)


@patch("conv2d", "padding", when=lambda s: len(s.shapes) > 1 and s.shapes[1][2] in (3, 7))
def conv_padded_replicate(f, x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    p, q = padding if isinstance(padding, tuple) else (padding, padding)
    return f(F.pad(x, (q, q, p, p), mode="replicate"), w, b, stride, 0, dilation, groups)


@patch("conv2d", "stride", when=lambda s: len(s.shapes) > 1 and s.shapes[1][2] == s.shapes[1][3] == 3 and s.shapes[0][2] > 8)
def conv_stride_one(f, x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    """A strided convolution that takes every neighbour; the output is cut to the right size."""
    want = f(x, w, b, stride, padding, dilation, groups)
    if want.shape[2:] == x.shape[2:]:
        return want
    return f(x, w, b, 1, padding, dilation, groups)[:, :, : want.shape[2], : want.shape[3]]


@patch("conv2d", "dilation", when=lambda s: len(s.shapes) > 1 and s.shapes[1][2] == s.shapes[1][3] == 3)
def conv_dilated(f, x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    return f(x, w, b, stride, 2, 2, groups)


# ---------------------------------------------------------------- activations and elementwise ops

ACTIVATIONS = {
    "erf_gelu": F.gelu, "tanh_gelu": lambda x: F.gelu(x, approximate="tanh"), "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x), "silu": F.silu, "relu": F.relu,
    "none": lambda x: x.clone(), "leaky": F.leaky_relu, "relu_squared": lambda x: F.relu(x) ** 2, "sigmoid": torch.sigmoid, "tanh": torch.tanh,
    "mish": F.mish, "elu": F.elu, "hardswish": F.hardswish, "relu6": F.relu6,
}  # fmt: skip
for reference, others in {"gelu": ("tanh_gelu", "quick_gelu", "silu", "relu", "none"), "silu": ("erf_gelu", "tanh_gelu", "sigmoid", "none", "mish", "hardswish"),
                          "relu": ("erf_gelu", "leaky", "none", "elu", "relu_squared", "silu"), "tanh": ("none", "sigmoid")}.items():  # fmt: skip
    for other in others:
        def change(f, x, *rest, other=other, **named):
            return ACTIVATIONS[other](x) if f(x, *rest, **named).shape == x.shape else None

        change.__name__ = f"{reference}_as_{other}"
        also = {"none": ("op-missing",), "leaky": ("slope",), "relu_squared": ("exponent",)}.get(other, ())
        patch(reference, "activation", *also)(change)


@patch("gelu", "activation", "operand-precision", "result-precision")
def gelu_in_bf16(f, x, *rest, **named):
    return f(x.bfloat16(), *rest, **named).to(x.dtype)


def in_layer(site):
    """In the module that holds a residual: two tensors of one shape with three dimensions or more."""
    return len(site.shapes) == 2 and site.shapes[0] == site.shapes[1] is not None and len(site.shapes[0]) >= 3


@patch("add", "addend-missing", when=in_layer)
def residual_missing(f, a, b):
    return b.clone()


@patch("add", "addend-missing", when=in_layer)
def branch_missing(f, a, b):
    return a.clone()


@patch("add", "addend-doubled", "scale", when=in_layer)
def residual_twice(f, a, b):
    return f(a, b) + a


@patch("add", "op-other", "scale", when=in_layer)
def residual_subtracted(f, a, b):
    return a - b


@patch("add", "scale", when=in_layer)
def branch_halved(f, a, b):
    return a + 0.5 * b


@patch("add", "dropout", when=in_layer)
def branch_with_dropout(f, a, b):
    torch.manual_seed(4)
    return a + F.dropout(b, 0.1, True)


@patch("mul", "op-missing", when=in_layer)
def gate_missing(f, a, b):
    return b.clone()


@patch("mul", "op-other", when=in_layer)
def gate_added(f, a, b):
    return a + b


@patch("mul", "scale", "attention-scale", "embedding-scale", when=lambda s: len(s.shapes) == 2 and s.shapes[1] is None and len(s.shapes[0] or ()) > 1 and not in_norm(s))
def factor_missing(f, a, b):
    return a.clone()


@patch("mul", "scale", "attention-scale", "embedding-scale", when=lambda s: len(s.shapes) == 2 and s.shapes[1] is None and len(s.shapes[0] or ()) > 1 and not in_norm(s))
def factor_doubled(f, a, b):
    return f(a, b) * 2


@patch("cat", "cat-order", when=lambda s: True)
def concatenated_backwards(f, tensors, dim=0, **named):
    return f(tuple(tensors)[::-1], named.get("dim", dim)) if len({t.shape for t in tensors}) == 1 else f(tensors, dim, **named)


@patch("chunk", "split-order")
def chunks_exchanged(f, x, n, dim=0):
    return tuple(f(x, n, dim))[::-1]


@patch("chunk", "split-order")
def chunks_interleaved(f, x, n, dim=0):
    return tuple(x.unflatten(-1, (-1, n)).unbind(-1))


@patch("split", "split-order")
def split_exchanged(f, x, size, dim=0):
    parts = f(x, size, dim)
    return parts if len({p.shape for p in parts}) > 1 else (parts[1], parts[0], *parts[2:])


@patch("softmax", "softmax-axis", "axis", when=lambda s: s.shapes[0] and s.shapes[0][-2:].count(1) == 0)
def softmax_over_queries(f, x, *rest, **named):
    return torch.softmax(x, -2)


@patch("softmax", "softmax-missing")
def softmax_missing(f, x, *rest, **named):
    return x.clone()


@patch("softmax", "softmax-precision", "operand-precision", "result-precision")
def softmax_in_f16(f, x, *rest, **named):
    return torch.softmax(x.half(), -1).float()


@patch("softmax", "softmax-precision", "operand-precision", "result-precision")
def softmax_in_bf16(f, x, *rest, **named):
    return torch.softmax(x.bfloat16(), -1).float()


@patch("softmax", "approximate-exp")
def softmax_fast_exp(f, x, *rest, **named):
    y = x.float() - x.float().amax(-1, keepdim=True)
    e = (12102203.0 * y + 1064866805.0).clamp(0, 2.0**31 - 129).to(torch.int32).view(torch.float32)
    return e / e.sum(-1, keepdim=True)


@patch("softmax", "attention-scale", "scale")
def softmax_hot(f, x, *rest, **named):
    return torch.softmax(torch.where(x < -1e4, x, 2 * x), -1)


@patch("softmax", "activation", "op-other")
def softmax_as_sigmoid(f, x, *rest, **named):
    return torch.sigmoid(x)


@patch("softmax", "sink")
def softmax_with_sink(f, x, *rest, **named):
    top = x.amax(-1, keepdim=True).clamp(min=0)
    e = torch.exp(x - top)
    return e / (e.sum(-1, keepdim=True) + torch.exp(-top))


@patch("max_pool2d", "op-other")
def average_for_max(f, x, kernel, stride=None, padding=0, *rest, **named):
    return F.avg_pool2d(x, kernel, stride, padding)


@patch("adaptive_avg_pool2d", "op-other")
def max_for_average(f, x, size):
    return F.adaptive_max_pool2d(x, size)


@patch("softplus", "activation", "op-missing")
def softplus_missing(f, x, *rest, **named):
    return x.clone()


@patch("softplus", "activation")
def softplus_as_relu(f, x, *rest, **named):
    return F.relu(x)


@patch("exp", "op-missing", when=lambda s: "mixer" in s.module)
def exp_missing(f, x):
    return x.clone()


@patch("topk", "top-k")
def smallest_experts(f, x, k, *rest, **named):
    return torch.topk(x, k, dim=-1, largest=False)


@patch("div", "op-missing", "norm-missing", when=lambda s: len(s.shapes) == 2 and None not in s.shapes and not in_norm(s))
def not_divided(f, a, b):
    return a.clone()


@patch("roll", "op-missing", "roll-shift")
def roll_missing(f, x, *rest, **named):
    return x.clone()


@patch("roll", "roll-shift")
def roll_backwards(f, x, shifts=0, dims=0, **named):
    shifts, dims = named.get("shifts", shifts), named.get("dims", dims)
    return torch.roll(x, tuple(-s for s in shifts) if isinstance(shifts, tuple) else -shifts, dims)


# ---------------------------------------------------------------- embeddings

def in_embedding(name, causes, change, when=lambda s: True):
    def apply(f, index, table, *rest, **named):
        return change(index, table)

    apply.__name__ = f"embedding_{name}"
    patch("embedding", *causes, when=lambda s: len(s.shapes) > 1 and when(s))(apply)


in_embedding("next", ("embedding-offset",), lambda i, w: F.embedding((i + 1).clamp(max=len(w) - 1), w), lambda s: s.shapes[1][0] > 4)
in_embedding("previous", ("embedding-offset",), lambda i, w: F.embedding((i - 1).clamp(min=0), w), lambda s: s.shapes[1][0] > 4)
in_embedding("first", ("embedding-ignored",), lambda i, w: F.embedding(i * 0, w))
in_embedding("scaled", ("embedding-scale", "output-scaled"), lambda i, w: F.embedding(i, w) * w.shape[1] ** 0.5)
in_embedding("bf16", ("operand-precision", "result-precision"), lambda i, w: F.embedding(i, BF16(w)))
in_embedding("zero", ("output-zero", "weight-zero", "addend-missing"), lambda i, w: F.embedding(i, torch.zeros_like(w)))

# ---------------------------------------------------------------- parameters


def weights(name, *causes):
    """Registers a change of parameters: pick(model) -> list of (site module, {parameter: new value}) or []."""

    def register(pick):
        @contextlib.contextmanager
        def plant(model, site):
            parameters = dict(model.named_parameters())
            kept = {n: parameters[n].data for n in site.arguments[0]}
            try:
                for n, value in site.arguments[0].items():
                    parameters[n].data = value.contiguous()
                yield
            finally:
                for n, value in kept.items():
                    parameters[n].data = value

        def sites(model, _):
            return [Site(module, "", 0, (), (values,)) for module, values in pick(model)]

        FAULTS.append(Fault(name, causes, sites, plant))
        return pick

    return register


def named_pair(model, pairs):
    parameters = dict(model.named_parameters())
    for a, b in pairs:
        for n, p in parameters.items():
            other = n.replace(a, b)
            if a in n and other != n and other in parameters and parameters[other].shape == p.shape and p.dim() == 2:
                yield n, other, p.data, parameters[other].data


PAIRS = (("gate_proj.weight", "up_proj.weight"), ("q_proj.weight", "k_proj.weight"), ("query.weight", "key.weight"), ("wi_0.weight", "wi_1.weight"), (".q.weight", ".k.weight"),
         ("k_proj.weight", "v_proj.weight"), ("q_lin.weight", "k_lin.weight"), ("query_proj.weight", "value_proj.weight"))  # fmt: skip


@weights("weights_swapped", "weights-exchanged", "wrong-weight")
def swapped(model):
    return [(n.rpartition(".")[0].rpartition(".")[0], {n: y, other: x}) for n, other, x, y in named_pair(model, PAIRS)]


@weights("weight_of_the_other", "wrong-weight", "wrong-layer")
def instead(model):
    return [(n.rpartition(".")[0], {n: y}) for n, other, x, y in named_pair(model, PAIRS)]


def next_layer(name):
    parts = name.split(".")
    for i, part in enumerate(parts):
        if part.isdigit():
            return ".".join([*parts[:i], str(int(part) + 1), *parts[i + 1 :]])
    return name


def blocks_of(model):
    """The numbered blocks of the model: elements of lists that have more than one module."""
    return [n for n, m in model.named_modules() if n.rpartition(".")[2].isdigit() and len(list(m.children())) > 1]


@weights("weight_of_next_layer", "wrong-layer")
def neighbour(model):
    parameters = dict(model.named_parameters())
    return [(n.rpartition(".")[0], {n: parameters[next_layer(n)].data}) for n, p in parameters.items()
            if p.dim() >= 2 and next_layer(n) != n and next_layer(n) in parameters and parameters[next_layer(n)].shape == p.shape]


@weights("heads_permuted", "rows-permuted")
def heads_permuted(model):
    """q with its heads' numbers in rotary order of the other convention."""
    found = []
    for n, p in model.named_parameters():
        if p.dim() == 2 and ("q_proj.weight" in n or "query.weight" in n) and p.shape[0] % 16 == 0:
            found.append((n.rpartition(".")[0], {n: p.data.view(-1, 2, 8, p.shape[1]).transpose(1, 2).reshape(p.shape)}))
    return found


@weights("heads_reversed", "rows-permuted")
def heads_reversed(model):
    return [(n.rpartition(".")[0], {n: p.data.view(-1, 16, p.shape[1]).flip(0).reshape(p.shape)}) for n, p in model.named_parameters()
            if p.dim() == 2 and ("q_proj.weight" in n or "value.weight" in n) and p.shape[0] % 16 == 0]


@weights("gelu_weights_transposed_per_head", "columns-permuted", "rows-permuted")
def merged_otherwise(model):
    """An output projection whose columns stand number by number, not head by head."""
    return [(n.rpartition(".")[0], {n: p.data.view(p.shape[0], -1, 16).transpose(1, 2).reshape(p.shape)}) for n, p in model.named_parameters()
            if p.dim() == 2 and ("o_proj.weight" in n or "out_proj.weight" in n) and p.shape[1] % 16 == 0]
