"""Captures made to do harm: every one is refused with a sentence; the same builder makes one that opens."""
import json
import os
import struct

import numpy as np
import pytest
import xxhash
from porting import _core

MANIFEST = {"format": "porting.capture", "version": 1, "finished": False}
HEADER = 56
F32 = 11


def record(kind, payload, zero=b"\0\0\0"):
    frame = struct.pack("<IB", len(payload), kind) + zero
    checksum = xxhash.xxh3_128_intdigest(frame + payload) & (2**64 - 1)
    return frame + struct.pack("<Q", checksum) + payload


def string(i, text):
    return record(1, struct.pack("<I", i) + (text if isinstance(text, bytes) else text.encode()))


def tensor(i=0, segment=0, offset=64, nbytes=16, key=0, dtype=F32, shape=(4,), strides=None, ndim=None, zero=0):
    strides = [1] * len(shape) if strides is None else strides
    head = struct.pack("<IIQQQQIBBH", i, segment, offset, nbytes, 0, 0, key, dtype, len(shape) if ndim is None else ndim, zero)
    return record(2, head + struct.pack(f"<{len(shape)}q", *shape) + struct.pack(f"<{len(strides)}q", *strides))


def call(module=0, structure=1, ids=(0,), phase=0, count=None):
    head = struct.pack("<IIIIII", module, 0, 0, phase, structure, len(ids) if count is None else count)
    return record(3, head + struct.pack(f"<{len(ids)}I", *ids))


def build(path, *records, segment=None, manifest=None, journal=None, header=HEADER):
    rank = path / "rank00000"
    rank.mkdir(parents=True)
    (path / "MANIFEST.json").write_text(json.dumps(MANIFEST) if manifest is None else manifest)
    data = b"PORTJRNL" + struct.pack("<II", 1, 0) + b"".join(records) if journal is None else journal
    (rank / "journal.bin").write_bytes(data)
    body = struct.pack("<Q", header) + b"{}".ljust(HEADER) + bytes(1024) if segment is None else segment
    (rank / "seg-00000.safetensors").write_bytes(body)
    return str(path)


STRUCTURE = string(1, '{"leaves": ["0"]}')
GOOD = [string(0, "m"), STRUCTURE, tensor(), call()]


def test_the_builder_builds_captures(tmp_path):
    reader = _core.Reader(build(tmp_path / "c", *GOOD, record(200, b"from the future"), record(4, struct.pack("<II", 0, 0))))
    assert reader.full_names() == ["m.in.0", "m"] and np.array_equal(reader.find("m"), np.zeros(4))


