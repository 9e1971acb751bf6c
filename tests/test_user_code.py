from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from rlawrap.errors import ConfigError
from rlawrap.user_code import being_imported, find_code, importable, is_place

SOURCE = """
import beside

class Nets:
    @staticmethod
    def small():
        return beside.VALUE

def large():
    return 2 * beside.VALUE
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "beside.py").write_text("VALUE = 21\n")
    (tmp_path / "nets_here.py").write_text(SOURCE)
    (tmp_path / "nets.txt").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("beside", "nets_here"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("text", ["", "resnet18", "timm:", ":small", "nets.py:", "nets.py:a b"])
def test_what_is_no_place(text: str) -> None:
    assert not is_place(text)


def test_a_file_and_a_module_are_found_and_import_what_lies_beside(folder: Path) -> None:
    path_before = list(sys.path)
    by_file = find_code("nets_here.py:large")
    assert by_file.value() == 42
    assert by_file.file == folder / "nets_here.py"
    assert find_code("nets_here:Nets.small").value() == 21
    assert sys.path == path_before


def test_a_file_is_imported_once_until_it_changes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = folder / "nets_here.py"
    times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    first = find_code("nets_here.py:large")
    assert find_code(f"{folder}/nets_here.py:large").value is first.value
    file.write_text(SOURCE.replace("2 *", "3 *"))
    os.utime(file, ns=times)  # within the second and of the same size, as a cache sees it
    changed = find_code("nets_here.py:large")
    assert (first.value(), changed.value()) == (42, 63)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("none.py:large", "there is no file .*none.py"),
        ("./nets.txt:large", "nets.txt is not a file of Python"),
        ("no_such_module_here:large", "no module no_such_module_here, neither installed nor in"),
        ("a-b:large", "neither a file .* nor the name of a module"),
        ("nets_here.py:lage", "has no 'lage'. Nearest: large."),
        ("nets_here.py:Nets.huge", "has no 'huge'"),
    ],
)
def test_what_is_not_there_is_named(folder: Path, place: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_code(place)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("def (", "SyntaxError"),
        ("import nowhere_at_all", "No module named 'nowhere_at_all'"),
    ],
)
def test_code_that_fails_is_told_and_forgotten(folder: Path, source: str, message: str) -> None:
    (folder / "broken.py").write_text(source)
    with pytest.raises(ConfigError, match=f"broken.py:net: cannot be imported: .*{message}"):
        find_code("broken.py:net")
    (folder / "broken.py").write_text("net = 1")
    assert find_code("broken.py:net").value == 1


def test_code_can_ask_whether_it_is_only_looked_at(folder: Path) -> None:
    (folder / "asks.py").write_text(
        "from rlawrap.user_code import being_imported\nseen = being_imported()\n"
    )
    assert find_code("asks.py:seen").value == "asks.py:seen"
    assert being_imported() is None


def test_importable_puts_the_search_path_back_when_code_fails(tmp_path: Path) -> None:
    before = list(sys.path)
    with pytest.raises(ZeroDivisionError), importable(tmp_path):
        assert str(tmp_path) in sys.path
        1 / 0  # noqa: B018
    assert sys.path == before
