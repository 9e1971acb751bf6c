"""What forward returns keeps its class, its structure and what is no tensor in it."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, namedtuple
from types import SimpleNamespace
from typing import Any

import pytest
from torch import Tensor

from tests.capture.checking import Net, applied, check, images


@dataclasses.dataclass
class ModelOutput(OrderedDict):  # type: ignore[type-arg]
    """A dict with attributes, as model outputs are: keys of None are left out."""

    logits: Tensor | None = None
    hidden: tuple[Tensor, ...] | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) is not None:
                self[field.name] = getattr(self, field.name)

    def to_tuple(self) -> tuple[Any, ...]:
        return tuple(self[key] for key in self)


@dataclasses.dataclass(frozen=True)
class Frozen:
    logits: Tensor
    name: str = "frozen"


@dataclasses.dataclass(slots=True)
class Slots:
    logits: Tensor


class Attributes(dict):  # type: ignore[type-arg]
    """A dict whose keys are attributes, too."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


Named = namedtuple("Named", "logits aux")


class Returns(Net):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Any:
        y = self.stem(x)
        z = self.fc(self.body(y).mean((2, 3)))
        return {
            "model output": lambda: ModelOutput(logits=z),
            "with a tuple": lambda: ModelOutput(logits=z, hidden=(y, z)),
            "frozen": lambda: Frozen(z),
            "slots": lambda: Slots(z),
            "dict": lambda: {"out": z, "none": None, "size": 3},
            "ordered": lambda: OrderedDict(out=z, aux=y),
            "attributes": lambda: Attributes(logits=z),
            "named tuple": lambda: Named(z, aux=y),
            "nested": lambda: [z, (y, {"more": [z]})],
            "namespace": lambda: SimpleNamespace(logits=z, name="n"),
        }[self.kind]()


KINDS = [
    "model output", "with a tuple", "frozen", "slots", "dict", "ordered", "attributes",
    "named tuple", "nested", "namespace",
]  # fmt: skip


def _tensors_left_out(value: Any) -> Any:
    """A value with its tensors replaced by their shapes, to compare everything else."""
    if isinstance(value, Tensor):
        return tuple(value.shape)
    if isinstance(value, dict):
        return {k: _tensors_left_out(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [_tensors_left_out(v) for v in value]
    return value


@pytest.mark.parametrize("kind", KINDS)
def test_the_class_of_the_output_is_kept(kind: str) -> None:
    base = Returns(kind)
    model = applied(base)
    x, *more = images()
    got, expected = model.eval()(x), base.eval()(x)
    for a in (got, expected):
        assert type(a) is type(expected)
    if isinstance(expected, (dict, list, tuple)):
        assert _tensors_left_out(got) == _tensors_left_out(expected)
    names = getattr(got, "__dict__", {})
    assert list(names) == list(getattr(expected, "__dict__", {}))
    for name in names:
        assert _tensors_left_out(getattr(got, name)) == _tensors_left_out(getattr(expected, name))
    if kind in ("frozen", "slots", "namespace", "attributes", "model output"):
        assert got.logits.shape == (2, 5)
    if kind == "with a tuple":
        assert [t.shape for t in got.to_tuple()[1]] == [(2, 8, 16, 16), (2, 5)]
    check(base, model, [x, *more])
