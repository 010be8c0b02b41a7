"""How many module calls of the two demonstration models C reproduces bit for bit, per CPU capability and thread count.

    python bench/exactness.py [--models minilm smollm2] [--capabilities default avx2 avx512] [--threads 1 2] [--mkldnn on off] [--provider auto]

Each combination is a process of its own, since torch reads ATEN_CPU_CAPABILITY once. The model is captured and checked there.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

CHILD = """
import json, sys, torch
import porting
from porting import demo
name, threads, mkldnn, provider, folder = sys.argv[1:]
torch.set_num_threads(int(threads))
torch.backends.mkldnn.enabled = mkldnn == "on"
model = next(m for m in demo.MODELS if m.folder == name)
pipe = model.load()
args, kwargs = model.arguments(pipe)
porting.ActivationCollector(pipe, folder + "/run.capture")(*args, **kwargs)[1].close()
report = porting.check(folder + "/run.capture", provider=provider)
print(json.dumps([report.num_calls, report.num_checked, report.num_exact, report.num_failed, report.worst_err_scale, report.environment]))
"""


def run(name, capability, threads, mkldnn, provider):
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": capability, "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([sys.executable, "-c", CHILD, name, str(threads), mkldnn, provider, folder], env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{name} {capability} {threads} threads: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["minilm", "smollm2"])
    parser.add_argument("--capabilities", nargs="+", default=["default", "avx2", "avx512"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--mkldnn", nargs="+", default=["on"], choices=["on", "off"])
    parser.add_argument("--provider", default="auto")
    args = parser.parse_args()
    print(f"{'model':<9} {'capability':<11} {'threads':>7} {'mkldnn':>7} {'calls':>6} {'checked':>8} {'bit-exact':>17} {'failed':>7}  worst err/(u s) of the rest  provider")
    for name in args.models:
        for capability in args.capabilities:
            for threads in args.threads:
                for mkldnn in args.mkldnn:
                    calls, checked, exact, failed, worst, environment = run(name, capability, threads, mkldnn, args.provider)
                    rest = "-" if worst is None else f"{worst:.3g}"
                    print(f"{name:<9} {capability:<11} {threads:>7} {mkldnn:>7} {calls:>6} {checked:>8} {exact:>8} ({exact / calls:6.1%}) {failed:>7}  {rest:<27}  {environment['provider']}", flush=True)


if __name__ == "__main__":
    main()
