from __future__ import annotations

from rlawrap.tables import html_table, text_table


def test_columns_line_up() -> None:
    rows = [("name", "n"), ("a", "1"), ("longer", "100")]
    assert text_table(rows, right=(1,)) == [
        "name      n",
        "------  ---",
        "a         1",
        "longer  100",
    ]


def test_html_is_escaped() -> None:
    made = html_table([("<h>",), ("a & b",)], caption="c<", below=["d>"])
    assert "&lt;h&gt;" in made and "a &amp; b" in made and "c&lt;" in made and "d&gt;" in made
    assert made.count("<tr>") == 2
