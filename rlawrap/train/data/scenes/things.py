"""What readers of annotations share: boxes made sound, classes of a split, what was left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rlawrap.errors import DataError, few
from rlawrap.train.data.scenes.records import Box, LeftOut

OUTSIDE = "boxes outside their image, left out"
NO_AREA = "boxes without an area, left out"
CLIPPED = "boxes reaching out of their image, cut at its edge"


@dataclass
class Tally:
    """Counts what was not taken as it stands, by reason."""

    found: dict[str, LeftOut] = field(default_factory=dict)

    def add(self, reason: str, where: str) -> None:
        """One more, which is the first to be named if it is the first."""
        old = self.found.get(reason)
        count, first = (0, where) if old is None else (old.count, old.first)
        self.found[reason] = LeftOut(reason=reason, count=count + 1, first=first)

    def entries(self) -> tuple[LeftOut, ...]:
        """In the order of their reasons."""
        return tuple(self.found[reason] for reason in sorted(self.found))


def sound_box(box: Box, width: int, height: int, where: str, tally: Tally) -> Box | None:
    """A box cut at the edge of its image; None when nothing of it is inside, which is counted.

    >>> tally = Tally()
    >>> sound_box((-2.0, 0.0, 5.0, 5.0), 10, 10, "a", tally)
    (0.0, 0.0, 5.0, 5.0)
    >>> sound_box((3.0, 3.0, 3.0, 5.0), 10, 10, "b", tally)
    >>> [str(entry) for entry in tally.entries()]  # doctest: +NORMALIZE_WHITESPACE
    ['1 boxes reaching out of their image, cut at its edge (first: a)',
     '1 boxes without an area, left out (first: b)']
    """
    left, top, right, bottom = box
    if not (left < right and top < bottom):
        tally.add(NO_AREA, where)
        return None
    cut = max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height))
    if not (cut[0] < cut[2] and cut[1] < cut[3]):
        tally.add(OUTSIDE, where)
        return None
    # Half a pixel of rounding is nobody's mistake.
    if max(abs(a - b) for a, b in zip(cut, box, strict=True)) > 0.5:
        tally.add(CLIPPED, where)
    return cut


def numbers_of(names: Sequence[str], known: Sequence[str] | None, where: str) -> dict[str, int]:
    """Labels from 1 on by the names of classes: their own order, or that of the training split.

    Raises `DataError` for a class that the training split does not have.

    >>> numbers_of(["b"], ["a", "b"], "test.json")
    {'a': 1, 'b': 2}
    """
    unknown = [name for name in names if known is not None and name not in known]
    if unknown:
        raise DataError(
            f"{where}: {len(unknown)} classes that the training split does not have: "
            f"{few(unknown, 5)}. It has {few(list(known or ()), 8)}."
        )
    return {name: number for number, name in enumerate(names if known is None else known, 1)}
