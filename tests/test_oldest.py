"""The versions that `make test-oldest` installs are the lowest that pyproject.toml names."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: Extras whose packages the suite runs with.
EXTRAS = ("train", "show", "detection", "timm", "cost", "export", "test")


def lower_bounds() -> dict[str, str]:
    if sys.version_info < (3, 11):
        pytest.skip("tomllib is new in Python 3.11")
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"]]
    for extra in EXTRAS:
        lines += project["optional-dependencies"][extra]
    found = (re.match(r"([\w-]+)>=([\d.]+)(?:;|$)", line) for line in lines)
    return {match[1]: match[2] for match in found if match}


def test_constraints_are_the_lower_bounds() -> None:
    ours = (ROOT / "tests" / "oldest.txt").read_text().partition("\n\n")[0].splitlines()
    pins = dict(line.split("==") for line in ours if not line.startswith("#"))
    assert pins == lower_bounds()


def test_the_oldest_python_is_the_one_that_is_run() -> None:
    oldest = re.search(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert oldest is not None
    assert f"PYTHON_OLDEST ?= python{oldest[1]}" in (ROOT / "Makefile").read_text()
