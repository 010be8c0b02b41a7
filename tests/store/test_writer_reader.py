"""Captures written and read through the binding: values, dtypes, names, equal tensors, errors, lifetimes."""
import gc
import json
import os
import subprocess
import sys
import threading

import ml_dtypes
import numpy as np
import pytest
import xxhash
from porting import _core
from safetensors import safe_open

STRUCTURE = json.dumps({"leaves": ["0"], "names": {}, "tree": {"tuple": [{"$": 0}]}})
DTYPES = [np.bool_, np.uint8, np.int8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64, np.float16,
          ml_dtypes.bfloat16, np.float32, np.float64, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, np.complex64]


def bits(array):
    return np.ascontiguousarray(array).tobytes()


def test_hash_is_xxh3():
    data = np.random.default_rng(0).bytes(3000)
    for size in list(range(300)) + [511, 1024, 1025, 2999]:
        assert _core.hash128(data[:size]) == xxhash.xxh3_128_hexdigest(data[:size])
    big = data * 100
    assert _core.hash128(big) == xxhash.xxh3_128_hexdigest(big)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0, 2), (7, 5), (2, 3, 4, 5)], ids=str)
def test_every_dtype_comes_back(tmp_path, dtype, shape):
    raw = np.random.default_rng(1).integers(0, 2, size=(*shape, np.dtype(dtype).itemsize), dtype=np.uint8)
    array = np.array(raw.view(dtype)).reshape(shape)
    writer = _core.Writer(str(tmp_path / "c"))
    key = writer.put(array, "k")
    writer.close()
    reader = _core.Reader(str(tmp_path / "c"))
    back = reader.tensor(key)
    assert back.dtype == array.dtype and back.shape == array.shape and bits(back) == bits(array)
    assert not back.flags.writeable
    assert reader.info(key)[4] == xxhash.xxh3_128_hexdigest(bits(array))


