"""`python -m tests.fuzz --examples 2000`: many random networks, counted by how they ended."""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback
from collections import Counter

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.invariants import Outcome, check
from tests.fuzz.spec import Case
from tests.fuzz.strategy import cases


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--examples", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=None, help="a random one, printed, by default")
    parser.add_argument(
        "--keep-going", action="store_true", help="list all failures instead of shrinking the first"
    )
    options = parser.parse_args(argv)
    number = random.randrange(2**32) if options.seed is None else options.seed
    torch.set_num_threads(1)
    print(f"seed {number}, {options.examples} examples", flush=True)
    counts: Counter[str] = Counter()
    refusals: Counter[str] = Counter()
    failures: dict[str, tuple[Case, str, int]] = {}
    start = time.monotonic()

    @seed(number)
    @settings(
        max_examples=options.examples,
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate] if options.keep_going else [Phase.generate, Phase.shrink],
    )
    @given(cases())
    def fuzz(case: Case) -> None:
        try:
            outcome = check(case)
        except Exception as error:
            if not options.keep_going:
                raise
            outcome = Outcome("failed")
            text = f"{type(error).__name__}: {error}"[:160]
            known = failures.get(text)
            small = known is None or len(repr(case)) < len(repr(known[0]))
            kept = (case, traceback.format_exc()) if small or known is None else known[:2]
            failures[text] = (*kept, (known[2] if known else 0) + 1)
            if known is None:
                print(f"{text}\n{case!r}", flush=True)
        counts[outcome.kind] += 1
        if outcome.message:
            refusals[f"{outcome.kind}: {outcome.message[:150]}"] += 1
        total = sum(counts.values())
        if total % 100 == 0:
            print(f"{total} after {time.monotonic() - start:.0f} s: {dict(counts)}", flush=True)

    try:
        fuzz()
    finally:
        print(f"\n{sum(counts.values())} networks: {dict(counts.most_common())}")
        for text, n in refusals.most_common(20):
            print(f"  {n:4}  {text}")
    for text, (case, trace, n) in failures.items():
        print(f"\n{n} times {text}\n{case!r}\n{trace}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
