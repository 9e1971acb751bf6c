"""What a hidden state costs: `python -m benchmarks.speed` measures and writes docs/performance.md.

Each cell of the matrix is measured in a process of its own; results go into a JSON file one by one
and a rerun goes on where it stopped. Targets come first. Examples:

    python -m benchmarks.speed                                the whole matrix, about an hour
    python -m benchmarks.speed --quick                        a few cells with few rounds
    python -m benchmarks.speed --only resnet50 --k 32 --batch 8 --mode training
    python -m benchmarks.speed --device cuda --results cuda.json
    python -m benchmarks.speed --report                       the page alone, from what is there
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.speed import cells as matrix
from benchmarks.speed.profiling import profile
from benchmarks.speed.report import write_report
from benchmarks.speed.running import ROOT, Conditions, Limits, run

RESULTS = ROOT / "docs" / "performance" / "results.json"


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", choices=matrix.NETS, metavar="NET")
    parser.add_argument("--k", nargs="+", type=int)
    parser.add_argument("--batch", nargs="+", type=int)
    parser.add_argument("--mode", nargs="+", choices=matrix.MODES)
    parser.add_argument("--treatment", nargs="+", choices=matrix.TREATMENTS)
    parser.add_argument("--heap", nargs="+", choices=("kept", "usual", "mapped"))
    parser.add_argument("--targets", action="store_true", help="only the rows with a target")
    parser.add_argument("--all", action="store_true", help="every treatment everywhere: hours")
    parser.add_argument("--quick", action="store_true", help="targets, kept heap, 3 rounds")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--seconds", type=float, default=Limits.seconds, help="a group's rounds")
    parser.add_argument("--target-seconds", type=float, default=Limits.target_seconds)
    parser.add_argument("--rounds", type=int, help="exactly so many, whatever they take")
    parser.add_argument("--again", action="store_true", help="what failed before, too")
    parser.add_argument("--jobs", type=int, default=1, help="at a time; targets always alone")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="then begin no more")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--no-profile", action="store_true", help="do not profile the slowest")
    parser.add_argument("--no-report", action="store_true", help="leave the page as it is")
    parser.add_argument("--list", action="store_true", help="name the cells, measure nothing")
    parser.add_argument("--report", action="store_true", help="write the page, measure nothing")
    return parser.parse_args()


def chosen(given: argparse.Namespace) -> list[matrix.Cell]:
    """The cells that the options name."""
    cells = matrix.target_cells()
    if given.all:
        cells += matrix.matrix_cells() + matrix.every_cell()
    elif not (given.targets or given.quick):
        cells += matrix.matrix_cells()
    heaps = given.heap or (["kept", "mapped"] if given.quick or given.device == "cuda" else None)
    wanted = {
        "net": given.only,
        "k": given.k,
        "batch": given.batch,
        "mode": given.mode,
        "treatment": given.treatment,
        "heap": heaps,
    }
    return matrix.matching(matrix.distinct(cells), wanted)


def main() -> None:
    given = options()
    cells = chosen(given)
    if given.list:
        print("\n".join(cell.key for cell in cells))
        return
    if not given.report:
        limits = Limits(seconds=given.seconds, target_seconds=given.target_seconds)
        if given.quick:
            limits = Limits(seconds=0, target_seconds=0, processes=1, least=3, most=3)
        if given.rounds:
            exactly = {"least": given.rounds, "most": given.rounds}
            limits = Limits(seconds=0, target_seconds=0, processes=1, **exactly)
        where = {"size": given.size, "threads": given.threads, "device": given.device}
        rest = {"jobs": given.jobs, "minutes": given.minutes, "again": given.again}
        run(cells, limits, given.results, Conditions(**where, **rest))
        if not given.no_profile:
            profile(given.results, **where)
    if not given.no_report:
        write_report(given.results)


if __name__ == "__main__":
    main()
