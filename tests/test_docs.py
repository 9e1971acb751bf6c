"""The Python in the README and in the docs runs, and prints what it says it prints.

Fences that say `pycon` are doctests, those that say `python` are run; the fences of a page share
their names. A fence right after a line `<!-- not run: why -->` is left out.
"""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"(<!-- not run: .+ -->\n)?^```(pycon|python)\n(.*?)^```$", re.M | re.S)
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def fences(page: Path) -> list[tuple[str, str, int]]:
    """Kind, text and line of each fence of a page that is to be run."""
    text = page.read_text(encoding="utf-8")
    return [
        (match[2], match[3], text.count("\n", 0, match.start(3)))
        for match in FENCE.finditer(text)
        if not match[1]
    ]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if fences(page)], ids=lambda page: page.stem
)
def test_snippets_of(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    report: list[str] = []
    runner = doctest.DocTestRunner(verbose=False, optionflags=OPTIONS)
    for kind, text, line in fences(page):
        if kind == "python":
            exec(compile(text, f"{page.name}:{line}", "exec"), names)
            continue
        test = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), line)
        test.globs = names
        runner.run(test, out=report.append, clear_globs=False)
    assert runner.failures == 0, "".join(report)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    missing = [
        target
        for target in targets
        if not target.startswith("http") and not (page.parent / target).exists()
    ]
    assert missing == []
