"""What checking every module of SmolLM2 costs, in forward passes of the same run.

    python bench/check.py [--tokens 8] [--repeats 3] [--level module op] [--clock wall|processor]

The model generates (a prefill and decode steps), is captured, and the capture is checked; each time is the least of the repeats. The forward passes are PyTorch's, of
the whole generation without any hook. `check` opens the capture, reads and parses its programs, runs them and compares every output.
Processor time is of all threads together; other work on the machine hardly shows in it.
"""
import argparse
import os
import tempfile
import time

import porting
import torch
from porting import demo

CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


def least(repeats, function, clock):
    """Seconds of the fastest of some runs."""
    best = float("inf")
    for _ in range(repeats):
        started = clock()
        function()
        best = min(best, clock() - started)
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--level", nargs="+", choices=("module", "op"), default=["module", "op"])
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    args = parser.parse_args()
    clock = CLOCKS[args.clock]
    pipe = demo.smollm2_pipeline()
    inputs = pipe.tokenizer(demo.PROMPT, return_tensors="pt")
    options = {"max_new_tokens": args.tokens, "min_new_tokens": args.tokens, "do_sample": False, "pad_token_id": pipe.tokenizer.eos_token_id}

    def generate():
        with torch.no_grad():
            pipe.model.generate(**inputs, **options)

    generate()
    forward = least(args.repeats, generate, clock)
    print(f"SmolLM2-135M, {args.tokens} tokens, {torch.get_num_threads()} threads, {args.clock} time; forward passes {forward:.2f} s")
    for level in args.level:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "run.capture")
            with porting.ActivationCollector(pipe, path, level=level):
                generate()
            for mode in ("isolated", "chained") if level == "module" else ("isolated",):
                reports = []
                seconds = least(args.repeats, lambda reports=reports, path=path, level=level, mode=mode: reports.append(porting.check(path, level=level, mode=mode)), clock)
                print(f"check level={level:<6} mode={mode:<8} {seconds:6.2f} s = {seconds / forward:5.2f} x forward; {reports[-1].summary}", flush=True)


if __name__ == "__main__":
    main()
