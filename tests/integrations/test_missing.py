"""Integrations without their libraries: told by name, and nothing else needs them."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import rlawrap

LOADED = "import rlawrap, sys; print([m for m in sys.modules if m.startswith('rlawrap.integ')])"


def test_what_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [m for m in sys.modules if m.startswith(("mmdet", "rlawrap.integrations"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mmdet", None)
    with pytest.raises(rlawrap.RLAError, match=r"pip install 'rlawrap\[mmdet\]', and mmcv"):
        importlib.import_module("rlawrap.integrations.mmdet")


def test_rlawrap_imports_none() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
