"""How often a verdict is wrong: right ports that are blamed, wrong ports that are passed.

    OMP_WAIT_POLICY=PASSIVE python bench/mutations.py [--seeds 3] [--tol auto]

A larger sweep of what tests/compare/test_mutation_sweep.py runs: every op x shape x dtype x kind of input x seed, the reference real torch, right ports by
other orders of summing, other libraries, other threads and float64 rounded once, wrong ones by a seeded fault. Prints each wrong verdict and the counts.
"""
import argparse
import collections
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "compare"))

import mutation_corpus as corpus


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tol", default="auto")
    args = parser.parse_args()
    counts, bands, begin = collections.Counter(), collections.Counter(), time.perf_counter()
    for case in corpus.cases(inputs=corpus.INPUTS, seeds=range(args.seeds)):
        for name, port in case.right.items():
            found = corpus.judge(case, port, args.tol)
            counts["right"] += 1
            bands[found.band] += 1
            if not found.passed:
                counts["blamed"] += 1
                print(f"blamed: {case.name}: {name}: {found.reason}; {found.verdict.allowed if found.verdict else ''}")
        for name, port in corpus.faults(case).items():
            found = corpus.judge(case, port, args.tol)
            counts["wrong"] += 1
            if found.passed:
                counts["passed"] += 1
                print(f"passed: {case.name}: {name}: {found.band}: {found.reason}; {found.verdict.allowed}")
    print(f"tol={args.tol}: {counts['right']} right ports, {counts['blamed']} blamed ({', '.join(f'{n} {band}' for band, n in bands.most_common())}); "
          f"{counts['wrong']} wrong ports, {counts['passed']} passed; {time.perf_counter() - begin:.0f} s")
    return 1 if counts["blamed"] or counts["passed"] else 0


if __name__ == "__main__":
    sys.exit(main())
