"""The blocks of random networks: residual, dense, branching, plain, in their usual forms."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.fuzz import layers as L
from tests.fuzz.spec import LayerSpec, StageSpec


class Block(nn.Module):
    """The common parts: a shortcut that fits, and what stands at the end of a branch."""

    def __init__(self, spec: LayerSpec, stage: StageSpec, inputs: int, stride: int) -> None:
        super().__init__()
        self.how = spec.join
        self.out_channels = stage.channels
        self.make_shortcut(spec, inputs, stride)
        self.gate = self._gate(spec, stage)
        self.scale = L.Scale(stage.channels, spec.dims) if stage.scaled else nn.Identity()
        self.drop = L.drop(stage.drop, spec.dims)
        self.last = L.act(spec) if stage.act_after else nn.Identity()

    def make_shortcut(self, spec: LayerSpec, inputs: int, stride: int) -> None:
        self.shortcut: nn.Module | None = None
        if stride != 1 or inputs != self.out_channels:
            self.shortcut = nn.Sequential(
                L.conv(spec, inputs, self.out_channels, stride=stride),
                L.norm(spec, self.out_channels),
            )

    def _gate(self, spec: LayerSpec, stage: StageSpec) -> nn.Module:
        if stage.gate == "none":
            return nn.Identity()
        return L.SqueezeExcite(spec, stage.channels, stage.gate == "spatial")

    def finish(self, x: Tensor, y: Tensor) -> Tensor:
        identity = x if self.shortcut is None else self.shortcut(x)
        y = self.drop(self.scale(self.gate(y)))
        return self.last(L.join(self.how, identity, y))


class Basic(Block):
    def __init__(self, spec: LayerSpec, stage: StageSpec, inputs: int, stride: int) -> None:
        super().__init__(spec, stage, inputs, stride)
        c = stage.channels
        self.conv1 = L.conv(
            spec, inputs, c, stage.kernel, stride=stride, dilation=stage.dilation,
            groups=stage.groups,
        )  # fmt: skip
        self.norm1 = L.norm(spec, c)
        self.act1 = L.act(spec)
        self.conv2 = L.conv(spec, c, c, stage.kernel)
        self.norm2 = L.norm(spec, c)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(self.act1(self.norm1(self.conv1(x)))))
        return self.finish(x, y)


class Bottleneck(Block):
    def __init__(self, spec: LayerSpec, stage: StageSpec, inputs: int, stride: int) -> None:
        super().__init__(spec, stage, inputs, stride)
        c = stage.channels
        self.body = nn.Sequential(
            L.conv(spec, inputs, 8), L.norm(spec, 8), L.act(spec),
            L.conv(spec, 8, 8, stage.kernel, stride=stride, dilation=stage.dilation,
                   groups=stage.groups),
            L.norm(spec, 8), L.act(spec), L.conv(spec, 8, c), L.norm(spec, c),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(x, self.body(x))


class Inverted(Block):
    """Expansion, depthwise, projection; the shortcut is only there where it fits by itself."""

    def __init__(self, spec: LayerSpec, stage: StageSpec, inputs: int, stride: int) -> None:
        super().__init__(spec, stage, inputs, stride)
        c, wide = stage.channels, 2 * inputs
        self.residual = stride == 1 and inputs == c
        self.expand = nn.Sequential(L.conv(spec, inputs, wide), L.norm(spec, wide), L.act(spec))
        self.depthwise = nn.Sequential(
            L.conv(spec, wide, wide, stage.kernel, stride=stride, groups=wide,
                   dilation=stage.dilation),
            L.norm(spec, wide), L.act(spec),
        )  # fmt: skip
        self.project = nn.Sequential(L.conv(spec, wide, c), L.norm(spec, c))

    def make_shortcut(self, spec: LayerSpec, inputs: int, stride: int) -> None:
        self.shortcut = None

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        if self.residual:
            return self.finish(x, y)
        return self.drop(self.scale(self.gate(y)))


class PreAct(Block):
    def __init__(self, spec: LayerSpec, stage: StageSpec, inputs: int, stride: int) -> None:
        super().__init__(spec, stage, inputs, stride)
        c = stage.channels
        self.norm1, self.norm2 = L.norm(spec, inputs), L.norm(spec, c)
        # The input is read again by the shortcut: this activation may not overwrite it.
        self.act1 = nn.ReLU()
        self.act2 = L.act(spec)
        self.conv1 = L.conv(spec, inputs, c, stage.kernel, stride=stride, dilation=stage.dilation)
        self.conv2 = L.conv(spec, c, c, stage.kernel, groups=stage.groups)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act1(self.norm1(x))
        y = self.conv2(self.act2(self.norm2(self.conv1(y))))
        return self.finish(x, y)


class ConvNeXt(Block):
    """Depthwise, then LayerNorm and Linear layers on channels-last images."""

    def __init__(self, spec: LayerSpec, stage: StageSpec, inputs: int, stride: int) -> None:
        super().__init__(spec, stage, inputs, stride)
        c = stage.channels
        self.to_last = (0, *range(2, spec.dims + 2), 1)
        self.to_first = (0, spec.dims + 1, *range(1, spec.dims + 1))
        self.depthwise = L.conv(spec, inputs, inputs, stage.kernel, stride=stride, groups=inputs)
        self.norm = nn.LayerNorm(inputs)
        self.wide, self.narrow = nn.Linear(inputs, 2 * c), nn.Linear(2 * c, c)

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(x).permute(*self.to_last)
        y = self.narrow(F.gelu(self.wide(self.norm(y))))
        return self.finish(x, y.permute(*self.to_first))


class Inception(Block):
    """Parallel branches, concatenated; one of them pools."""

    def __init__(self, spec: LayerSpec, stage: StageSpec, inputs: int, stride: int) -> None:
        super().__init__(spec, stage, inputs, stride)
        q, s = stage.channels // 4, stride
        pool = L.per_dim(("MaxPool1d", "MaxPool2d", "MaxPool3d"), spec.dims)
        self.point = L.conv(spec, inputs, q, stride=s)
        self.deep = nn.Sequential(
            L.conv(spec, inputs, 4), L.act(spec), L.conv(spec, 4, 2 * q, stage.kernel, stride=s)
        )
        self.pooled = nn.Sequential(pool(3, s, 1), L.conv(spec, inputs, q))
        self.norm = L.norm(spec, stage.channels)

    def make_shortcut(self, spec: LayerSpec, inputs: int, stride: int) -> None:
        self.shortcut = None

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([self.point(x), self.deep(x), self.pooled(x)], 1)
        return self.last(self.drop(self.gate(self.norm(y))))


class Shuffle(Block):
    """Half of the channels pass by; then both halves are shuffled (or all are halved, strided)."""

    def __init__(self, spec: LayerSpec, stage: StageSpec, inputs: int, stride: int) -> None:
        super().__init__(spec, stage, inputs, stride)
        c = stage.channels
        self.whole, self.axes = stride == 1 and inputs == c, tuple(range(2, spec.dims + 2))
        start = inputs // 2 if self.whole else inputs
        self.branch = nn.Sequential(
            L.conv(spec, start, c // 2), L.norm(spec, c // 2), L.act(spec),
            L.conv(spec, c // 2, c // 2, stage.kernel, stride=stride, groups=c // 2),
            L.conv(spec, c // 2, c // 2), L.act(spec),
        )  # fmt: skip
        if not self.whole:
            self.side = nn.Sequential(
                L.conv(spec, inputs, inputs, 3, stride=stride, groups=inputs),
                L.conv(spec, inputs, c // 2), L.act(spec),
            )  # fmt: skip

    def make_shortcut(self, spec: LayerSpec, inputs: int, stride: int) -> None:
        self.shortcut = None

    def forward(self, x: Tensor) -> Tensor:
        if self.whole:
            a, b = x.chunk(2, dim=1)
            y = torch.cat((a, self.branch(b)), dim=1)
        else:
            y = torch.cat((self.side(x), self.branch(x)), dim=1)
        n, c, *size = y.shape[0], y.shape[1], *[y.shape[i] for i in self.axes]
        return y.view(n, 2, c // 2, *size).transpose(1, 2).reshape(n, c, *size)


class Dense(Block):
    """Concatenates new features to its input."""

    growth = 4

    def __init__(self, spec: LayerSpec, stage: StageSpec, inputs: int, stride: int) -> None:
        super().__init__(spec, stage, inputs, stride)
        self.out_channels = inputs + self.growth
        self.norm1, self.act1 = L.norm(spec, inputs), nn.ReLU()
        self.conv1 = L.conv(spec, inputs, 8)
        self.norm2, self.act2 = L.norm(spec, 8), L.act(spec)
        self.conv2 = L.conv(spec, 8, self.growth, stage.kernel, dilation=stage.dilation)

    def make_shortcut(self, spec: LayerSpec, inputs: int, stride: int) -> None:
        self.shortcut = None

    def _gate(self, spec: LayerSpec, stage: StageSpec) -> nn.Module:
        return nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(self.act1(self.norm1(x)))
        return torch.cat([x, self.drop(self.conv2(self.act2(self.norm2(y))))], 1)


class Rep(Block):
    """Parallel linear branches that fold into one convolution."""

    def __init__(self, spec: LayerSpec, stage: StageSpec, inputs: int, stride: int) -> None:
        super().__init__(spec, stage, inputs, stride)
        c = stage.channels
        self.large = nn.Sequential(
            L.conv(spec, inputs, c, stage.kernel, stride=stride), L.norm(spec, c)
        )
        self.small = nn.Sequential(L.conv(spec, inputs, c, stride=stride), L.norm(spec, c))
        self.same = L.norm(spec, c) if stride == 1 and inputs == c else None

    def make_shortcut(self, spec: LayerSpec, inputs: int, stride: int) -> None:
        self.shortcut = None

    def forward(self, x: Tensor) -> Tensor:
        y = self.large(x) + self.small(x)
        if self.same is not None:
            y = y + self.same(x)
        return F.relu(y)


class Mixer(Block):
    """Two residual adds: a token mixer and a channel MLP."""

    def __init__(self, spec: LayerSpec, stage: StageSpec, inputs: int, stride: int) -> None:
        super().__init__(spec, stage, inputs, stride)
        c = stage.channels
        self.down = L.conv(spec, inputs, c, 3, stride=stride) if stride > 1 or inputs != c else None
        pool = L.per_dim(("AvgPool1d", "AvgPool2d", "AvgPool3d"), spec.dims)
        k = stage.kernel
        self.mixer = pool(3, 1, 1) if stage.groups == 1 else L.conv(spec, c, c, k, groups=c)
        self.norm1, self.norm2 = L.norm(spec, c), L.norm(spec, c)
        self.fc1, self.fc2 = L.conv(spec, c, 2 * c), L.conv(spec, 2 * c, c)
        self.act = L.act(spec)

    def make_shortcut(self, spec: LayerSpec, inputs: int, stride: int) -> None:
        self.shortcut = None

    def forward(self, x: Tensor) -> Tensor:
        if self.down is not None:
            x = self.down(x)
        x = x + self.drop(self.mixer(self.norm1(x)))
        return x + self.drop(self.scale(self.fc2(self.act(self.fc1(self.norm2(x))))))


class Highway(Block):
    """x t + y (1 - t): the join is a sum of products."""

    def __init__(self, spec: LayerSpec, stage: StageSpec, inputs: int, stride: int) -> None:
        super().__init__(spec, stage, inputs, stride)
        c = stage.channels
        self.value = nn.Sequential(
            L.conv(spec, inputs, c, stage.kernel, stride=stride), L.norm(spec, c), L.act(spec)
        )
        self.switch = L.conv(spec, inputs, c, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.shortcut is None else self.shortcut(x)
        t = torch.sigmoid(self.switch(x))
        return self.value(x) * t + identity * (1 - t)


class Asymmetric(Block):
    """A k x 1 and a 1 x k convolution (along the first and the last axis)."""

    def __init__(self, spec: LayerSpec, stage: StageSpec, inputs: int, stride: int) -> None:
        super().__init__(spec, stage, inputs, stride)
        c, ones = stage.channels, (1,) * (spec.dims - 1)
        self.conv1 = L.conv(spec, inputs, c, (stage.kernel, *ones), stride=stride)
        self.norm1, self.act1 = L.norm(spec, c), L.act(spec)
        self.conv2 = L.conv(spec, c, c, (*ones, stage.kernel), padding="same")

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(x, self.conv2(self.act1(self.norm1(self.conv1(x)))))


class Cropped(Block):
    """No padding: the shortcut loses its border."""

    def __init__(self, spec: LayerSpec, stage: StageSpec, inputs: int, stride: int) -> None:
        super().__init__(spec, stage, inputs, stride)
        c = stage.channels
        self.conv1 = L.conv(spec, inputs, c, 3, padding="valid")
        self.norm1, self.act1 = L.norm(spec, c), L.act(spec)
        self.conv2 = L.conv(spec, c, c, stride=stride)
        self.crop = (Ellipsis, *(slice(1, -1) for _ in range(spec.dims)))

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(x[self.crop], self.conv2(self.act1(self.norm1(self.conv1(x)))))


class Split(Block):
    """Attention over two kernels (SK): softmax weights sum the branches."""

    def __init__(self, spec: LayerSpec, stage: StageSpec, inputs: int, stride: int) -> None:
        super().__init__(spec, stage, inputs, stride)
        c = stage.channels
        self.axes = tuple(range(3, spec.dims + 3))
        self.a = nn.Sequential(L.conv(spec, inputs, c, 3, stride=stride), L.norm(spec, c))
        self.b = nn.Sequential(L.conv(spec, inputs, c, 5, stride=stride), L.norm(spec, c))
        self.score = nn.Linear(c, c)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.stack([F.relu(self.a(x)), F.relu(self.b(x))], dim=1)
        weights = torch.softmax(self.score(both.mean(self.axes)), dim=1)
        for _ in self.axes:
            weights = weights.unsqueeze(-1)
        return self.finish(x, (both * weights).sum(dim=1))


class Partial(Block):
    """Only a part of the channels is convolved (as FasterNet's blocks do)."""

    def __init__(self, spec: LayerSpec, stage: StageSpec, inputs: int, stride: int) -> None:
        super().__init__(spec, stage, inputs, stride)
        c, self.part = stage.channels, inputs // 4
        self.rest = inputs - self.part
        self.conv = L.conv(spec, self.part, self.part, 3)
        self.wide, self.narrow = L.conv(spec, inputs, 2 * c, stride=stride), L.conv(spec, 2 * c, c)
        self.norm, self.act = L.norm(spec, 2 * c), L.act(spec)

    def forward(self, x: Tensor) -> Tensor:
        a, b = torch.split(x, [self.part, self.rest], dim=1)
        y = torch.cat((self.conv(a), b), 1)
        return self.finish(x, self.narrow(self.act(self.norm(self.wide(y)))))


class Asking(Block):
    """Adds its input where the shapes agree; asserts, counts axes and unpacks sizes on the way."""

    def __init__(self, spec: LayerSpec, stage: StageSpec, inputs: int, stride: int) -> None:
        super().__init__(spec, stage, inputs, stride)
        self.conv = L.conv(spec, inputs, stage.channels, stage.kernel, stride=stride)
        self.norm = L.norm(spec, stage.channels)

    def make_shortcut(self, spec: LayerSpec, inputs: int, stride: int) -> None:
        self.shortcut = None

    def forward(self, x: Tensor) -> Tensor:
        assert x.dim() > 2 and x.shape[1] > 1, "an image"
        y = self.norm(self.conv(x))
        if self.training:
            y = y * x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(0.8)
        mean = y.mean(tuple(range(2, len(y.shape))), keepdim=True)
        y = y - 0.1 * mean
        if y.shape == x.shape:
            return self.last(L.join(self.how, x, y))
        return self.last(y)


class Plain(Block):
    def __init__(self, spec: LayerSpec, stage: StageSpec, inputs: int, stride: int) -> None:
        super().__init__(spec, stage, inputs, stride)
        c = stage.channels
        self.conv = L.conv(
            spec, inputs, c, stage.kernel, stride=stride, dilation=stage.dilation,
            groups=stage.groups,
        )  # fmt: skip
        self.norm, self.act = L.norm(spec, c), L.act(spec)

    def make_shortcut(self, spec: LayerSpec, inputs: int, stride: int) -> None:
        self.shortcut = None

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.gate(self.act(self.norm(self.conv(x)))))


class Separable(Block):
    """Depthwise and pointwise, no join (MobileNetV1)."""

    def __init__(self, spec: LayerSpec, stage: StageSpec, inputs: int, stride: int) -> None:
        super().__init__(spec, stage, inputs, stride)
        c = stage.channels
        self.body = nn.Sequential(
            L.conv(spec, inputs, inputs, stage.kernel, stride=stride, groups=inputs),
            L.norm(spec, inputs), L.act(spec), L.conv(spec, inputs, c), L.norm(spec, c),
            L.act(spec),
        )  # fmt: skip

    def make_shortcut(self, spec: LayerSpec, inputs: int, stride: int) -> None:
        self.shortcut = None

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.body(x))


KINDS: dict[str, type[Block]] = {
    "basic": Basic, "bottleneck": Bottleneck, "inverted": Inverted, "preact": PreAct,
    "convnext": ConvNeXt, "inception": Inception, "shuffle": Shuffle, "dense": Dense, "rep": Rep,
    "mixer": Mixer, "highway": Highway, "asymmetric": Asymmetric, "cropped": Cropped,
    "split": Split, "partial": Partial, "asking": Asking, "plain": Plain, "separable": Separable,
}  # fmt: skip
