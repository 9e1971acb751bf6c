"""The paper's convolutional cell, dense and depthwise."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rlawrap.cells.base import Cell, Layers, State
from rlawrap.cells.cell_registry import register_cell


@register_cell("conv")
class ConvCell(Cell):
    """h' = Conv(tanh(norm(u + h))), or its split and post-activation forms (paper, section 3).

    >>> import torch
    >>> from rlawrap.cells import CellSpec
    >>> cell = ConvCell(CellSpec(k=4))
    >>> layers = {**cell.shared(), **cell.own()}
    >>> (h,) = cell.step(layers, torch.zeros(2, 4, 8, 8), (torch.zeros(2, 4, 8, 8),))
    >>> h.shape
    torch.Size([2, 4, 8, 8])
    """

    has_forms = True
    depthwise = False

    def shared(self) -> dict[str, nn.Module]:
        k = self.spec.k
        return {"conv": self.spec.conv(k, k, groups=k if self.depthwise else 1)}

    def step(self, layers: Layers, u: Tensor, state: State) -> State:
        (h,) = state
        if self.spec.update == "split":
            return (u + layers["conv"](torch.tanh(layers["norm"](h))),)
        if self.spec.update == "post":
            return (torch.tanh(layers["norm"](layers["conv"](u + h))),)
        return (layers["conv"](torch.tanh(layers["norm"](u + h))),)


@register_cell("dwconv")
class DepthwiseCell(ConvCell):
    """The convolutional cell with a depthwise recurrent convolution (groups = k)."""

    depthwise = True
