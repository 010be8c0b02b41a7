"""Every op again with operands that its own cases may lack: strided, turned, empty, NaN, infinite, subnormal. The oracle is torch.

Of each op the first case of each of three dtypes has its tensors replaced by such as are laid out or filled otherwise; what torch
then refuses is passed over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from op_cases_more import CASES
from porting import _core, providers
from test_ops import LIBRARY, array, check, describe, fits_in_place, for_call_op, is_in_place, torch_results

CAPABILITY = torch.backends.cpu.get_cpu_capability().lower()
PROFILE = {"capability": CAPABILITY if CAPABILITY in ("avx2", "avx512") else "default", "mkldnn": torch.backends.mkldnn.is_available()}
ODD = (math.nan, math.inf, -math.inf, -0.0, 0.0, 1e-45, -1e-40, 3e38)


def tensors(a: Any) -> Iterator[torch.Tensor]:
    if isinstance(a, torch.Tensor):
        yield a
    elif isinstance(a, (list, tuple, dict)):
        for x in a.values() if isinstance(a, dict) else a:
            yield from tensors(x)


def strided(t: torch.Tensor) -> torch.Tensor:
    """The same values, every second element of a larger tensor."""
    room = torch.zeros([2 * n + 1 for n in t.shape], dtype=t.dtype)
    view = room[tuple(slice(1, None, 2) for _ in t.shape)]
    return view.copy_(t) if t.dim() else t


def turned(t: torch.Tensor) -> torch.Tensor:
    """The same values, the last dimension outermost in memory."""
    return t.transpose(0, -1).contiguous().transpose(0, -1) if t.dim() > 1 else t


def odd(t: torch.Tensor) -> torch.Tensor:
    """NaN, infinities, zeros and subnormals in every third place."""
    if not t.is_floating_point():
        return t
    t = t.clone(memory_format=torch.contiguous_format)
    places = t.view(-1)[::3]
    places.copy_(torch.tensor([ODD[k % len(ODD)] for k in range(len(places))], dtype=torch.float64))
    return t


def without_first(t: torch.Tensor) -> torch.Tensor:
    return t[:0] if t.dim() else t


def without_last(t: torch.Tensor) -> torch.Tensor:
    return t[..., :0] if t.dim() else t


def changed(a: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    if isinstance(a, torch.Tensor):
        return change(a)
    if isinstance(a, dict):
        return {k: changed(v, change) for k, v in a.items()}
    return [changed(x, change) for x in a] if isinstance(a, list) else a


# What is not compared: there torch takes memory as if it were dense, ends the process, asks for parameters of a channel that is none, or
# is near and not equal where a sum overflows.
AS_IF_DENSE = """_embedding_bag _embedding_bag_forward_only _scaled_dot_product_flash_attention_for_cpu as_strided as_strided_copy as_strided_scatter
    _weight_norm_interface mkldnn_rnn_layer _masked_softmax"""
NO_CHANNELS = "_native_batch_norm_legit _native_batch_norm_legit_no_training native_batch_norm _batch_norm_with_update _transformer_encoder_layer_fwd"
PASSED_OVER = {
    "strided": AS_IF_DENSE,
    "turned": AS_IF_DENSE,
    "odd": "_fft_r2c _fft_c2c _fft_c2r cholesky_inverse unique_dim upsample_bicubic2d _grouped_mm",
    "without first": f"_weight_norm_interface mkldnn_rnn_layer _reshape_alias as_strided as_strided_copy cholesky {NO_CHANNELS}",
    "without last": f"""_weight_norm_interface mkldnn_rnn_layer _masked_softmax _reshape_alias as_strided as_strided_copy cholesky _scaled_dot_product_flash_attention_for_cpu
        _trilinear unfold_backward {NO_CHANNELS}""",
    "first empty": """_weight_norm_interface mkldnn_rnn_layer _reshape_alias as_strided as_strided_copy as_strided_scatter cholesky _grouped_mm bincount index_add
        _scaled_dot_product_flash_attention_for_cpu _trilinear""",
}
FORMS = {"strided": strided, "turned": turned, "odd": odd, "without first": without_first, "without last": without_last, "first empty": without_first}


def cases_of(name: str) -> Iterator[tuple[list, dict]]:
    """The first case with elements of each of three dtypes, or the first of all."""
    cases = [c for c in CASES[name] if any(t.numel() for t in tensors(c))]
    found = [next((c for c in cases if next(t for t in tensors(c)).dtype == d), None) for d in (torch.float32, torch.bfloat16, torch.int64)]
    yield from [c for c in found if c is not None] or cases[:1]


def compare(name: str, args: list, kwargs: dict[str, Any]) -> str | None:
    """None: torch refuses this. Else what is wrong, or nothing."""
    try:
        if is_in_place(name) and not (isinstance(args[0], torch.Tensor) and fits_in_place(name, args, kwargs)):
            return None
        theirs = torch_results(name, args, kwargs)
    except (RuntimeError, IndexError, ValueError, NotImplementedError, TypeError):
        return None
    options = {"provider": providers.use_provider("torch")[0]} if name.split(".")[1] in LIBRARY else {}
    try:
        ours = _core.call_op(name, [for_call_op(a) for a in args], {k: for_call_op(a) for k, a in kwargs.items()}, **PROFILE, **options)
        ours = list(ours) if isinstance(ours, tuple) else [ours]
        assert len(ours) == len(theirs)
        for mine, expected in zip(ours, theirs):
            if expected is not None:
                check(name, mine, expected)
    except (AssertionError, _core.PortingError, ValueError) as error:
        return f"{name}{[describe(a) for a in args]}{kwargs}: {' '.join(str(error).split())[:300]}"
    return ""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", FORMS)
def test_ops_with_other_operands(form: str) -> None:
    passed_over, wrong, reached = PASSED_OVER[form].split(), [], 0
    for name in sorted(CASES):
        if name.split(".")[1].rstrip("_") in passed_over:
            continue
        for args, kwargs in cases_of(name):
            if not args:
                continue
            if form != "odd" or any(t.is_floating_point() for t in tensors((args, kwargs))):
                others = (args[1:], kwargs) if form == "first empty" else changed([args[1:], kwargs], FORMS[form])
                found = compare(name, [changed(args[0], FORMS[form]), *others[0]], others[1])
                reached += found is not None
                wrong += [found] if found else []
    assert not wrong, "\n".join(wrong)
    assert reached > 700, reached


def test_what_is_read_wrongly_is_seen() -> None:
    """The changes do what they say, and a result for other values is refused."""
    x = torch.arange(1.0, 13.0).reshape(3, 4)
    assert not strided(x).is_contiguous() and not turned(x).is_contiguous() and torch.equal(strided(x), x) and torch.equal(turned(x), x)
    assert odd(x).isnan().any() and odd(x).isinf().any() and without_first(x).shape == (0, 4) and without_last(x).shape == (3, 0)
    dense = strided(x).as_strided((3, 4), (4, 1))
    with pytest.raises(AssertionError):
        check("aten.neg.default", array(-dense), -x)
    with pytest.raises(AssertionError):
        check("aten.exp.default", array(odd(x).nan_to_num().exp()), odd(x).exp())
    assert compare("aten.neg.default", [x], {}) == "" and compare("aten.mm.default", [x, x], {}) is None