HOSTILE = {
    "string ids with a gap": [string(1, "x")],
    "string id twice": [string(0, "x"), string(0, "y")],
    "string not UTF-8": [string(0, b"\xff\xfe")],
    "string with NUL": [string(0, b"a\0b")],
    "string without id": [record(1, b"\0")],
    "tensor id twice": [*GOOD[:3], tensor(offset=128)],
    "tensor ids with a gap": [*GOOD[:2], tensor(i=1)],
    "tensor key out of range": [*GOOD[:2], tensor(key=9)],
    "tensor of unknown dtype": [*GOOD[:2], tensor(dtype=16)],
    "tensor of 17 dimensions": [*GOOD[:2], tensor(shape=(1,) * 17, nbytes=4)],
    "tensor with more dimensions than bytes": [*GOOD[:2], tensor(ndim=3)],
    "tensor with a nonzero zero": [*GOOD[:2], tensor(zero=1)],
    "shape and bytes differ": [*GOOD[:2], tensor(nbytes=20)],
    "negative shape": [*GOOD[:2], tensor(shape=(-4,))],
    "shape that overflows": [*GOOD[:2], tensor(shape=(2**62, 4), nbytes=0)],
    "shape that overflows to fit": [*GOOD[:2], tensor(shape=(2**32, 2**32, 4), nbytes=16)],
    "zero hides an overflow": [*GOOD[:2], tensor(shape=(0, 2**62, 2**62), nbytes=0)],
    "offset in the header": [*GOOD[:2], tensor(offset=0)],
    "offset not aligned": [*GOOD[:2], tensor(offset=68)],
    "offset overflows": [*GOOD[:2], tensor(offset=2**64 - 64, shape=(2**30,), nbytes=2**32)],
    "tensors overlap": [*GOOD[:3], tensor(i=1, offset=64)],
    "segment from nowhere": [*GOOD[:2], tensor(segment=7)],
    "segment number huge": [*GOOD[:2], tensor(segment=2**32 - 1)],
    "second segment before the first is sealed": [*GOOD[:3], tensor(i=1, segment=1)],
    "call of an unknown tensor": [*GOOD[:3], call(ids=(5,))],
    "call of an unknown module": [*GOOD[:3], call(module=44)],
    "call with a huge count": [*GOOD[:3], call(count=2**32 - 1)],
    "call with phase 4": [*GOOD[:3], call(phase=4)],
    "call with bytes after the phase": [*GOOD[:3], call(phase=1 << 8)],
    "structure is no JSON": [*GOOD[:3], call(structure=0)],
    "structure with other leaves": [*GOOD[:3], call(ids=(0, 0))],
    "structure nested without end": [string(0, "m"), string(1, "[" * 100000), tensor(), call()],
    "structure with a number for a path": [string(0, "m"), string(1, '{"leaves": [1]}'), tensor(), call()],
    "name of nothing": [*GOOD, record(4, struct.pack("<II", 0, 9))],
    "name cut short": [*GOOD, record(4, struct.pack("<I", 0))],
    "alias of nothing": [*GOOD, record(5, struct.pack("<II", 9, 0))],
    "note not UTF-8": [record(6, b"\xc0")],
    "seal of a segment that is not open": [record(7, struct.pack("<IQ", 0, 64))],
    "seal with another size": [*GOOD, record(7, struct.pack("<IQ", 0, 99))],
    "end with another count": [*GOOD, record(8, struct.pack("<Q", 77))],
    "end without seal": [*GOOD, record(8, struct.pack("<Q", 4))],
    "something after the end": [string(0, "m"), record(8, struct.pack("<Q", 1)), string(1, "x")],
    "unknown kind that must be known": [record(9, b"")],
    "kind 0": [record(0, b"")],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_records_are_refused(tmp_path, name):
    with pytest.raises(_core.FormatError) as e:
        _core.Reader(build(tmp_path / "c", *HOSTILE[name]))
    assert 20 < len(str(e.value)) < 768


@pytest.mark.parametrize("header", [0, 55, 57, 2**63, 2**64 - 1, 2**64 - 8, 100_000_056])
def test_hostile_segment_headers(tmp_path, header):
    with pytest.raises(_core.FormatError):
        _core.Reader(build(tmp_path / "c", *GOOD, header=header))


def test_a_header_larger_than_the_file_ends_the_capture(tmp_path):
    reader = _core.Reader(build(tmp_path / "c", *GOOD, header=2**20 - 8))
    assert reader.num_tensors == 0 and reader.calls() == [] and "seg-00000" in reader.recovery["reason"]


@pytest.mark.parametrize("journal", [b"", b"PORTJRNL", b"PORTJRN?" + bytes(8), b"PORTJRNL\2\0\0\0\0\0\0\0", b"PORTJRNL\1\0\0\0\1\0\0\0"])
def test_hostile_journal_heads(tmp_path, journal):
    with pytest.raises(_core.FormatError):
        _core.Reader(build(tmp_path / "c", journal=journal))


@pytest.mark.parametrize("size", [2**32 - 1, 2**28 + 1, 2**28, 10**6])
def test_records_larger_than_the_journal_end_it(tmp_path, size):
    broken = struct.pack("<IB3xQ", size, 1, 0) + b"x" * 100
    reader = _core.Reader(build(tmp_path / "c", *GOOD, broken))
    assert len(reader.calls()) == 1 and reader.recovery["dropped_bytes"] == len(broken)


@pytest.mark.parametrize("manifest", [
    "", "[]", "{}", "[" * 100000, '{"format": "other", "version": 1, "finished": false}',
    '{"format": "porting.capture", "version": 2, "finished": false}', '{"format": "porting.capture", "version": "1"}',
    '{"format": "porting.capture", "version": 1, "finished": 0}', '{"format": "porting.capture", "version": 1} x',
    '{"format": "porting.capture", "version": 1e0, "finished": false}'])
def test_hostile_manifests(tmp_path, manifest):
    with pytest.raises(_core.FormatError):
        _core.Reader(build(tmp_path / "c", *GOOD, manifest=manifest))


def test_a_manifest_that_says_finished_needs_the_end(tmp_path):
    records = [string(0, "m"), STRUCTURE, tensor(offset=256), call()]
    path = build(tmp_path / "c", *records, manifest=json.dumps({**MANIFEST, "finished": True}), header=248)
    with pytest.raises(_core.FormatError, match="repair"):
        _core.Reader(path)
    assert _core.repair(path)["records"] == 4 and _core.Reader(path).finished


def test_directories_in_place_of_files(tmp_path):
    for name in ["MANIFEST.json", "rank00000/journal.bin", "rank00000/seg-00000.safetensors"]:
        path = tmp_path / name.replace("/", "_")
        build(path, *GOOD)
        (path / name).unlink()
        (path / name).mkdir()
        with pytest.raises((OSError, _core.FormatError)):
            _core.Reader(str(path))


@pytest.mark.parametrize("name", ["MANIFEST.json", "rank00000/journal.bin", "rank00000/seg-00000.safetensors"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path, name):
    path = build(tmp_path / "c", *GOOD)
    (tmp_path / "c" / name).unlink()
    os.mkfifo(tmp_path / "c" / name)
    with pytest.raises(OSError, match="cannot tell the size"):
        _core.Reader(path)


def unfinished(path):
    writer = _core.Writer(path)
    writer.add("m", np.arange(4.0))
    writer.abort()
    return str(path)


@pytest.mark.parametrize("name", ["MANIFEST.json.tmp", "model.safetensors.index.json.tmp"])
def test_repair_does_not_write_where_a_link_leads(tmp_path, name):
    treasure = tmp_path / "treasure"
    treasure.write_text("mine")
    path = unfinished(tmp_path / "c")
    (tmp_path / "c" / name).symlink_to(treasure)
    _core.repair(path)
    assert treasure.read_text() == "mine"
    assert _core.Reader(path).finished


@pytest.mark.parametrize("name", ["rank00000/journal.bin", "rank00000/seg-00000.safetensors"])
def test_repair_refuses_files_that_are_links(tmp_path, name):
    path = unfinished(tmp_path / "c")
    moved = tmp_path / "elsewhere"
    (tmp_path / "c" / name).rename(moved)
    (tmp_path / "c" / name).symlink_to(moved)
    before = moved.read_bytes()
    with pytest.raises(OSError, match="cannot open"):
        _core.repair(path)
    assert moved.read_bytes() == before
    assert _core.Reader(path).num_tensors == 1  # reading through a link is fine
