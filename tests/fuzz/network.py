"""Random networks written with modules: stem, stages, perhaps a way up, a head, and its answers."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tests.fuzz import layers as L
from tests.fuzz.conditioning import ConditionedStage
from tests.fuzz.decoders import Decoder
from tests.fuzz.spec import NetSpec
from tests.fuzz.stages import Steps, build_stage

CLASSES = 5
IMAGE_CHANNELS = 3


@dataclass
class Output(OrderedDict):  # type: ignore[type-arg]
    """A dict with attributes, as the outputs of models are."""

    logits: Any = None
    features: Any = None

    def __post_init__(self) -> None:
        self.update(logits=self.logits, features=self.features)


class Answer(NamedTuple):
    logits: Any
    auxiliary: Any


def build_stem(spec: NetSpec, channels: int) -> nn.Sequential:
    ls, d = spec.layers, spec.layers.dims
    pool = L.per_dim(("MaxPool1d", "MaxPool2d", "MaxPool3d"), d)
    if spec.stem == "patch":
        return nn.Sequential(
            L.conv(ls, IMAGE_CHANNELS, channels, 2, stride=2, padding=0), L.norm(ls, channels)
        )
    if spec.stem == "valid":
        return nn.Sequential(
            L.conv(ls, IMAGE_CHANNELS, channels, 3, padding="valid"), L.norm(ls, channels),
            L.act(ls),
        )  # fmt: skip
    stride = 2 if spec.stem == "stride" else 1
    parts = [
        L.conv(ls, IMAGE_CHANNELS, channels, 3, stride=stride),
        L.norm(ls, channels),
        L.act(ls),
    ]
    if spec.stem == "pool":
        parts.append(pool(3, 2, 1))
    if spec.stem == "ceil":
        parts.append(pool(3, 2, ceil_mode=True))
    return nn.Sequential(*parts)


class Head(nn.Module):
    """The way from the last image to the answer."""

    def __init__(self, spec: NetSpec, channels: int, pixels: int) -> None:
        super().__init__()
        ls, d = spec.layers, spec.layers.dims
        self.kind = spec.head
        self.axes = tuple(range(2, d + 2))
        kinds = ("AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveAvgPool3d")
        self.pool = L.per_dim(kinds, d)(1)
        if spec.head == "maximum":
            kinds = ("AdaptiveMaxPool1d", "AdaptiveMaxPool2d", "AdaptiveMaxPool3d")
            self.pool = L.per_dim(kinds, d)(1)
        if spec.head == "convolutional":
            self.last = L.conv(ls, channels, CLASSES)
        elif spec.head in ("flatten", "view"):
            self.last = nn.Linear(channels * pixels, CLASSES)
        elif spec.head == "mobile":
            self.mix = nn.Sequential(L.conv(ls, channels, 8), L.norm(ls, 8), L.act(ls))
            self.last = nn.Linear(8, CLASSES)
        elif spec.head == "mlp":
            self.mix = nn.Sequential(nn.Linear(channels, 8), nn.ReLU(), nn.Dropout(0.2))
            self.last = nn.Linear(8, CLASSES)
        elif spec.head != "none":
            self.norm = L.norm(ls, channels)
            self.normed = nn.LayerNorm(channels)
            self.dropout = nn.Dropout(0.2)
            self.last = nn.Linear(channels, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "none":
            return x
        if self.kind == "convolutional":
            return self.last(x)
        if self.kind == "flatten":
            return self.last(torch.flatten(x, 1))
        if self.kind == "view":
            return self.last(x.reshape(x.size(0), -1))
        if self.kind == "mobile":
            return self.last(self.mix(x).mean(self.axes))
        if self.kind == "mlp":
            return self.last(self.mix(self.pool(x).flatten(1)))
        if self.kind == "mean":
            return self.last(self.norm(x).mean(self.axes))
        x = torch.flatten(self.pool(x), 1)
        if self.kind == "normed":
            x = self.normed(x)
        if self.kind == "dropout":
            x = self.dropout(x)
        return self.last(x)


class Network(nn.Module):
    """All but the signature of `forward`."""

    def __init__(self, spec: NetSpec) -> None:
        super().__init__()
        channels = 8
        self.answer = spec.output
        self.stem = build_stem(spec, channels)
        widths = []
        guides = IMAGE_CHANNELS if spec.arguments == "guide" else 0
        self.stage_names = []
        for i, stage in enumerate(spec.stages):
            module, channels = build_stage(spec.layers, stage, channels, guides)
            self.add_module(f"stage{i}", module)
            self.stage_names.append(f"stage{i}")
            widths.append(channels)
        self.decoder = None
        if spec.decoder != "none" and len(widths) > 1:
            strides = [stage.stride for stage in spec.stages[1:]]
            self.decoder = Decoder(spec.layers, spec.decoder, spec.skips, widths, strides)
            channels = widths[0]
        if spec.output == "auxiliary":
            self.auxiliary = nn.Linear(widths[0], CLASSES)
        if spec.output != "stages":
            self.head = Head(spec, channels, self._pixels(spec) if self._flat(spec) else 1)
        if spec.alias:
            self.first_layer = self.stem[0]
        if spec.arguments == "condition":
            self.condition = nn.Linear(4, 8)
        self.spread = (slice(None), slice(None), *(None,) * spec.layers.dims)

    @staticmethod
    def _flat(spec: NetSpec) -> bool:
        return spec.head in ("flatten", "view")

    def _pixels(self, spec: NetSpec) -> int:
        with torch.no_grad():
            was = self.training
            self.eval()
            image = torch.zeros(1, IMAGE_CHANNELS, *spec.size)
            x = self.features(self.stem(image), image)[-1]
            self.train(was)
        return x[0, 0].numel()

    def features(self, x: Tensor, guide: Tensor | None = None) -> list[Tensor]:
        found = []
        for name in self.stage_names:
            stage = getattr(self, name)
            if isinstance(stage, ConditionedStage):
                x = stage(x, guide)
            elif isinstance(stage, Steps):
                x = stage.first(x)
                for step in stage.members:
                    x = torch.relu(L.join(stage.how, x, step(x)))
            elif isinstance(stage, nn.ModuleList):
                for block in stage:
                    x = block(x)
            else:
                x = stage(x)
            found.append(x)
        if self.decoder is not None:
            found.append(self.decoder(found))
        return found

    def answers(self, x: Tensor, guide: Tensor | None = None) -> Any:
        features = self.features(self.stem(x), guide)
        if self.answer == "stages":
            return OrderedDict((str(i), f) for i, f in enumerate(features))
        logits = self.head(features[-1])
        if self.answer == "tuple":
            return logits, features[-1]
        if self.answer == "class":
            return Output(logits, features=(features[0],))
        if self.answer == "list":
            return [features[0], logits]
        if self.answer == "dict":
            return {"features": features[-1], "out": logits}
        if self.answer == "named":
            return Answer(logits, features[0])
        if self.answer == "auxiliary" and self.training:
            return Answer(logits, self.auxiliary(features[0].flatten(2).mean(2)))
        return logits


class OfImage(Network):
    def forward(self, x: Tensor) -> Any:
        return self.answers(x)


class OfOptional(Network):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Any:
        if mask is not None:
            x = x * mask
        return self.answers(x)


class OfFlag(Network):
    def forward(self, x: Tensor, return_features: bool = False) -> Any:
        if return_features:
            return self.features(self.stem(x))
        return self.answers(x)


class OfKeyword(Network):
    def forward(self, *, image: Tensor, scale: float = 1.0) -> Any:
        return self.answers(image * scale)


class OfExtra(Network):
    def forward(self, x: Tensor, **kwargs: Any) -> Any:
        return self.answers(x * kwargs.get("scale", 1.0))


class OfCondition(Network):
    """A second required input: a vector that shifts the channels of the first stage."""

    def forward(self, x: Tensor, condition: Tensor) -> Any:
        shift = self.condition(condition)[self.spread]
        x = x * torch.tanh(shift).mean(1, keepdim=True)
        return self.answers(x)


class OfGuide(Network):
    """A second image, which conditions the stages that take one."""

    def forward(self, x: Tensor, guide: Tensor) -> Any:
        return self.answers(x + 0.1 * guide.mean(), guide)


class OfAsking(Network):
    """Asks what its input is; nothing but a tensor is left as it is."""

    def forward(self, x: Tensor) -> Any:
        known = isinstance(x, Tensor) and torch.is_tensor(x) and type(x) is Tensor
        known = known and {x.ndim: True}[len(x.shape)] and torch.is_floating_point(x)
        return self.answers(x if known else x * 0)


class OfDomain(Network):
    """A string chooses a layer."""

    def __init__(self, spec: NetSpec) -> None:
        super().__init__(spec)
        self.domains = nn.ModuleDict({n: L.Scale(IMAGE_CHANNELS, spec.layers.dims) for n in "ab"})

    def forward(self, x: Tensor, domain: str = "a") -> Any:
        return self.answers(self.domains[domain](x))


class OfList(Network):
    """A list of two images."""

    def forward(self, images: list[Tensor]) -> Any:
        return self.answers(images[0] + images[1].tanh())


def taking_options(forward: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def call(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        kwargs.pop("option", None)
        return forward(self, *args, **kwargs)

    return call


class OfDecorated(Network):
    """The image has a default, and a decorator takes an option away."""

    @taking_options
    def forward(self, x: Tensor | None = None, labels: Tensor | None = None) -> Any:
        if x is None:
            raise ValueError("x is missing")
        return self.answers(x)


SIGNATURES: Mapping[str, type[Network]] = {
    "image": OfImage, "optional": OfOptional, "mask": OfOptional, "flag": OfFlag,
    "keyword": OfKeyword, "extra": OfExtra, "condition": OfCondition, "asking": OfAsking,
    "domain": OfDomain, "listed": OfList, "decorated": OfDecorated,
    "guide": OfGuide,
}  # fmt: skip
