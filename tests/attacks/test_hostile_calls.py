"""Calls of the extension made to do harm: arguments that lie about themselves, and programs that lie about their ops."""
import json
import math
import subprocess
import sys

import numpy as np
import pytest
from porting import _core


def program(ops, values=()):
    return _core.Program(json.dumps({"values": list(values), "ops": ops}).encode())


def clearing(items):
    """A list that empties itself when its first number is asked for; good numbers behind it."""
    holder = []

    class Clears:
        def __index__(self):
            holder.clear()
            return 0

    holder.extend([Clears(), *items])
    return holder


def test_lists_that_change_while_they_are_read(tmp_path):
    held = np.zeros(1)
    one_value = program([], [["F64", [1], [1], 0]])
    assert [a.shape for a in one_value.run(0, 0, {0: held}, clearing([0] * 99))] == [(1,)] * 100
    with _closing(_core.Writer(tmp_path / "c")) as writer:
        assert writer.put_pointer(0, 11, clearing([3] * 15), [1] * 16, "empty") == 0
        with pytest.raises(TypeError):
            writer.call("m", 0, 0, 0, '{"leaves": []}', clearing([0] * 9))  # ids are ints, nothing that turns into one


class _closing:
    def __init__(self, writer):
        self.writer = writer

    def __enter__(self):
        return self.writer

    def __exit__(self, *_):
        self.writer.abort()


def nested(depth):
    inner = []
    for _ in range(depth):
        inner = [inner]
    return inner


def endless():
    inner = []
    inner.append(inner)
    return inner


@pytest.mark.parametrize("argument", [endless(), nested(2), nested(1_000_000)], ids=["endless", "two", "deep"])
def test_lists_in_lists(argument):
    with pytest.raises(TypeError, match="a list inside a list is no argument"):
        _core.call_op("aten.cat.default", [argument])
    x = np.arange(3.0)
    assert _core.call_op("aten.cat.default", [[x, x]]).shape == (6,)


@pytest.mark.parametrize("length", [2**60, 2**60 + 1, 0, 1])
def test_lists_that_lie_about_their_length(length):
    class Lies(list):
        def __len__(self):
            return length

    x = np.arange(3.0)
    assert _core.call_op("aten.cat.default", [Lies([x, x])]).shape == (6,)


@pytest.mark.parametrize("items", [[1], [()], [("dim",)], [(1, 2)], [["dim", 0]]])
def test_keyword_arguments_that_are_no_pairs(items):
    class Odd:
        def items(self):
            return items

    x = np.arange(3.0)
    with pytest.raises(TypeError, match="names of arguments must be strings"):
        _core.call_op("aten.cat.default", [[x, x]], Odd())
    assert _core.call_op("aten.cat.default", [[x, x]], {"dim": 0}).shape == (6,)


@pytest.mark.parametrize(("begin", "end"), [(-(2**63), 2**63 - 1), (2**63 - 1, -(2**63)), (1, 0), (0, 1)])
def test_intervals_that_are_none(begin, end):
    with pytest.raises(ValueError, match=r"ops .* to .* are asked for, the program has 0"):
        program([]).run(begin, end, {}, [])


def test_arrays_larger_than_memory():
    huge = np.broadcast_to(np.float32(1), (2**60,))
    for op, args in [("add.Tensor", [huge, huge]), ("cat.default", [[huge] * 8]), ("clone.default", [huge])]:
        with pytest.raises(ValueError, match="more elements or larger strides than memory has"):
            _core.call_op(f"aten.{op}", args)
    with pytest.raises(ValueError, match="more elements"):
        program([], [["F32", [2**60], [0], 0]]).run(0, 0, {0: huge}, [0])


@pytest.mark.parametrize("sizes", [[0], [2]])
def test_a_number_that_an_op_returned_is_one_element(sizes):
    ones = ["aten.ones.default", [{"list": sizes}], {"dtype": {"dtype": "I64"}}, []]
    with pytest.raises(ValueError, match=f"a tensor of {sizes[0]} elements"):
        program([[*ones, 1]]).run(0, 1, {}, [])
    ones[1] = [{"list": []}]
    program([[*ones, 1]]).run(0, 1, {}, [])
    with pytest.raises(ValueError, match="returned 2 when the program was recorded and 1 now"):
        program([[*ones, 2]]).run(0, 1, {}, [])


