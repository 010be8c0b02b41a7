"""Every kernel row against torch on the same operands: all bits in float32, booleans and integers, a stated distance elsewhere."""
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from kernel_cases import CASES, array, layouts, values
from porting import _core, ops_table, providers

OTHER_TESTS = {"gemm", "bmm", "sdpa_flash"} | {  # test_frames.py
    "convolution", "scatter", "topk", "ranked", "welford_mean", "max_pool", "avg_pool", "adaptive_avg_pool", "resize", "batch_norm", "group_norm",
    "weight_norm", "solve_triangular", "onednn_convolution", "onednn_deconvolution", "onednn_lstm"} | {  # tests/program/test_linalg.py
    "gemv", "dot", "lu", "lu_solve", "cholesky", "qr", "qr_basis", "eigh", "svd"}
PROVIDER = "torch" if providers.load_torch_provider() else "reference"
CAPABILITY = {"DEFAULT": "default", "NO AVX": "default", "AVX2": "avx2", "AVX512": "avx512"}[torch.backends.cpu.get_cpu_capability()]
LEVEL = _core.show_config()["cpu_level"]
ONEDNN = "avx2" if os.environ.get("ONEDNN_MAX_CPU_ISA") == "AVX2" else True
NAMES = {torch.float32: "F32", torch.float64: "F64", torch.bfloat16: "BF16", torch.float16: "F16", torch.bool: "BOOL", torch.uint8: "U8",
         torch.int8: "I8", torch.int16: "I16", torch.int32: "I32", torch.int64: "I64", torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2"}


def reference(aten, arguments, keywords):
    overload = torch.ops
    for part in aten.split("."):
        overload = getattr(overload, part)
    return overload(*arguments, **keywords)


def ours(aten, arguments, keywords, **options):
    def convert(value):
        if isinstance(value, torch.Tensor):
            return array(value)
        if isinstance(value, torch.dtype):
            return {"dtype": NAMES[value]}
        return [convert(v) for v in value] if isinstance(value, list) else value

    options = {"mkldnn": False} | options
    return _core.call_op(aten, [convert(a) for a in arguments], {k: convert(v) for k, v in keywords.items()}, provider=PROVIDER,
                         capability=CAPABILITY, num_threads=torch.get_num_threads(), **options)


def ordered(tensor):
    """Integers that count representable values; all NaN are one value and -0 stands next to 0."""
    if not tensor.dtype.is_floating_point:
        return tensor.to(torch.int64)
    size = tensor.element_size()
    bits = tensor.contiguous().view({1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[size]).to(torch.int64)
    if size == 1:
        bits = torch.where(bits > 127, bits - 256, bits)
    least = torch.tensor(-(1 << (8 * size - 1)))
    result = torch.where(bits < 0, least - 1 - bits, bits)
    return torch.where(torch.isnan(tensor.double()), torch.tensor(1 << 62), result)


def distance(expected, actual, atol=0.0):
    assert tuple(expected.shape) == tuple(actual.shape)
    expected = expected.detach().contiguous()
    actual = np.ascontiguousarray(actual).reshape(tuple(expected.shape))
    assert array(expected).dtype == actual.dtype, f"expected {array(expected).dtype}, got {actual.dtype}"
    if actual.dtype.kind == "V" or actual.dtype.name.startswith(("bfloat", "float8")):
        actual = torch.from_numpy(actual.view(np.int16 if actual.itemsize == 2 else np.uint8).copy()).view(expected.dtype)
    else:
        actual = torch.from_numpy(actual.copy())
    if expected.numel() == 0:
        return 0
    apart = (ordered(expected) - ordered(actual)).abs()
    if atol:
        apart[(expected.double() - actual.double()).abs() <= atol] = 0
    return int(apart.max())


def rows():
    return [(op, dtype, variant) for op, dtype, variant, level in _core.kernel_rows()
            if op not in OTHER_TESTS and level <= LEVEL and (op, variant) not in ops_table.NAMED]


def test_every_row_has_a_case():
    missing = sorted({(op, dtype) for op, dtype, _ in rows() if op not in CASES or dtype not in CASES[op].dtypes})
    assert not missing


def test_every_reference_row_is_there():
    have = {(op, dtype) for op, dtype, variant in rows() if variant == "ref"}
    assert have >= {(op, dtype) for op, case in CASES.items() for dtype in case.dtypes}


@pytest.mark.parametrize("op,dtype,variant", rows())
def test_row_against_torch(op, dtype, variant):
    torch.manual_seed(0)
    case = CASES[op]
    promise = ops_table.label(op, dtype, variant)
    allowed = 0 if promise.kind == "LIBRARY" and PROVIDER == "torch" else promise.ulp
    asked = 0
    with torch.backends.mkldnn.flags(enabled=False):
        for name, x in layouts(dtype, case.special):
            x = x.contiguous() if case.row_major else x
            for arguments, keywords in case.arguments(x):
                expected = reference(case.aten, arguments, keywords)
                actual = ours(case.aten, arguments, keywords, variant=variant)
                pairs = zip(expected, actual) if isinstance(expected, tuple) else [(expected, actual)]
                for e, a in pairs:
                    far = distance(e, a, promise.atol)
                    assert far <= allowed, f"{op} {dtype} {variant} {name} {arguments[1:]} {keywords}: {far} ulp"
                    asked += 1
    assert asked > 0


def test_distance_sees_one_bit():
    x = values((64,), "F32", special=False)
    y = array(x).copy()
    assert distance(x, y) == 0
    y.view(np.int32)[13] += 1
    assert distance(x, y) == 1


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("capability", ["default", "avx2", "avx512"])
def test_float32_under_each_capability(capability, threads):
    """The reference chooses its code when it starts, so each capability has its own process; its threads cut the loops."""
    if threads == torch.get_num_threads() and capability == CAPABILITY:
        return  # this process, above
    environment = dict(os.environ, ATEN_CPU_CAPABILITY=capability, OMP_NUM_THREADS=str(threads))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__, "-k", "test_row_against_torch and F32"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:]


def test_table_names_every_op():
    """A label for an op that is not there promises nothing, and `porting ops` prints every row once."""
    have = {(op, dtype) for op, dtype, _, _ in _core.kernel_rows()}
    assert {(op, dtype) for op, labels in ops_table.LABELS.items() for dtype in labels} <= have
    assert {(op, variant) for op, variant in ops_table.NAMED} <= {(op, variant) for op, _, variant, _ in _core.kernel_rows()}
    assert sum(len(row.variants) for row in ops_table.rows()) == len(_core.kernel_rows())


def test_a_convolution_promises_what_the_less_exact_of_its_kernels_does():
    assert ops_table.promise("aten.convolution.default", "F32").kind == "BOUND" == ops_table.label("onednn_deconvolution", "F32").kind
    assert ops_table.promise("aten.convolution.default", "F64").kind == "LIBRARY" == ops_table.label("convolution", "F32").kind


@pytest.mark.parametrize("variant,least", [("ieee", 0), ("correct", 1), ("newton2", 1), ("newton1", 2), ("rsqrtss", 1000)])
def test_named_rsqrt(variant, least):
    """The variants are as far off as they say, no nearer than they are known to be, and never chosen unasked."""
    x = torch.from_numpy(np.arange(0x3F800000, 0x40800000, 97, dtype=np.uint32).view(np.float32))
    far = distance(torch.rsqrt(x), ours("aten.rsqrt.default", [x], {}, variant=variant))
    assert least <= far <= ops_table.label("rsqrt", "F32", variant).ulp
    assert distance(torch.rsqrt(x), ours("aten.rsqrt.default", [x], {})) == 0


def test_correct_rsqrt_is_the_nearest_float():
    x = np.arange(0x3F800000, 0x40800000, 997, dtype=np.uint32).view(np.float32)
    y = ours("aten.rsqrt.default", [torch.from_numpy(x)], {}, variant="correct")
    error = [abs(1 - Fraction(float(b)) ** 2 * Fraction(float(a))) for a, b in zip(x, y)]
    for side in (np.inf, 0):
        other = np.nextafter(y, np.float32(side))
        assert all(abs(1 - Fraction(float(b)) ** 2 * Fraction(float(a))) > e for a, b, e in zip(x, other, error))


def test_slice_of_all_inputs():
    """A seeded slice of the 2^32 inputs of every function and cast; exhaustive.py does them all."""
    from exhaustive import CASTS, NARROW, OPS, unequal, unequal_from

    start = int(np.random.default_rng(5).integers(40009))
    wrong = {op: unequal(op, step=40009, start=start) for op in (*OPS, *CASTS) if op != "gelu mkldnn"}
    wrong.update({f"from {name}": unequal_from(name) for name in NARROW})
    assert not {op: count for op, count in wrong.items() if count}


def test_mish_where_the_sums_of_tanh_show():
    """The one input of 2^32 at which a sum of double-floats in tanh that takes its operands for unordered gives another bit; 32 of it reach the vector code."""
    x = torch.from_numpy(np.full(32, 0x40C5D7E4, np.uint32).view(np.float32))
    assert distance(torch.nn.functional.mish(x), ours("aten.mish.default", [x], {})) == 0


def test_make_exhaustive_runs_it():
    command = ["make", "-n", "exhaustive", f"PY={sys.executable}", "OPS=exp 'to f16'"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    assert f"{sys.executable} tests/kernels/exhaustive.py exp 'to f16'" in done.stdout


def test_the_slice_can_fail():
    """One bit too many or too few is counted, and NaN of another kind is not."""
    from exhaustive import differing

    x = np.array([1.0, np.nan, -0.0], np.float32)
    y = x.copy()
    y.view(np.uint32)[1] ^= 1
    assert differing(x, y) == 0
    y.view(np.uint32)[0] ^= 1
    assert differing(x, y) == 1 and differing(x, np.abs(x)) == 1


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
@pytest.mark.parametrize("variant", sorted({variant for op, _, variant, level in _core.kernel_rows() if op == "gelu" and level <= _core.show_config()["cpu_level"]}))
def test_gelu_with_mkldnn(dtype, variant):
    """With mkldnn on torch calls oneDNN, for row-major tensors of more than one element."""
    torch.manual_seed(0)
    for name, x in layouts(dtype):
        if x.is_contiguous() or name in ("transposed", "permuted"):  # call_op keeps the strides of these
            expected = torch.nn.functional.gelu(x)
            assert distance(expected, ours("aten.gelu.default", [x], {}, variant=variant, mkldnn=ONEDNN)) == 0, name


def test_gelu_with_mkldnn_is_another_function():
    x = values((1000,), "F32", special=False)
    assert distance(torch.nn.functional.gelu(x), ours("aten.gelu.default", [x], {}, mkldnn=False)) > 0


@pytest.mark.parametrize("isa", ["AVX2", "AVX512_CORE"])
def test_slice_of_all_inputs_of_gelu_with_mkldnn(isa):
    """oneDNN chooses its code once per process. A seeded slice of the 2^32 inputs, and the tests above."""
    environment = dict(os.environ, ONEDNN_MAX_CPU_ISA=isa)
    command = [sys.executable, str(Path(__file__).with_name("exhaustive.py")), "gelu mkldnn", "--step", "40009"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__, "-k", "test_gelu_with_mkldnn"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:]
