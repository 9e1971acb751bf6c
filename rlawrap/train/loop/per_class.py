"""How good a network is at each class, from its confusion matrix, as plain data and as tables."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from rlawrap.train.tasks.accuracy import Evaluation

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True, kw_only=True)
class ClassFigures:
    """A class: its images, the share of them that were found, and of what was taken for it.

    top1: per cent of the class's images that were taken for it (recall). precision: per cent of
    the images taken for it that are of it. None where there was no such image.
    """

    name: str
    images: int
    top1: float | None
    precision: float | None


def per_class(confusion: Tensor, classes: tuple[str, ...]) -> list[ClassFigures]:
    """The figures of each class; `confusion` [classes, classes] has rows of true classes.

    >>> import torch
    >>> cat, dog = per_class(torch.tensor([[3, 1], [0, 0]]), ("cat", "dog"))
    >>> cat.images, cat.top1, cat.precision, dog.top1, dog.precision
    (4, 75.0, 100.0, None, 0.0)
    """
    right = confusion.diagonal().tolist()
    true, taken = confusion.sum(1).tolist(), confusion.sum(0).tolist()
    return [
        ClassFigures(
            name=name,
            images=true[n],
            top1=_per_cent(right[n], true[n]),
            precision=_per_cent(right[n], taken[n]),
        )
        for n, name in enumerate(classes)
    ]


def _per_cent(part: int, whole: int) -> float | None:
    return 100 * part / whole if whole else None


def figures(
    result: Evaluation, *, classes: bool = False, confusion: bool = False
) -> dict[str, Any]:
    """An evaluation for JSON, on request with its classes and its matrix, whose rows are true."""
    values: dict[str, Any] = {**result.to_dict(), "images": result.images}
    if result.skipped:
        values["skipped"] = result.skipped
    if classes:
        values["classes"] = [asdict(each) for each in per_class(result.confusion, result.classes)]
    if confusion:
        values["confusion"] = {"classes": result.classes, "rows": result.confusion.tolist()}
    return values


def class_table(result: Evaluation) -> Table:
    """A line for each class, and one for all."""
    table = _table()
    table.add_column("class", overflow="fold")
    for title in ("images", "top-1 %", "precision %"):
        table.add_column(title, justify="right")
    for each in per_class(result.confusion, result.classes):
        table.add_row(each.name, f"{each.images:,}", _text(each.top1), _text(each.precision))
    table.add_row("all", f"{result.images:,}", _text(result.top1), "")
    return table


def confusion_table(result: Evaluation) -> Table:
    """The confusion matrix: a row for each true class, a column for each that was predicted."""
    table = _table()
    table.add_column("true \\ predicted", overflow="fold")
    for name in result.classes:
        table.add_column(name, justify="right", overflow="fold")
    for name, row in zip(result.classes, result.confusion.tolist(), strict=True):
        table.add_row(name, *map(str, row))
    return table


def _table() -> Table:
    from rich.table import Table

    return Table(box=None, pad_edge=False, header_style="bold")


def _text(per_cent: float | None) -> str:
    return "-" if per_cent is None else f"{per_cent:.2f}"
