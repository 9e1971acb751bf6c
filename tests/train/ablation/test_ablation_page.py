"""The tables of docs/ablation.md follow from the figures that lie beside it."""

from __future__ import annotations

import csv
from pathlib import Path

from rlawrap.train.ablation.grid import Variant
from rlawrap.train.ablation.outcomes import Outcome, markdown_table
from rlawrap.train.ablation.paired import compare, paired_table
from rlawrap.train.ablation.variant_costs import VariantCost

DOCS = Path(__file__).parents[3] / "docs"


def read(name: str) -> list[dict[str, str]]:
    with (DOCS / "ablation" / name).open(newline="") as file:
        return list(csv.DictReader(file))


def test_table_follows_from_the_csv() -> None:
    rows = read("results.csv")
    plain = {row["seed"]: float(row["last_top1"]) for row in rows if row["k"] == "0"}
    outcomes = []
    for k in dict.fromkeys(row["k"] for row in rows):
        own = [row for row in rows if row["k"] == k]
        first = own[0]
        last = tuple(float(row["last_top1"]) for row in own)
        gain = tuple(float(row["last_top1"]) - plain[row["seed"]] for row in own)
        outcomes.append(
            Outcome(
                variant=Variant(k=int(k), cell=first["cell"], source=first["source"]),
                cost=VariantCost(
                    params=int(first["params"]),
                    macs=int(first["macs"]),
                    latency_ms=float(first["latency_ms"]),
                ),
                seeds=tuple(int(row["seed"]) for row in own),
                last=last,
                best=tuple(float(row["best_top1"]) for row in own),
                top5=tuple(float(row["last_top5"]) for row in own),
                gain=gain if k != "0" else (),
            )
        )
    assert markdown_table(outcomes) in (DOCS / "ablation.md").read_text(encoding="utf-8")


def test_differences_follow_from_the_csv() -> None:
    figures: dict[str, dict[int, float]] = {}
    for row in read("results.csv"):
        variant = Variant(k=int(row["k"]), cell=row["cell"], source=row["source"])
        figures.setdefault(variant.name, {})[int(row["seed"])] = float(row["last_top1"])
    assert paired_table(compare(figures, "plain")) in (DOCS / "ablation.md").read_text("utf-8")


def test_the_last_epochs_are_those_of_the_runs() -> None:
    epochs = read("epochs.csv")
    last = {(row["variant"], row["seed"]): row["top1"] for row in epochs if row["epoch"] == "10"}
    runs = {tuple(row["run"].split("/")[-2:]): row["last_top1"] for row in read("results.csv")}
    assert {(name, f"seed{seed}"): top1 for (name, seed), top1 in last.items()} == runs
