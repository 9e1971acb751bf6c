"""ConvLSTM as the recurrent cell."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rlawrap.cells.base import Cell, Layers, State
from rlawrap.cells.cell_registry import register_cell


@register_cell("convlstm")
class ConvLSTMCell(Cell):
    """Gates i, f, o and candidate g from one convolution of [tanh(norm(u)), h], without bias.

    c' = sigmoid(f) c + sigmoid(i) tanh(g), h' = sigmoid(o) tanh(c'). The state is (h, c).
    """

    states = 2

    ends_active = True

    def shared(self) -> dict[str, nn.Module]:
        return {"conv": self.spec.conv(2 * self.spec.k, 4 * self.spec.k)}

    def step(self, layers: Layers, u: Tensor, state: State) -> State:
        h, c = state
        u = torch.tanh(layers["norm"](u))
        gates = layers["conv"](torch.cat([u, h], dim=1))
        k = self.spec.k
        i, f, o, g = (gates.narrow(1, n * k, k) for n in range(4))
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return (torch.sigmoid(o) * torch.tanh(c), c)
