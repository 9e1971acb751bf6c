"""docs/performance.md: prose by hand, tables between markers from the results, and a picture."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.speed import store, tables
from benchmarks.speed.running import ROOT

PAGE = ROOT / "docs" / "performance.md"
PICTURE = ROOT / "docs" / "performance" / "time_against_macs.png"

#: Marker -> what fills it.
PARTS = {
    "machine": tables.machine,
    "targets": tables.targets,
    "misses": tables.misses,
    "matrix": tables.matrix,
    "treatments": tables.treatments,
    "memory": tables.memory,
    "profiles": tables.profiles,
    "failures": tables.failures,
}


def filled(page: str, parts: dict[str, str]) -> str:
    """A page with the texts between its markers.

    >>> filled("a\\n<!-- begin x -->\\nold\\n<!-- end x -->\\nb", {"x": "new"})
    'a\\n<!-- begin x -->\\n\\nnew\\n\\n<!-- end x -->\\nb'
    """
    for name, text in parts.items():
        marked = re.compile(rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)", re.S)
        if not marked.search(page):
            raise ValueError(f"the page has no place for {name!r}")
        page = marked.sub(lambda found, text=text: f"{found[1]}\n{text}\n\n{found[2]}", page)
    return page


def write_report(path: Path) -> None:
    """Bring the page and the picture to what the file of results says."""
    from benchmarks.speed.picture import draw

    results = store.read(path)
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(filled(page, {name: f(results) for name, f in PARTS.items()}), encoding="utf-8")
    draw(results, PICTURE)
    print(f"{PAGE.relative_to(ROOT)}, {PICTURE.relative_to(ROOT)}")
