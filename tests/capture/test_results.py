"""What calls on meta tensors return is found once for each layer, its settings and its input."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rlawrap.capture.results import key_of_module
from rlawrap.flow.traced import trace_model


class Pools(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.down, self.up = nn.AvgPool2d(2), nn.AvgPool2d(2, ceil_mode=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.conv(x)
        return self.down(x), self.up(x)


def test_layers_that_print_alike_may_round_unlike() -> None:
    flow = trace_model(Pools(), example_input=torch.zeros(2, 3, 15, 15)).flow
    pools = [n for n in flow.nodes if n.target in ("down", "up")]
    assert repr(Pools().down) == repr(Pools().up)
    assert [flow.spatial(n) for n in pools] == [(7, 7), (8, 8)]


def test_a_layer_is_known_by_its_settings_and_the_shapes_of_its_parameters() -> None:
    x = torch.zeros(1, 4, 8, 8)

    def key(module: nn.Module) -> object:
        return key_of_module(module, (x,), {})

    layer = nn.Conv2d(4, 8, 3)
    assert key(layer) is not None and key(layer) == key(nn.Conv2d(4, 8, 3))
    assert key(layer) != key(nn.Conv2d(4, 8, 3, stride=2))
    assert key(layer) != key(nn.Conv2d(4, 8, 3).eval())
    layer.weight = nn.Parameter(layer.weight[:4])
    assert key(layer) != key(nn.Conv2d(4, 8, 3))
    layer.kinds = [1, 2]
    assert key(layer) is None  # what has no hash is no part of a key
