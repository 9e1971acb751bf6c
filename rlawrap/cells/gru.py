"""ConvGRU as the recurrent cell."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rlawrap.cells.base import Cell, GroupNorm, Layers, State
from rlawrap.cells.cell_registry import register_cell


@register_cell("convgru")
class ConvGRUCell(Cell):
    """Reset and update gates and a candidate, each normalised over all its values.

    With u = tanh(norm(u)): (r, z) = conv_gates([u, h]), h~ = conv_out([u, sigmoid(r) h]) and
    h' = sigmoid(z) h + (1 - sigmoid(z)) tanh(h~); r, z and h~ pass a GroupNorm of one group first.
    """

    ends_active = True

    def shared(self) -> dict[str, nn.Module]:
        k = self.spec.k
        return {
            "gates": self.spec.conv(2 * k, 2 * k, bias=True),
            "reset_norm": GroupNorm(1, k, eps=1e-6),
            "update_norm": GroupNorm(1, k, eps=1e-6),
            "out": self.spec.conv(2 * k, k, bias=True),
            "out_norm": GroupNorm(1, k, eps=1e-6),
        }

    def step(self, layers: Layers, u: Tensor, state: State) -> State:
        (h,) = state
        k = self.spec.k
        u = torch.tanh(layers["norm"](u))
        gates = layers["gates"](torch.cat([u, h], dim=1))
        reset = torch.sigmoid(layers["reset_norm"](gates.narrow(1, 0, k)))
        update = torch.sigmoid(layers["update_norm"](gates.narrow(1, k, k)))
        candidate = layers["out"](torch.cat([u, reset * h], dim=1))
        return (update * h + (1 - update) * torch.tanh(layers["out_norm"](candidate)),)
