"""`python -m tests.fuzz --examples 2000`: many random networks, counted by how they ended."""

from __future__ import annotations

import argparse
import random
import sys

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.spec import Case
from tests.fuzz.strategy import cases
from tests.fuzz.tally import Tally


def main(argv: list[str] | None = None) -> int:
    """Run the fuzzer; 0 if every invariant held, 1 with the networks for which one did not."""
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
    tally = Tally()

    @seed(number)
    @settings(
        max_examples=options.examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate] if options.keep_going else [Phase.generate, Phase.shrink],
    )
    @given(cases())
    def fuzz(case: Case) -> None:
        failures = len(tally.failed)
        tally.check(case, go_on=options.keep_going)
        if len(tally.failed) > failures:
            print(f"failed: {[*tally.failed][-1]}\n{case!r}", flush=True)
        if tally.total % 100 == 0:
            print(tally.line(), flush=True)

    try:
        fuzz()
    finally:
        print(f"\n{tally.report()}")
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