def test_a_mask_whose_stride_is_zero():
    x = np.array([[1.0, 2.0, 3.0]])
    values = [["F64", [1, 3], [3, 1], 0], ["BOOL", [3], [1], 0], ["BOOL", [1, 3], [0, 1], 0], ["F64", [2], [1], 0]]
    ops = [["aten.as_strided.default", [{"v": 1}, {"list": [1, 3]}, {"list": [0, 1]}], {}, [2]],
           ["aten.index.Tensor", [{"v": 0}, {"list": [{"v": 2}]}], {}, [3]]]
    (picked,) = program(ops, values).run(0, 2, {0: x, 1: np.array([True, False, True])}, [3])
    assert picked.tolist() == [1.0, 3.0]


def test_a_number_changed_in_place():
    x = np.ones(3, np.float32)
    with pytest.raises(ValueError, match="nothing to change in place"):
        _core.call_op("aten.div_.Tensor_mode", [3.0, x], {"rounding_mode": None})
    assert _core.call_op("aten.div_.Tensor_mode", [x, 2.0], {"rounding_mode": None}).tolist() == [0.5] * 3


@pytest.mark.parametrize(("op", "args", "kwargs", "sentence"), [
    ("_fft_c2c.default", [np.zeros((2,) * 15, np.complex64), [0] * 15, 0, True], {}, "named twice"),
    ("histc.default", [np.zeros(3, np.float32)], {"min": -np.inf, "max": 1.0}, "a range from -inf to 1"),
    ("histc.default", [np.array([1.0, np.nan], np.float32)], {"min": 2.0, "max": 1.0}, "a range from 2 to 1"),
    ("kthvalue.default", [np.ones(3), -(2**63)], {}, "no element of 3 has that rank"),
    ("median.default", [np.ones(3, np.complex64)], {}, "C64"),
    ("nll_loss_forward.default", [np.zeros((4, 6), np.float32), np.zeros((2, 2), np.int64), None, 1, -100], {}, "targets"),
    ("diag_embed.default", [np.ones(3), -(2**63)], {}, "dimensions"),
    ("mkldnn_rnn_layer.default", [np.ones(()), *[np.zeros((4, 1), np.float32)] * 6, False, [], 2, 1, 1, True, False, False, False], {}, "states"),
    ("reflection_pad1d.default", [np.ones((2, 3)), [2**63 - 1, 2**63 - 1]], {}, "a padding of"),
    ("im2col.default", [np.ones((1, 3, 3), np.float32), [2, 2], [1, 1], [0, 0], []], {}, "a window that does not fit"),
    ("convolution.default", [np.ones((1, 4, 5), np.float32), np.ones((2, 4, 3), np.float32), None, [1], [0], [1], False, [0], 2**62], {}, "does not fit a weight"),
    ("convolution.default", [np.ones((1, 4, 5), np.float32), np.ones((4, 3, 3), np.float32), None, [1], [0], [1], True, [0], 2**62], {}, "does not fit a weight"),
    ("convolution.default", [np.ones((1, 4, 5), np.float32), np.broadcast_to(np.float32(1), (2, 4, 2**36)), None, [1], [0], [2**31 - 1], False, [0], 1], {},
     "does not fit a weight"),
    ("convolution.default", [np.broadcast_to(np.float32(1), (1, 4, 2**36)), np.ones((4, 4, 3), np.float32), None, [2**31 - 1], [0], [1], True, [0], 1], {},
     "does not fit a weight"),
    ("im2col.default", [np.ones((1, 1, 1, 1), np.float32), [1, 1], [1, 1], [2**31 - 1] * 2, [1, 1]], {}, "more windows than memory has"),
    ("im2col.default", [np.ones((0, 2**20, 1, 1), np.float32), [2**31 - 1] * 2, [1, 1], [2**31 - 1] * 2, [1, 1]], {}, "more windows than memory has"),
    ("upsample_bilinear2d.default", [np.ones((1, 1, 2, 2), np.float32), [2**63 - 1, 2**63 - 1], False], {}, "cannot be"),
    ("upsample_bilinear2d.default", [np.ones((1, 1, 2, 2), np.float32), [-(2**63), 3], False], {}, "cannot be"),
    ("_adaptive_avg_pool2d.default", [np.ones((2, 3, 4, 5), np.float32).transpose(0, 3, 1, 2), [2**62, 2**62]], {}, "cannot be"),
    ("add.Tensor", [np.broadcast_to(np.float32(1), (2**36, 1)), np.broadcast_to(np.float32(1), (1, 2**36))], {}, "cannot be"),
    ("linalg_solve_triangular.default", [np.broadcast_to(np.float32(1), (2**36, 1, 1, 1)), np.broadcast_to(np.float32(1), (2**36, 1, 1))],
     {"upper": True}, "do not fit"),
    ("pixel_unshuffle.default", [np.ones((2**36, 0, 0), np.float32), 2**15], {}, "does not divide"),
    ("unbind.int", [np.broadcast_to(np.float32(1), (2**36,))], {}, "more than 1048576 results"),
    ("_pack_padded_sequence.default", [np.ones((2, 3, 1)), np.array([2**62, 2**62, 2**62]), False], {}, "length 0"),
])
def test_numbers_that_no_op_can_mean(op, args, kwargs, sentence):
    with pytest.raises((ValueError, _core.PortingError), match=sentence):
        _core.call_op(f"aten.{op}", args, kwargs)


