"""Small files of JSON: written whole or not at all, and read back."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

from rlawrap.files import put_in_place


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file. Raises `OSError`, or `ValueError` when it holds none."""
    values = json.loads(path.read_text())
    if not isinstance(values, dict):
        raise ValueError("JSON, but not an object")
    return values


def read_json_if_whole(path: Path) -> dict[str, Any] | None:
    """The object in a file; None when the file is not there, or damaged."""
    with suppress(OSError, ValueError):
        return read_json(path)
    return None


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file so that it is there as a whole or as it was before."""
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(value, indent=1) + "\n")
    put_in_place(new, path)


def json_text(values: dict[str, Any]) -> str:
    """One line of JSON. It has no word for NaN and infinity, which become null.

    >>> json_text({"loss": float("nan"), "top1": 50.0})
    '{"loss": null, "top1": 50.0}'
    """
    plain = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }
    return json.dumps(plain, allow_nan=False)
