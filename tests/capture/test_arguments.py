"""How forward is called: an image with a default, decorators, lists, options."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn

import rlawrap
from tests.capture.checking import Net, applied, check, images, tensors_of

IMAGE = torch.randn(2, 3, 16, 16)


class Optional(Net):
    def forward(self, pixel_values: Tensor | None = None) -> Tensor:
        if pixel_values is None:
            raise ValueError("pixel_values is missing")
        return self.features(pixel_values)


def taking_options(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that takes an option out of the keywords before it calls the forward."""

    @functools.wraps(forward)
    def call(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        as_dict = kwargs.pop("return_dict", True)
        output = forward(self, *args, **kwargs)
        return output if as_dict else tuple(output.values())

    return call


class Decorated(Net):
    @taking_options
    def forward(self, pixel_values: Tensor | None = None, labels: Tensor | None = None) -> Any:
        if pixel_values is None:
            raise ValueError("pixel_values is missing")
        logits = self.features(pixel_values)
        output = {"logits": logits}
        if labels is not None:
            output["loss"] = nn.functional.cross_entropy(logits, labels)
        return output


class KeywordOnly(Net):
    def forward(self, *, x: Tensor) -> Tensor:
        return self.features(x)


@pytest.mark.parametrize("net", [Optional, Decorated])
@pytest.mark.parametrize("example", [None, IMAGE, {"pixel_values": IMAGE}])
def test_an_image_with_a_default(net: type[Net], example: Any) -> None:
    base = net()
    model = applied(base, example_input=example)
    x = torch.randn(3, 3, 20, 20)
    a, b = base.eval()(pixel_values=x), model.eval()(pixel_values=x)
    for value, expected in zip(tensors_of(b), tensors_of(a), strict=True):
        torch.testing.assert_close(value, expected)
    check(base, model, images())


def test_keyword_only() -> None:
    base = KeywordOnly().eval()
    for example in (None, {"x": IMAGE}):
        model = applied(base, example_input=example).eval()
        torch.testing.assert_close(model(x=IMAGE), base(x=IMAGE))


def test_options_that_a_decorator_takes() -> None:
    base = Decorated()
    model = applied(base, example_input={"pixel_values": IMAGE, "return_dict": False}).eval()
    (got,) = model(IMAGE, return_dict=False)
    (expected,) = base.eval()(IMAGE, return_dict=False)
    torch.testing.assert_close(got, expected)
    with pytest.raises(AssertionError, match=r"with kwargs of the keys .'return_dict'."):
        model(IMAGE)
    with pytest.raises(AssertionError, match=r"'\]=False and takes no other value; give apply"):
        model(IMAGE, return_dict=True)


def test_labels_of_the_example() -> None:
    base = Decorated()
    labels = torch.tensor([1, 0])
    model = applied(base, example_input={"pixel_values": IMAGE, "labels": labels})
    more = torch.randn(5, 3, 20, 28), torch.tensor([0, 1, 2, 3, 4])
    check(base, model, [(IMAGE, labels), more])
    with pytest.raises(AssertionError, match="traced with labels=None and takes no other"):
        applied(base, example_input=IMAGE)(*more)


class Pair(Net):
    def __init__(self) -> None:
        super().__init__()
        self.depth = nn.Conv2d(1, 8, 3, padding=1)

    def fuse(self, rgb: Tensor, depth: Tensor) -> Tensor:
        return self.fc(self.body(self.stem(rgb) + self.depth(depth)).mean((2, 3)))


class Starred(Pair):
    def forward(self, *images: Tensor) -> Tensor:
        return self.fuse(*images)


class Listed(Pair):
    def forward(self, x: list[Tensor]) -> Tensor:
        return self.fuse(x[0], x[1])


class Named(Pair):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self.fuse(batch["rgb"], batch["depth"])


def rgbd(n: int, h: int, w: int) -> tuple[Tensor, Tensor]:
    return torch.randn(n, 3, h, w), torch.randn(n, 1, h, w)


PAIRS: list[tuple[type[Pair], Callable[..., Any]]] = [
    (Starred, lambda a, b: (a, b)),
    (Listed, lambda a, b: ([a, b],)),
    (Named, lambda a, b: ({"rgb": a, "depth": b},)),
]


@pytest.mark.parametrize(("net", "pack"), PAIRS)
def test_several_tensors(net: type[Pair], pack: Callable[..., Any]) -> None:
    base = net()
    model = applied(base, example_input=pack(*rgbd(2, 16, 16)))
    check(base, model, [pack(*rgbd(*size)) for size in ((2, 16, 16), (5, 20, 17), (1, 32, 8))])


class Written(Pair):
    """Writes what it computes into the list that it is given, and keeps to one size."""

    def forward(self, x: list[Tensor]) -> Tensor:
        images = list(x)
        x[0] = self.stem(nn.functional.avg_pool2d(x[0], 2))
        rows = numpy.zeros(images[0].shape[2]).size
        scale = images[0].reshape(-1, 3, rows, rows).mean() * 0
        return self.fc(self.body(self.stem(images[0]) + self.depth(x[1])).mean((2, 3))) + scale


def test_a_list_that_forward_writes_into() -> None:
    base, pair = Written(), rgbd(2, 16, 16)
    model = applied(base, example_input=(list(pair),)).eval()
    assert any("16x16" in note for note in model.plan.notes)
    assert torch.equal(model(list(pair)), base.eval()(list(pair)))
    with pytest.raises(AssertionError, match=r"image size of \(2, 3, 16, 16\)"):
        model(list(rgbd(2, 20, 20)))


def test_another_number_of_tensors_is_refused() -> None:
    model = applied(Listed(), example_input=(list(rgbd(2, 16, 16)),)).eval()
    with pytest.raises(AssertionError, match=r"with 2 values in x"):
        model([IMAGE, IMAGE[:, :1], IMAGE])
    named = applied(Named(), example_input=({"rgb": IMAGE, "depth": IMAGE[:, :1]},)).eval()
    with pytest.raises(AssertionError, match=r"with batch of the keys .'rgb', 'depth'."):
        named({"rgb": IMAGE})


class ByDomain(Net):
    def __init__(self) -> None:
        super().__init__()
        norms = {"syn": nn.BatchNorm2d(8), "real": nn.BatchNorm2d(8, affine=False)}
        self.norms = nn.ModuleDict(norms)

    def forward(self, x: Tensor, domain: str = "syn", times: int = 1, loud: bool = False) -> Tensor:
        x = self.norms[domain](self.stem(x))
        for _ in range(times):
            x = torch.tanh(x)
        x = self.body(x * 2 if loud else x)
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize("options", [(), ("real",), ("syn", 3), ("real", 2, True)])
def test_options_are_those_of_the_example(options: tuple[Any, ...]) -> None:
    base = ByDomain()
    model = applied(base, example_input=(IMAGE, *options))
    check(base, model, [(x, *options) for x in images()])
    for other in (("real", 1, True), ("syn", 2)):
        with pytest.raises(AssertionError, match=r"traced with (domain|times|loud)=.* no other"):
            model(IMAGE, *other)


def test_a_wrong_example_is_named() -> None:
    with pytest.raises(rlawrap.PlanError, match=r"no place for .'y'.; the network takes .'x'."):
        rlawrap.inspect(Net(), example_input={"y": IMAGE})
    with pytest.raises(rlawrap.PlanError, match="has 2 values, the network takes"):
        rlawrap.inspect(Net(), example_input=(IMAGE, IMAGE))
    with pytest.raises(rlawrap.PlanError, match="the input 'rgb' has no value"):
        rlawrap.inspect(_Two())


class _Two(Pair):
    def forward(self, depth: Tensor, rgb: Tensor) -> Tensor:
        return self.fuse(rgb, depth)
