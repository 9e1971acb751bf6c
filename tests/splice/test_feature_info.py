"""A backbone is measured with the inputs that its network was recorded with."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rlawrap
from tests.nets import Residual

X = torch.randn(2, 3, 16, 16)


class Trunk(nn.Module):
    """Two stages of blocks; the second halves the image."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 2, stride=2)
        self.one = nn.Sequential(Residual(8, 8), Residual(8, 8))
        self.two = nn.Sequential(Residual(12, 12), Residual(12, 12))

    def body(self, x: Tensor) -> Tensor:
        return self.two(self.down(self.one(self.stem(x))))


class Timed(Trunk):
    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.body(x * t[:, None, None, None])


class Deep(Trunk):
    def forward(self, x: Tensor, depth: Tensor | None = None) -> Tensor:
        return self.body(x if depth is None else x + depth)


class Coarse(Trunk):
    """A second image of half the size, which must grow with the first."""

    def forward(self, x: Tensor, *, coarse: Tensor) -> Tensor:
        return self.body(x + F.pixel_shuffle(coarse, 2))


class Batch(Trunk):
    def forward(self, batch: dict[str, Any]) -> Tensor:
        return self.body(batch["image"])


class Placed(Trunk):
    """An image of one size, with a place for each pixel."""

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        return self.body(x + places)


CALLS: list[tuple[nn.Module, Any]] = [
    (Timed(), (X, torch.ones(2))),
    (Timed(), {"t": torch.ones(2), "x": X}),
    (Deep(), (X, X[:, :1])),
    (Deep(), X),
    (Coarse(), {"x": X, "coarse": torch.randn(2, 12, 8, 8)}),
    (Batch(), ({"image": X, "label": torch.zeros(2)},)),
    (Placed(), (X, torch.randn(3, 16, 16))),
]


@pytest.mark.parametrize(("base", "example"), CALLS)
def test_maps_are_measured_with_all_inputs(base: nn.Module, example: Any) -> None:
    maps = rlawrap.backbone(
        rlawrap.apply(base.eval(), k=4, example_input=example), {"one": "a", "two": "b"}
    )
    infos = maps.feature_info
    assert infos.channels() == [8, 12] and infos.reduction() == [1, 2]
    assert [info.size for info in infos] == [(16, 16), (8, 8)]
    args = example if isinstance(example, tuple) else (example,)
    made = maps(**example) if isinstance(example, dict) else maps(*args)
    assert [tuple(m.shape[1:]) for m in made.values()] == [(8, 16, 16), (12, 8, 8)]


def test_the_inputs_of_the_recording_follow_the_type_of_the_network() -> None:
    example = (X, torch.ones(2))
    model = rlawrap.apply(Timed(), k=4, example_input=example).to(torch.bfloat16)
    assert rlawrap.backbone(model).feature_info.reduction() == [1, 2]