def test_edges_that_are_no_errors():
    assert _core.call_op("aten.histc.default", [np.ones(3, np.float32), 4], {"min": 1 - 1e-12, "max": 1 + 1e-12}).tolist() == [3, 0, 0, 0]  # as torch
    _, norms = _core.call_op("aten._weight_norm_interface.default", [np.zeros((3, 0), np.float32), np.ones((3, 1), np.float32), 0])
    assert norms.tolist() == [[0.0]] * 3
    x = np.ones((1, 1, 2, 2), np.float32)
    assert _core.call_op("aten._upsample_bilinear2d_aa.default", [x, [2, 2], False, 1e-300, 1e-300]).shape == (1, 1, 2, 2)


def test_complex_numbers_between_complex_numbers():
    """As torch, which wants a storage offset that 2 divides."""
    x = np.arange(8, dtype=np.float32)
    values = [["F32", [8], [1], 0], ["F32", [4], [1], 1], ["F32", [2, 2], [2, 1], 1], ["C64", [2], [1], 0]]

    def ops(start):
        return [["aten.slice.Tensor", [{"v": 0}, 0, start, start + 4], {}, [1]], ["aten.view.default", [{"v": 1}, {"list": [2, 2]}], {}, [2]],
                ["aten.view_as_complex.default", [{"v": 2}], {}, [3]]]

    with pytest.raises(_core.PortingError, match="odd element"):
        program(ops(1), values).run(0, 3, {0: x}, [3])
    assert program(ops(2), values).run(0, 3, {0: x}, [3])[0].tolist() == [2 + 3j, 4 + 5j]


def test_much_of_nothing_takes_no_time():
    nothing = np.broadcast_to(np.zeros((1, 0), np.float32), (2**40, 0))
    assert _core.call_op("aten.cumsum.default", [nothing, -1]).shape == (2**40, 0)
    assert _core.call_op("aten._softmax.default", [nothing, 1, False]).shape == (2**40, 0)
    assert _core.call_op("aten.sum.dim_IntList", [nothing, [0]]).shape == (0,)
    stacks = [np.broadcast_to(np.zeros((1, *shape), np.float32), (2**36, *shape)) for shape in ((2, 0), (0, 3))]
    assert _core.call_op("aten.addbmm.default", [np.ones((2, 3), np.float32), *stacks], {"beta": 2}).tolist() == [[2.0] * 3] * 2
    with pytest.raises(ValueError, match="that multiply"):
        _core.call_op("aten.addbmm.default", [np.ones((2, 2), np.float32), *[np.ones((0, 2, 3), np.float32)] * 2])
    steps, weights, bias, state = np.zeros((2**36, 0, 4)), [np.zeros((4, 4)), np.zeros((4, 1))], np.zeros(4), np.zeros((0, 1))
    made = _core.call_op("aten.mkldnn_rnn_layer.default", [steps, *weights, bias, bias, state, state, False, [], 2, 1, 1, True, False, False, False])
    assert made[0].shape == (2**36, 0, 1)
    for rows, cols, offset in [(2**31 - 1, 0, 0), (2**31 - 1, 3, -(2**31) + 3), (0, 2**31 - 1, 5), (2, 2**31 - 1, -(2**40))]:
        assert _core.call_op("aten.tril_indices.default", [rows, cols, offset]).shape[1] < 4


def test_repeating_nothing_many_times():
    nothing = np.zeros((0, 4), np.float32)
    assert _core.call_op("aten.repeat.default", [nothing, [2**62, 2]]).shape == (0, 8)
    assert _core.call_op("aten.repeat.default", [np.zeros((2, 4), np.float32), [1, 0]]).shape == (2, 0)


