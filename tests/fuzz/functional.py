"""Random networks written as functions of parameters that lie at the root."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.fuzz.layers import join
from tests.fuzz.spec import NetSpec

CLASSES = 5


class FunctionalNetwork(nn.Module):
    """Every step is a call of `torch.nn.functional`; kinds: residual, dense, plain, pre-activation.

    `kind` of each stage chooses the step by what it is nearest to.
    """

    def __init__(self, spec: NetSpec) -> None:
        super().__init__()
        ls = spec.layers
        self.spec = spec
        self.conv = (F.conv1d, F.conv2d, F.conv3d)[ls.dims - 1]
        self.axes = tuple(range(2, ls.dims + 2))
        self.stride = {"conv": 1, "valid": 1}.get(spec.stem, 2)
        self._kernel("stem", 3, 8, 3)
        channels = 8
        for i, stage in enumerate(spec.stages):
            for j in range(stage.depth):
                name, new = f"s{i}_{j}", stage.channels
                if stage.kind in ("dense", "inception", "shuffle"):
                    self._kernel(f"{name}_a", channels, 4, stage.kernel)
                    channels += 4
                    continue
                self._kernel(f"{name}_a", channels, new, stage.kernel)
                if stage.kind not in ("plain", "separable"):
                    self._kernel(f"{name}_b", new, new, 3)
                if j == 0:
                    self._kernel(f"{name}_short", channels, new, 1)
                channels = new
        self.register_parameter("head", nn.Parameter(torch.randn(CLASSES, channels) * 0.2))

    def _kernel(self, name: str, inputs: int, outputs: int, kernel: int) -> None:
        dims = self.spec.layers.dims
        scale = (inputs * kernel**dims) ** -0.5
        weight = torch.randn(outputs, inputs, *(kernel,) * dims) * scale
        self.register_parameter(f"{name}_weight", nn.Parameter(weight))
        if self.spec.layers.norm == "batch":
            self.register_buffer(f"{name}_mean", torch.zeros(outputs))
            self.register_buffer(f"{name}_var", torch.ones(outputs))
            self.register_parameter(f"{name}_scale", nn.Parameter(torch.ones(outputs)))

    def _step(self, name: str, x: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
        weight = getattr(self, f"{name}_weight")
        padding = dilation * (weight.shape[2] - 1) // 2
        y = self.conv(x, weight, None, stride=stride, padding=padding, dilation=dilation)
        if self.spec.layers.norm == "batch":
            return F.batch_norm(
                y, getattr(self, f"{name}_mean"), getattr(self, f"{name}_var"),
                getattr(self, f"{name}_scale"), training=self.training, momentum=0.1,
            )  # fmt: skip
        return y

    def forward(self, x: Tensor) -> Tensor:
        inplace, how = self.spec.layers.inplace, self.spec.layers.join
        x = F.relu(self._step("stem", x, self.stride), inplace=inplace)
        for i, stage in enumerate(self.spec.stages):
            for j in range(stage.depth):
                name, stride = f"s{i}_{j}", stage.stride if j == 0 else 1
                if stage.kind in ("dense", "inception", "shuffle"):
                    new = F.relu(self._step(f"{name}_a", x, 1, stage.dilation))
                    x = torch.cat([x, new], 1)
                    continue
                y = F.relu(self._step(f"{name}_a", x, stride, stage.dilation), inplace=inplace)
                if stage.kind in ("plain", "separable"):
                    x = F.dropout(y, 0.2, self.training) if stage.drop != "none" else y
                    continue
                y = self._step(f"{name}_b", y)
                if stage.gate != "none":
                    y = y * torch.sigmoid(y.mean(self.axes, keepdim=True))
                identity = self._step(f"{name}_short", x, stride) if j == 0 else x
                x = join(how, identity, y)
                if stage.act_after:
                    x = F.relu(x, inplace=inplace)
        if self.spec.head == "convolutional":
            return x
        return F.linear(x.mean(self.axes), self.head)
