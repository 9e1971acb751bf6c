"""Sixty random networks, the same each time: every invariant holds, few are refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.spec import Case, LayerSpec, NetSpec, StageSpec
from tests.fuzz.strategy import cases
from tests.fuzz.tally import Tally


@pytest.mark.parametrize("number", [0, 1, 2])
def test_random_networks(number: int) -> None:
    torch.set_num_threads(1)
    tally = Tally()

    @seed(number)
    @settings(
        max_examples=20,
        phases=[Phase.generate],  # `python -m tests.fuzz` shrinks; that takes minutes
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(cases())
    def fuzz(case: Case) -> None:
        tally.check(case)

    fuzz()
    assert tally.counts["rewritten"] >= 15, tally.report()
    assert tally.share_refused < 0.2, tally.report()


def test_a_spec_prints_as_what_builds_it() -> None:
    stage = StageSpec(kind="dense", depth=3)
    case = Case(net=NetSpec(layers=LayerSpec(dims=1), stages=(stage,)), options={"k": 4})
    assert eval(repr(case)) == case
