"""What an export has written, as data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A file, what it takes, and how it was compared with the network.

    inputs: one text a tensor, as "float32 [batch, 3, height, width]". folded: what was done to the
    network before. difference: the largest, relative to the largest output. checked: the shapes of
    the inputs that were compared. expects: the range that the values of an image are to have.
    """

    path: Path
    target: str
    network: str
    folded: str
    inputs: tuple[str, ...]
    bytes: int
    difference: float
    checked: tuple[Shapes, ...]
    expects: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "path": str(self.path)}

    def __str__(self) -> str:
        sizes = ", ".join(
            " and ".join("x".join(map(str, shape)) for shape in shapes) for shapes in self.checked
        )
        return "\n".join(
            [
                f"{self.path}: {self.network} as {self.target}, {self.bytes / 2**20:.1f} MiB",
                f"  network: {self.folded}",
                f"  input: {'; '.join(self.inputs)}",
                f"  values: {self.expects}",
                f"  equal to the network to {self.difference:.1e} at {sizes}",
            ]
        )
