"""Tables of text, for the terminal and as HTML."""

from __future__ import annotations

from collections.abc import Container, Sequence
from html import escape


def text_table(rows: Sequence[Sequence[str]], right: Container[int] = ()) -> list[str]:
    """Rows as lines, the first as a header with a rule below; columns in `right` end alike.

    >>> text_table([("name", "n"), ("a", "10")], right=(1,))
    ['name   n', '----  --', 'a     10']
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for i, row in enumerate(rows):
        cells = [
            cell.rjust(w) if n in right else cell.ljust(w)
            for n, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
        if i == 0:
            lines.append("  ".join("-" * w for w in widths))
    return lines


def html_table(
    rows: Sequence[Sequence[str]], *, caption: str = "", below: Sequence[str] = ()
) -> str:
    """Rows as an HTML table, the first as its header, all text escaped; lines stand below it.

    >>> html_table([("name",), ("<a>",)], caption="t").count("&lt;a&gt;")
    1
    """
    header, *body = rows
    lines = ["<table>"]
    if caption:
        lines.append(f'<caption style="text-align:left">{escape(caption)}</caption>')
    lines.append("<thead>" + _row(header, "th") + "</thead>")
    lines += ["<tbody>", *(_row(row, "td") for row in body), "</tbody>", "</table>"]
    lines += [f"<div>{escape(text)}</div>" for text in below]
    return "\n".join(lines)


def _row(cells: Sequence[str], tag: str) -> str:
    inner = "".join(f'<{tag} style="text-align:left">{escape(cell)}</{tag}>' for cell in cells)
    return f"<tr>{inner}</tr>"
