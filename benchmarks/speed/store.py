"""The file of results: rows by key, written whole after each, so that a rerun goes on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

VERSION = 1
Results = dict[str, Any]


def read(path: Path) -> Results:
    """What was measured so far; empty where there is no file."""
    if not path.exists():
        return {"version": VERSION, "machine": {}, "rows": {}, "profiles": {}}
    return json.loads(path.read_text(encoding="utf-8"))


def write(path: Path, results: Results) -> None:
    """Aside, then in its place: a run that is stopped leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".part")
    aside.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    os.replace(aside, path)


def missing(results: Results, keys: list[str], again: bool = False) -> set[str]:
    """Keys without a row; with `again` those with an error, too."""
    rows = results["rows"]
    return {
        key
        for key in keys
        if key not in rows or (again and ("error" in rows[key] or rows[key].get("failed")))
    }
