"""What the finished runs of a grid say."""

from __future__ import annotations

from rlawrap.train.ablation import variant_costs
from rlawrap.train.ablation.grid import GridRun
from rlawrap.train.ablation.outcomes import Outcome, collect
from rlawrap.train.records.runs import RunRecord, read_run


def records(grid: list[GridRun]) -> list[tuple[GridRun, RunRecord]]:
    return [(run, read_run(run.folder.path)) for run in grid if run.finished]


def outcomes(grid: list[GridRun]) -> list[Outcome]:
    costs = {run.variant: variant_costs.measure(run.config) for run in grid}
    return collect(records(grid), costs)
