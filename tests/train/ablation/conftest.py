"""A grid of made-up runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlawrap.train.ablation import variant_costs
from rlawrap.train.ablation.grid import GridRun, make_grid
from rlawrap.train.ablation.variant_costs import VariantCost
from rlawrap.train.config.train_config import TrainConfig
from tests.train.made_up_runs import write_run

TOP1 = {
    ("plain", 0): [60, 70],
    ("plain", 1): [75, 72],
    ("conv-output-k4", 0): [71, 73],
    ("conv-output-k4", 1): [70, 73],
    ("conv-output-k8", 0): [60, 74],
}


@pytest.fixture(name="grid")
def made_up_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[GridRun]:
    """Three variants with two seeds; one run of the last is not finished."""

    def cost(config: TrainConfig, *, seconds: float = 1.0) -> VariantCost:
        k = config.model_kwargs.get("k", 0)
        return VariantCost(params=1000 + k, macs=10**6 * (10 + k), latency_ms=1.5 + k)

    monkeypatch.setattr(variant_costs, "measure", cost)
    for (name, seed), top1 in TOP1.items():
        write_run(tmp_path / name / f"seed{seed}", top1)
    write_run(tmp_path / "conv-output-k8" / "seed1", [50], state="stopped", epochs=2)
    return make_grid(TrainConfig(output=str(tmp_path)), ks=[0, 4, 8], seeds=2)
