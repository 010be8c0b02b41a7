"""Mutated journals, segments and manifests: a reader, repair and verify end in an answer or a sentence, never in a crash.

PORTING_FUZZ_SECONDS (default 6) bounds the time; PORTING_FUZZ_SEED (default 0) chooses the mutations. A mutated record gets
a good checksum half of the time, so that the mutation reaches what comes after it.
"""
import json
import os
import random
import shutil
import struct
import time

import numpy as np
import pytest
import xxhash
from porting import _core

FILES = ["rank00000/journal.bin", "rank00000/seg-00000.safetensors", "MANIFEST.json"]
VALUES = [0, 1, 7, 63, 64, 127, 128, 255, 2**16, 2**28, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1]


@pytest.fixture(scope="module")
def captures(tmp_path_factory):
    made = []
    for close in (True, False):
        path = tmp_path_factory.mktemp("fuzz") / "c"
        writer = _core.Writer(str(path))
        structure = json.dumps({"leaves": ["0", "1.key"]})
        for k in range(4):
            ids = [writer.put(np.arange(n + k, dtype=np.float32), f"m@{k}") for n in (3, 20)]
            writer.call("m", k, k, k % 2, structure, ids)
        writer.alias("n", "m")
        writer.note('{"kind": "warning"}')
        writer.add("x", np.zeros((2, 3), np.int8))
        writer.close() if close else writer.abort()
        made.append(path)
    return made


def records(journal):
    at = 16
    while at + 16 <= len(journal):
        size = struct.unpack_from("<I", journal, at)[0]
        yield at, size
        at += 16 + size


def mutate(rng, data, is_journal):
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        at = rng.randrange(len(data))
        how = rng.randrange(5)
        if how == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            width = rng.choice([1, 2, 4, 8])
            data[at:at + width] = struct.pack("<Q", rng.choice(VALUES))[:width]
        elif how == 2:
            del data[at:at + rng.randrange(1, 40)]
        elif how == 3:
            data[at:at] = data[at:at + rng.randrange(1, 80)]
        else:
            data[at:] = data[at:at + rng.randrange(len(data))]
        if not data:
            data = bytearray(b"x")
    if is_journal and rng.random() < 0.5:
        for at, size in records(bytes(data)):
            if at + 16 + size <= len(data):
                checksum = xxhash.xxh3_128_intdigest(bytes(data[at:at + 8] + data[at + 16:at + 16 + size])) & (2**64 - 1)
                struct.pack_into("<Q", data, at + 8, checksum)
    return bytes(data)


def read_everything(path):
    reader = _core.Reader(path)
    for i in range(reader.num_tensors):
        reader.tensor(i).tobytes()
        reader.info(i)
    for name in reader.full_names():
        reader.find(name)
    return reader.calls(), reader.names(), reader.aliases(), reader.notes(), reader.recovery


def test_mutated_captures_never_crash(captures, tmp_path):
    rng = random.Random(int(os.environ.get("PORTING_FUZZ_SEED", "0")))
    until = time.monotonic() + float(os.environ.get("PORTING_FUZZ_SECONDS", "6"))
    opened = refused = 0
    while time.monotonic() < until:
        source = rng.choice(captures)
        path = tmp_path / "c"
        shutil.copytree(source, path)
        file = rng.choice(FILES[:1] * 6 + FILES[1:])
        (path / file).write_bytes(mutate(rng, (path / file).read_bytes(), file.endswith("journal.bin")))
        for work in (read_everything, _core.verify, _core.repair, read_everything):
            try:
                work(str(path))
                opened += 1
            except (_core.PortingError, OSError) as e:
                assert str(e)
                refused += 1
        shutil.rmtree(path)
    assert opened > 0 and refused > 0
