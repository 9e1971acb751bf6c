"""The table of docs/detection.md is that of its raw results."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_table_is_that_of_the_csv() -> None:
    figures = runpy.run_path(str(ROOT / "examples" / "aerial" / "figures.py"))
    runs = figures["read"](ROOT / "docs" / "detection" / "ap.csv")
    assert {arm: sorted(seeds) for arm, seeds in runs.items()} == {
        "plain": [0, 1, 2],
        "rla": [0, 1, 2],
    }
    assert all(len(rows) == 12 for seeds in runs.values() for rows in seeds.values())
    assert figures["table"](runs) in (ROOT / "docs" / "detection.md").read_text(encoding="utf-8")
