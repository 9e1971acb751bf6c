"""Some random networks, the same each time: every invariant holds, few are refused."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.spec import Case, LayerSpec, NetSpec, StageSpec
from tests.fuzz.strategy import cases
from tests.fuzz.tally import Tally

#: As many as can run at once.
PARTS = 2
EACH = 8


@pytest.mark.parametrize("number", range(PARTS))
def test_random_networks(
    number: int, tmp_path_factory: pytest.TempPathFactory, worker_id: str
) -> None:
    torch.set_num_threads(1)
    tally = Tally()

    @seed(number)
    @settings(
        max_examples=EACH,
        phases=[Phase.generate],  # `python -m tests.fuzz` shrinks; that takes minutes
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(cases())
    def fuzz(case: Case) -> None:
        tally.check(case)

    fuzz()
    # Parts may run in processes of their own, so that no test comes after all; the last to end
    # judges them all. The folder is that of one run of pytest.
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "random_networks"
    tallies = _tallies_with(folder, number, tally)
    if len(tallies) == PARTS:
        whole = Tally.of_parts(tallies)
        assert whole.total == PARTS * EACH, whole.report()
        assert whole.counts["rewritten"] >= 11, whole.report()
        assert whole.counts["advised"] >= 1, whole.report()
        assert whole.share_refused < 0.1, whole.report()


def _tallies_with(folder: Path, number: int, tally: Tally) -> list[Tally]:
    """The tallies of all parts that have ended, this one with them."""
    folder.mkdir(exist_ok=True)
    unfinished = folder / f"{number}.part"
    unfinished.write_bytes(pickle.dumps(tally))
    os.replace(unfinished, folder / f"{number}.pkl")  # another process sees it whole or not at all
    return [pickle.loads(path.read_bytes()) for path in sorted(folder.glob("*.pkl"))]


def test_a_spec_prints_as_what_builds_it() -> None:
    stage = StageSpec(kind="dense", depth=3)
    case = Case(net=NetSpec(layers=LayerSpec(dims=1), stages=(stage,)), options={"k": 4})
    assert eval(repr(case)) == case