@pytest.mark.parametrize("option", ["budget_bytes", "segment_bytes", "rank"])
@pytest.mark.parametrize("value", [-1, 2**64, 2**64 + 7])
def test_sizes_that_do_not_fit_are_not_cut(tmp_path, option, value):
    with pytest.raises((OverflowError, ValueError)):
        _core.Writer(tmp_path / "c", **{option: value})
    with pytest.raises(ValueError, match="a rank is at most 99999"):
        _core.Writer(tmp_path / "c", rank=2**32 + 3)
    assert not (tmp_path / "c").exists()


def test_errors_about_names_that_are_not_utf8(tmp_path):
    strange = bytes(tmp_path) + b"/\xff\xfe"
    with pytest.raises(FileNotFoundError, match="No such file") as error:
        _core.Reader(strange)
    assert error.value.filename.encode("utf-8", "surrogateescape") == strange
    with pytest.raises(FileNotFoundError):
        _core.Writer(strange + b"/deeper")
    with pytest.raises(FileNotFoundError, match="cannot open"):  # the sentence is cut inside a character
        _core.Reader("/" + "/".join(["\N{LATIN SMALL LETTER E WITH ACUTE}" * 100] * 5))


@pytest.mark.parametrize(("op", "args"), [
    ("cat.default", [[np.zeros((2, 3))], 5]), ("cat.default", [[np.zeros((2, 3))], -3]), ("stack.default", [[np.zeros(3)], 7]),
    ("gather.default", [np.zeros((2, 3)), 5, np.zeros((2, 3), np.int64)]), ("index_select.default", [np.zeros(3), 9, np.zeros(1, np.int64)]),
    ("select.int", [np.zeros(3), 4, 0]), ("squeeze.dims", [np.zeros(3), [0, 40]]), ("transpose.int", [np.zeros(3), 0, 2**40]),
])  # fmt: skip
def test_dimensions_that_are_none(op, args):
    with pytest.raises(ValueError, match="dimension .* is out of range"):
        _core.call_op(f"aten.{op}", args)


def test_what_does_not_fit_into_memory_is_said_in_bytes():
    """With at most 4 GiB of addresses more than a process has from the begin (a sanitizer's are many), so that nothing large is touched."""
    code = ("import resource; used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
            "resource.setrlimit(resource.RLIMIT_AS, (used + (4 << 30),) * 2)\n"
            "from porting import _core\n"
            "for n in (1 << 10, 1 << 32):\n"
            "    try: print(len(_core.call_op('aten.zeros.default', [[n]], {})))\n"
            "    except MemoryError as error: print(error)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["1024", "no memory for a tensor of 17179869184 bytes"]


@pytest.mark.parametrize("factor", [2.5e-18, 2e-19, 1e-300, 5e-324, 1e300, math.inf, math.nan, -1.0])
@pytest.mark.parametrize("op", ["upsample_nearest1d", "_upsample_nearest_exact1d", "upsample_linear1d"])
def test_factors_of_no_sense_read_nothing_but_the_input(op, factor):
    corners = [False] if "linear" in op else []
    for n in (2, 5, 17):
        x = np.arange(1, n + 1, dtype=np.float32).reshape(1, 1, n)
        made = _core.call_op(f"aten.{op}.default", [x, [60], *corners, factor]).ravel()
        assert set(np.unique(made[0 if corners else slice(None)])) <= set(x.ravel())
        assert not corners or np.isnan(made).any() or (made >= 1).all() and (made <= n).all()
        assert made[-1] == n or factor > 1 or np.isnan(made[-1])  # beyond the end stands the last


def test_strides_far_wider_than_the_kernel_come_to_an_end():
    """Walked place by place, a stride would take two seconds for each of 2,048 blocks of channels."""
    channels = 8 * 2048
    x, w = np.ones((2, 16, 1, 1), np.float32), np.ones((16, channels, 2, 3), np.float32)
    made = _core.call_op("aten.convolution.default", [x, w, None, [1, 2**31 - 1], [0, 1], [1, 1], True, [0, 0], 1], mkldnn="avx512")
    assert made.shape == (2, channels, 2, 1) and (made == 16).all()
    with pytest.raises(ValueError, match="a stride, padding or dilation of 2147483648"):
        _core.call_op("aten.convolution.default", [x, w, None, [1, 2**31], [0, 1], [1, 1], True, [0, 0], 1], mkldnn="avx512")
