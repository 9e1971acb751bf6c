"""Networks that `apply` refuses as they are, and whose refusal tells what to do."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


class Around(nn.Module):
    """A network inside of another one, which does something to its image."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.body = net

    def change(self, image: Any) -> Any:
        return image

    def forward(self, **given: Any) -> Any:
        name, image = next(iter(given.items()))
        return self.body(**{**given, name: self.change(image)})


class Asks(Around):
    """Goes on by the values of its image."""

    def change(self, image: Any) -> Any:
        first = image if isinstance(image, Tensor) else image[0]
        return image if first.sum() < 1e9 else 0 * first


class Draws(Around):
    """Draws a number of Python's."""

    def change(self, image: Any) -> Any:
        return image if random.random() >= 0 else None


class Linear(nn.Module):
    """No convolution at all."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        dtype = next(net.parameters()).dtype
        self.fc = nn.Linear(3, 2, dtype=dtype)

    def forward(self, **given: Any) -> Tensor:
        image = next(iter(given.values()))
        image = image if isinstance(image, Tensor) else image[0]
        return self.fc(image.flatten(2).mean(2))


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "value": Asks, "drawn": Draws, "parallel": nn.DataParallel, "linear": Linear,
}  # fmt: skip
#: untold: no example input is given where one is needed.
REFUSED = (*WRAPPERS, "untold")