def test_strided_views_are_stored_dense_and_remember_their_strides(tmp_path):
    base = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    views = [base.transpose(0, 2, 3, 1), base[:, ::2, 1:, ::-1], np.broadcast_to(base[:, :1], base.shape), base[1], base.T]
    writer = _core.Writer(str(tmp_path / "c"))
    ids = [writer.put(v, "k") for v in views]
    again = [writer.put(v.copy(order="K"), "k") for v in views[:1]]
    dense = writer.put(np.ascontiguousarray(views[0]), "k")
    writer.close()
    assert len(set(ids)) == len(views) and again[0] == ids[0] and dense != ids[0]
    reader = _core.Reader(str(tmp_path / "c"))
    for key, view in zip(ids, views):
        assert np.array_equal(reader.tensor(key), view)
        want = tuple(s // 4 if n > 1 else 0 for s, n in zip(view.strides, view.shape))
        assert reader.info(key)[2] == want


def test_equal_bytes_are_one_tensor_and_changed_bytes_another(tmp_path):
    array = np.zeros((64, 64), np.float32)
    writer = _core.Writer(str(tmp_path / "c"))
    first = writer.put(array, "a")
    assert writer.put(array.copy(), "b") == first
    assert writer.put(array.view(np.int32), "c") != first      # another dtype
    assert writer.put(array.reshape(32, 128), "d") != first    # another shape
    array[3, 3] = 1                                            # in place: the same object, other content
    changed = writer.put(array, "a")
    assert changed != first
    stats = writer.stats
    writer.close()
    assert stats["num_tensors"] == 4 and stats["num_deduplicated"] == 1
    assert stats["bytes_seen"] - stats["bytes_stored"] == array.nbytes
    reader = _core.Reader(str(tmp_path / "c"))
    assert reader.tensor(first)[3, 3] == 0 and reader.tensor(changed)[3, 3] == 1
    assert [reader.info(i)[7] for i in (first, changed)] == ["a", "a#2"]


def test_put_pointer_is_put(tmp_path):
    array = np.arange(24, dtype=np.float32).reshape(4, 6)
    writer = _core.Writer(str(tmp_path / "c"))
    number = _core.DTYPES.index("F32")
    assert writer.put(array.T, "k") == writer.put_pointer(array.ctypes.data, number, (6, 4), (1, 6), "k")
    for bad in [(number, (6, 4), (1,)), (99, (6,), (1,)), (number, (-1,), (1,)), (number, (2**62, 4), (4, 1)),
                (number, (1,) * 17, (1,) * 17)]:
        with pytest.raises(ValueError):
            writer.put_pointer(array.ctypes.data, *bad, "k")
    with pytest.raises(ValueError, match="no data"):
        writer.put_pointer(0, number, (1,), (1,), "k")
    writer.close()


def test_finished_capture_opens_with_safetensors_alone(tmp_path):
    rng = np.random.default_rng(2)
    arrays = {f"layer.{i}.in.0": rng.standard_normal((i + 1, 37)).astype(np.float32) for i in range(60)}
    writer = _core.Writer(str(tmp_path / "c"), segment_bytes=64 * 1024)
    for name, array in arrays.items():
        writer.add(name, array)
    writer.name("tied", writer.put(arrays["layer.3.in.0"], "other"))
    writer.put(np.zeros((0, 5), np.int64), "empty")
    writer.close()
    index = json.loads((tmp_path / "c/model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    assert len(files) > 1 and index["metadata"]["aliases"] == {"tied": "layer.3.in.0"}
    assert index["metadata"]["total_size"] == sum(a.nbytes for a in arrays.values())
    seen = {}
    for file in files:
        with safe_open(tmp_path / "c" / file, "numpy") as f:
            assert f.metadata() == {"format": "pt", "porting.capture": "1"}
            for key in f.keys():
                if not key.startswith("__pad__."):
                    assert index["weight_map"][key] == file
                    seen[key] = f.get_tensor(key)
    assert set(seen) == set(index["weight_map"]) == {*arrays, "empty"}
    assert all(np.array_equal(seen[k], a) for k, a in arrays.items())
    assert json.loads((tmp_path / "c/MANIFEST.json").read_text())["finished"] is True


def test_records_come_back_in_order(tmp_path):
    writer = _core.Writer(str(tmp_path / "c"))
    one, two = writer.put(np.ones(3, np.float32), "one"), writer.put(np.zeros(3, np.float32), "two")
    writer.call("m", 0, 0, 0, STRUCTURE, [one])
    writer.call("m", 0, 0, 1, STRUCTURE, (two,))
    writer.call("m", 1, 1, 0, STRUCTURE, [two])
    writer.call("", 0, 0, 1, STRUCTURE, [two])
    writer.call("rope.cos", 0, 0, 2, json.dumps({"leaves": [""], "tree": {"$": 0}}), [one])
    writer.alias("n", "m")
    writer.note(json.dumps({"kind": "dropped", "where": "m", "reason": "größer"}, ensure_ascii=False))
    for bad in [lambda: writer.call("m", 0, 0, 0, STRUCTURE, [one]), lambda: writer.call("x", 0, 0, 0, STRUCTURE, []),
                lambda: writer.call("x", 0, 0, 0, STRUCTURE, [9]), lambda: writer.call("x", 0, 0, 4, STRUCTURE, [one]),
                lambda: writer.call("x", -1, 0, 0, STRUCTURE, [one]), lambda: writer.call("x", 0, 0, 0, "{", [one]),
                lambda: writer.note("text"), lambda: writer.name("", one), lambda: writer.name("a\0b", one),
                lambda: writer.set_manifest("{}")]:
        with pytest.raises(ValueError):
            bad()
    writer.set_manifest(json.dumps({"format": "porting.capture", "version": 1, "finished": True, "model": {"x": 1}}))
    assert json.loads((tmp_path / "c/MANIFEST.json").read_text())["finished"] is False
    with pytest.raises(ValueError, match="manifest"):
        writer.close('{"format": "something else"}')
    assert not writer.closed
    writer.close()
    manifest = json.loads((tmp_path / "c/MANIFEST.json").read_text())
    assert manifest["finished"] is True and manifest["model"] == {"x": 1}
    reader = _core.Reader(str(tmp_path / "c"))
    calls = reader.calls()
    assert [c[:4] + c[5:] for c in calls] == [("m", 0, 0, 0, (one,)), ("m", 0, 0, 1, (two,)), ("m", 1, 1, 0, (two,)),
                                              ("", 0, 0, 1, (two,)), ("rope.cos", 0, 0, 2, (one,))]
    assert calls[0][0] is calls[1][0] and calls[0][4] is calls[1][4]
    assert reader.full_names() == ["m.in.0", "m.out.0", "m@1.in.0", "out.0", "rope.cos"]
    assert reader.aliases() == [("n", "m")] and "größer" in reader.notes()[0]
    assert np.array_equal(reader.find("n@1.in.0"), np.zeros(3))
    with pytest.raises(_core.LayerNotFoundError, match=r"^Layer not found: m\.in\.1 \(2 modules\); did you mean m\.in\.0\?$"):
        reader.find("m.in.1")
    with pytest.raises(IndexError):
        reader.tensor(2)


def test_close_writes_the_manifest_it_is_given(tmp_path):
    writer = _core.Writer(str(tmp_path / "c"))
    writer.set_manifest(json.dumps({"format": "porting.capture", "version": 1, "finished": False, "model": {"x": 1}}))
    writer.close(json.dumps({"format": "porting.capture", "finished": False, "version": 1, "modules": ["größer"]}))
    manifest = json.loads((tmp_path / "c/MANIFEST.json").read_text())
    assert manifest == {"format": "porting.capture", "finished": True, "version": 1, "modules": ["größer"]}


def test_arrays_outlive_the_reader(tmp_path):
    writer = _core.Writer(str(tmp_path / "c"))
    writer.put(np.arange(100000.0), "k")
    writer.close()
    array = _core.Reader(str(tmp_path / "c")).tensor(0)
    gc.collect()
    assert array.sum() == 99999 * 100000 / 2
    with pytest.raises(ValueError):
        array[0] = 1


def test_bad_paths_and_uses(tmp_path):
    with pytest.raises(FileNotFoundError):
        _core.Reader(str(tmp_path / "none"))
    with pytest.raises(_core.FormatError, match="MANIFEST"):
        _core.Reader(str(tmp_path))
    (tmp_path / "file").write_text("x")
    with pytest.raises(_core.FormatError):
        _core.Reader(str(tmp_path / "file"))
    with pytest.raises(FileExistsError):
        _core.Writer(str(tmp_path))
    with pytest.raises(FileNotFoundError) as e:
        _core.Writer(str(tmp_path / "a/b"))
    assert e.value.filename == str(tmp_path / "a/b")
    writer = _core.Writer(tmp_path / "c")
    with pytest.raises(TypeError):
        writer.put([1.0], "k")
    with pytest.raises(_core.DtypeError):
        writer.put(np.array(["a"]), "k")
    with pytest.raises(TypeError):
        writer.put(np.ones(1), 3)
    writer.add("a", np.ones(1))
    with pytest.raises(FileExistsError):
        writer.name("a", 0)
    writer.close()
    writer.close()
    assert writer.closed and writer.path == str(tmp_path / "c")
    with pytest.raises(_core.ClosedError):
        writer.put(np.ones(1), "k")


def test_threads_share_a_writer(tmp_path):
    writer = _core.Writer(str(tmp_path / "c"), budget_bytes=1 << 20)
    results = {}

    def work(number):
        rng = np.random.default_rng(number)
        arrays = [rng.standard_normal(int(n)).astype(np.float32) for n in rng.integers(1, 60000, 40)]
        results[number] = [(writer.put(a, f"t{number}"), a) for a in arrays]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert writer.stats["peak_waiting_bytes"] <= 1 << 20
    writer.close()
    reader = _core.Reader(str(tmp_path / "c"))
    assert all(np.array_equal(reader.tensor(i), a) for pairs in results.values() for i, a in pairs)
    assert _core.verify(str(tmp_path / "c")) == 160


def test_exit_and_abort_without_close_leave_a_readable_capture(tmp_path):
    code = ("import sys, numpy as np\nfrom porting import _core\nw = _core.Writer(sys.argv[1])\n"
            "w.add('a', np.arange(5.0)); w.flush(); w.add('b', np.ones(3))\n" + "{}")
    for number, ending in enumerate(["", "w.abort()", "import os; os._exit(0)"]):
        path = str(tmp_path / str(number))
        subprocess.run([sys.executable, "-c", code.format(ending), path], check=True)
        reader = _core.Reader(path)
        assert not reader.finished and reader.recovery["reason"]
        assert np.array_equal(reader.find("a"), np.arange(5.0))
        assert _core.repair(path)["records"] == reader.recovery["records"]
        assert _core.Reader(path).finished and _core.Reader(path).recovery is None
        with safe_open(os.path.join(path, "rank00000/seg-00000.safetensors"), "numpy") as f:
            assert np.array_equal(f.get_tensor("a"), np.arange(5.0))


def test_each_of_several_ranks_can_be_closed(tmp_path):
    """Whichever closes first: tensors of both are whole in their files, and a reader says that it reads one process alone."""
    path = str(tmp_path / "two.capture")
    for order in ((0, 1), (1, 0)):
        folder = f"{path}{order[0]}"
        writers = {rank: _core.Writer(folder, rank=rank) for rank in (0, 1)}
        for rank, writer in writers.items():
            writer.add(f"rank{rank}.out.0", np.full(5, rank, "f4"))
        for rank in order:
            writers[rank].close()
            assert writers[rank].closed
        for rank in (0, 1):
            with safe_open(os.path.join(folder, f"rank{rank:05}", "seg-00000.safetensors"), "numpy") as file:
                assert (file.get_tensor(f"rank{rank}.out.0") == rank).all()
        with pytest.raises(_core.UnsupportedError, match="holds the ranks of 2 processes; only captures of one can be read"):
            _core.Reader(folder)
