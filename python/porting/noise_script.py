"""`porting capture --noise`: the script runs again in processes of its own, and how far its models are from themselves is stored in their captures.

One process runs each module again with other threads and another batch (`noising.Meter`); one captures the whole run with another
ATEN_CPU_CAPABILITY, which is chosen when torch is loaded. What they print is not shown.
"""
import glob
import json
import os
import subprocess
import sys
import tempfile

from . import noise, runner
from ._core import PortingError
from .capture import open as open_capture


class MeterWatch(runner.Watch):
    """A watch that puts a meter, not a collector, on each root."""

    def _adopt(self, root):
        from .modules import find_roots
        from .noising import MAX_CALLS, Meter

        meter = Meter(find_roots(root, None), MAX_CALLS)
        meter.__enter__()
        self.captures.append(runner.RootCapture(type(root).__name__, "", meter))

    def close(self, error=None):
        for capture in self.captures:
            capture.collector.__exit__()


def measure_script(script, arguments, paths):
    """Runs the script again and adds to the captures at `paths`, which are of its roots in their order. Returns sentences about what was done or went wrong."""
    sentences = []
    with tempfile.TemporaryDirectory(prefix="porting-") as folder:
        command = [sys.executable, "-m", "porting.noise_script", folder, script, *arguments]
        sentences += _run(command, {}, "the script with other threads and batches")
        found = [noise.load(file) for file in sorted(glob.glob(os.path.join(folder, "*.json")))]
        with open_capture(paths[0]) as capture:
            now = str(capture.environment.get("torch", {}).get("capability", ""))
        other = "avx2" if "512" in now else "default"
        again = os.path.join(folder, "again.capture")
        command = [sys.executable, "-m", "porting", "capture", "-o", again, "--program", "none", "--weights", "none", script, *arguments]
        sentences += _run(command, {"ATEN_CPU_CAPABILITY": other}, f"the script with ATEN_CPU_CAPABILITY={other}")
        others = sorted(glob.glob(os.path.join(folder, "again*.capture")), key=os.path.getmtime)
        for i, path in enumerate(paths):
            sentences.append(_store(path, found[i] if i < len(found) else None, others[i] if i < len(others) else None, f"ATEN_CPU_CAPABILITY={other}"))
    return sentences


def _run(command, variables, what):
    done = subprocess.run(command, env={**os.environ, **variables}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode == 0:
        return []
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return [f"noise: {what} ended with {done.returncode}: {last}"]


def _store(path, isolated, again, setting):
    """Adds what was measured to one capture; a sentence about it."""
    from .noising import difference, store

    total = noise.Noise()
    with open_capture(path) as capture:
        if isolated is not None:
            total.merge(isolated)
        if again is not None:
            with open_capture(again) as other:
                if list(other.modules) == list(capture.modules):
                    total.merge(difference(capture, other, setting))
        if not total.settings:
            return f"noise: {os.path.basename(path)}: nothing could be measured"
        store(total, capture)
    worst = max((spread.max_ulp for spread in total.isolated.values()), default=0.0)
    return f"noise: {os.path.basename(path)}: {len(total.isolated)} outputs with {', '.join(total.settings)}; up to {worst:.3g} ulp"


def main(argv):
    """`python -m porting.noise_script FOLDER SCRIPT ARGUMENT...`: writes FOLDER/<number of the root>.json."""
    folder, script, *arguments = argv
    watch = MeterWatch(os.path.join(folder, "unused"), {})
    code, _ = runner.run_script(script, arguments, os.path.join(folder, "unused"), {}, watch)
    for i, capture in enumerate(watch.captures):
        with open(os.path.join(folder, f"{i:05d}.json"), "w", encoding="utf-8") as file:
            file.write(capture.collector.noise.to_json())
    if watch.troubles:
        raise PortingError(json.dumps(watch.troubles))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
