"""kill -9 at random moments, and a disk that is full: what was committed stays readable."""
import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from porting import _core

WRITE_FOREVER = """
import sys, json, numpy as np
from porting import _core
path, seed = sys.argv[1], int(sys.argv[2])
structure = json.dumps({"leaves": ["0"]})
rng = np.random.default_rng(seed)
writer = _core.Writer(path, budget_bytes=1 << 20, segment_bytes=1 << 20)
k = 0
while True:
    array = np.full(int(rng.integers(1, 20000)), k, np.float32)
    writer.call("m", k, k, 0, structure, [writer.put(array, f"m@{k}")])
    k += 1
    if k % 50 == 0:
        writer.flush()
        print(k, flush=True)
"""


@pytest.mark.parametrize("seed", range(12))
def test_kill_at_a_random_moment(tmp_path, seed):
    path = str(tmp_path / "c")
    child = subprocess.Popen([sys.executable, "-c", WRITE_FOREVER, path, str(seed)], stdout=subprocess.PIPE, text=True)
    child.stdout.readline()  # the first 50 are in the files
    time.sleep(random.Random(seed).random() * 0.05)
    child.send_signal(signal.SIGKILL)
    committed = [50] + [int(line) for line in child.stdout.read().split("\n")[:-1]]
    child.wait()
    reader = _core.Reader(path)
    calls = reader.calls()
    assert not reader.finished and len(calls) >= committed[-1]
    sizes = np.random.default_rng(seed)
    for k, call in enumerate(calls):
        array = reader.tensor(call[5][0])
        assert call[1] == k and array.shape == (sizes.integers(1, 20000),) and (array == k).all()
    assert _core.verify(path) == reader.num_tensors
    assert _core.repair(path)["records"] == reader.recovery["records"]
    again = _core.Reader(path)
    assert again.finished and again.calls() == calls and _core.verify(path) == reader.num_tensors
    index = json.load(open(os.path.join(path, "model.safetensors.index.json")))
    assert len(index["weight_map"]) == reader.num_tensors


LIMITED = """
import sys, errno, resource, signal, numpy as np
from porting import _core
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
writer = _core.Writer(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, 4 << 20))
stored = 0
try:
    while stored < 1000:
        writer.add(f"t{stored}", np.full(50000, stored, np.float32))
        stored += 1
        if stored % 5 == 0:
            writer.flush()
except OSError as e:
    assert e.errno == errno.EFBIG and e.filename == sys.argv[1], e
    print("put", flush=True)
try:
    writer.close()
except OSError as e:
    assert e.errno == errno.EFBIG
    print("close", flush=True)
writer.close()
assert writer.closed
"""


def test_a_full_disk_is_reported_and_loses_nothing(tmp_path):
    path = str(tmp_path / "c")
    out = subprocess.run([sys.executable, "-c", LIMITED, path], check=True, stdout=subprocess.PIPE, text=True).stdout
    assert out.split() == ["put", "close"]
    reader = _core.Reader(path)
    names = reader.full_names()
    assert not reader.finished and 10 <= len(names) < 25
    assert all((reader.find(name) == int(name[1:])).all() for name in names)
    assert _core.repair(path)["records"] > 0 and _core.verify(path) == len(names)


def test_no_limit_no_error(tmp_path):
    """The program above, with room enough, reports nothing."""
    code = LIMITED.replace("4 << 20", "400 << 20").replace("1000", "30")
    out = subprocess.run([sys.executable, "-c", code, str(tmp_path / "c")], check=True, stdout=subprocess.PIPE, text=True).stdout
    assert out == "" and _core.Reader(str(tmp_path / "c")).finished

