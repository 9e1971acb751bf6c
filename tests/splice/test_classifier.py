"""Resetting a classifier: the new layer computes what the old did, or the network is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import rlawrap
from tests.nets import Residual, random_rla

X = torch.randn(2, 3, 12, 12)


class Dense(nn.Module):
    """A layer on the maps of two blocks."""

    def __init__(self, fc: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.Sequential(Residual(8, 8), Residual(8, 8))
        self.fc = fc

    def maps(self, x: Tensor) -> Tensor:
        return self.body(self.stem(x))

    def forward(self, x: Tensor) -> Any:
        return self.fc(self.maps(x))


class Pooled(Dense):
    """A layer on the mean of the maps; `then` makes the output of its own."""

    def __init__(self, fc: nn.Module, then: Callable[[Tensor], Any] = lambda y: y) -> None:
        super().__init__(fc)
        self.then = then

    def forward(self, x: Tensor) -> Any:
        return self.then(self.fc(self.maps(x).mean((2, 3))))


class Cosine(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return F.linear(F.normalize(input), F.normalize(self.weight))


class Renamed(nn.Linear):
    """A linear layer of a library, which does nothing of its own."""


class Guarded(nn.Linear):
    """A linear layer with a forward of its own that computes the same."""

    def forward(self, input: Tensor) -> Tensor:
        return input.new_zeros(0) if input.numel() == 0 else super().forward(input)


class Guarded2d(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.weight, self.bias)


CONVS: list[Callable[[], nn.Conv2d]] = [
    lambda: nn.Conv2d(8, 4, 3, padding=4, dilation=4, padding_mode="reflect"),
    lambda: nn.Conv2d(8, 4, (3, 1), stride=(2, 1), padding="valid", bias=False),
    lambda: nn.Conv2d(8, 4, 1, groups=4),
    lambda: Guarded2d(8, 4, 3, padding=1, padding_mode="circular"),
]


@pytest.mark.parametrize("make", CONVS)
def test_the_new_convolution_computes_with_the_settings_of_the_old(
    make: Callable[[], nn.Conv2d],
) -> None:
    model = rlawrap.apply(Dense(make()).eval(), k=4)
    before, old = model(X), model.fc
    model.reset_classifier(8)
    assert model(X).shape == (2, 8, *before.shape[2:])
    with torch.no_grad():
        for mine, its in zip(model.fc.parameters(), old.parameters(), strict=True):
            mine[::2] = its
    assert torch.equal(model(X)[:, ::2], before)


@pytest.mark.parametrize("fc", [Renamed(8, 5), Guarded(8, 5), Guarded(8, 5, bias=False)])
def test_a_child_of_a_layer_that_computes_the_same_is_reset(fc: nn.Linear) -> None:
    model = random_rla(rlawrap.apply(Pooled(fc).eval(), k=4))
    before, old = model(X), (fc.weight, model.rla.head.join["0"].linear.weight)
    model.reset_classifier(6)
    with torch.no_grad():
        model.fc.weight[:5] = old[0]
        model.rla.head.join["0"].linear.weight[:5] = old[1]
        if fc.bias is not None:
            model.fc.bias[:5] = fc.bias
    assert model(X).shape == (2, 6) and torch.allclose(model(X)[:, :5], before, atol=1e-6)


@pytest.mark.parametrize(
    ("base", "kind"),
    [
        (Dense(nn.ConvTranspose2d(8, 4, 4, 2, 1)), "fc is a ConvTranspose2d, and a plain layer"),
        (Pooled(Cosine(8, 5, bias=False)), "fc is a Cosine, and a plain Linear"),
        (Pooled(parametrizations.weight_norm(nn.Linear(8, 5))), "fc is a ParametrizedLinear"),
        (Pooled(parametrizations.spectral_norm(nn.Linear(8, 5))), "fc is a ParametrizedLinear"),
        (Pooled(nn.utils.spectral_norm(nn.Linear(8, 5))), "fc is a Linear, and a plain Linear"),
    ],
)
def test_a_layer_that_computes_otherwise_is_not_replaced(base: nn.Module, kind: str) -> None:
    model = rlawrap.apply(base.eval(), k=4)
    before, old = model(X), model.fc
    with pytest.raises(rlawrap.PlanError, match=kind) as caught:
        model.reset_classifier(7)
    assert "replace the layer in the base (rlawrap.unwrap(model)) and apply again" in str(
        caught.value
    )
    assert model.fc is old and torch.equal(model(X), before)
    model.reset_classifier(0)  # leaving it out puts nothing in its place
    assert model(X).shape[1] == 8


class Functional(Pooled):
    """The classifier is a weight of the network's own behind a hidden layer."""

    def __init__(self, product: bool) -> None:
        super().__init__(nn.Linear(8, 12))
        self.weight = nn.Parameter(torch.randn(12, 5) if product else torch.randn(5, 12))
        self.product = product

    def forward(self, x: Tensor) -> Any:
        hidden = super().forward(x)
        return hidden @ self.weight if self.product else F.linear(hidden, self.weight)


class Shuffled(Dense):
    def forward(self, x: Tensor) -> Any:
        return F.pixel_shuffle(super().forward(x), 2)


@pytest.mark.parametrize(
    ("base", "told"),
    [
        (Functional(product=True), "with 13 in place of 12 the network does not run"),
        (Functional(product=False), "with 13 in place of 12 the network does not run"),
        (Shuffled(nn.Conv2d(8, 12, 3, padding=1)), "with 13 in place of 12 the network"),
        (Pooled(nn.Linear(8, 10), lambda y: y.view(-1, 5, 2).max(2)[0]), "with 11 in place of 10"),
        (Pooled(nn.Linear(8, 10), F.glu), "with 11 in place of 10"),
        (Pooled(nn.Linear(8, 10), lambda y: y[:, :5]), "no output of the network has an axis"),
        (Pooled(nn.Linear(8, 10), lambda y: y.flatten()), "an axis of its 10 outputs"),
    ],
)
@pytest.mark.parametrize("classes", [0, 8, 10])
def test_a_hidden_layer_is_not_taken_for_the_classifier(
    base: nn.Module, told: str, classes: int
) -> None:
    model = rlawrap.apply(base.eval(), k=4)
    before = model(X)
    with pytest.raises(rlawrap.PlanError, match=told) as caught:
        model.reset_classifier(classes)
    assert "reset_classifier: fc (" in str(caught.value)
    assert torch.equal(model(X), before)


class Scaled(Pooled):
    def __init__(self) -> None:
        super().__init__(nn.Linear(8, 5))
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> Any:
        return super().forward(x) * self.scale


@pytest.mark.parametrize(
    ("base", "shapes"),
    [
        (Scaled(), [(2, 7)]),
        (Pooled(nn.Linear(8, 1), lambda y: y.squeeze(1)), [(2, 7)]),
        (Pooled(nn.Linear(8, 5), lambda y: (y.softmax(1), y.argmax(1))), [(2, 7), (2,)]),
        (Pooled(nn.Linear(8, 5), lambda y: y.flatten(1)), [(2, 7)]),
    ],
)
def test_what_follows_the_number_of_classes_is_reset(
    base: nn.Module, shapes: list[tuple[int, ...]]
) -> None:
    model = random_rla(rlawrap.apply(base.eval(), k=4))
    model.reset_classifier(7)
    made = model(X)
    assert [m.shape for m in (made if isinstance(made, tuple) else (made,))] == shapes
    assert model.rla.head.join["0"].linear.out_features == 7


class Columns(Dense):
    """Text recognition: a layer on the columns of all images as rows."""

    def __init__(self, last: int) -> None:
        super().__init__(nn.Linear(8, 5))
        self.last = last

    def forward(self, x: Tensor) -> Any:
        f = self.maps(x).mean(2).permute(2, 0, 1)
        columns, batch, width = f.size()
        rows = self.fc(f.reshape(columns * batch, width))
        return rows.view(columns, batch, self.last)


def test_h_joins_a_layer_on_columns_with_the_rows_of_its_own() -> None:
    base = Columns(-1).eval()
    model = rlawrap.apply(base, k=4)
    assert model.plan.joined == ("fc",) and torch.equal(model(X), base(X))
    random_rla(model)
    both = model(X)
    assert not torch.allclose(both, base(X), atol=1e-3)
    for i in range(2):  # no column of h is added to another image
        assert torch.allclose(model(X[i : i + 1]), both[:, i : i + 1], atol=1e-5)


def test_a_classifier_between_sizes_of_the_image() -> None:
    model = random_rla(rlawrap.apply(Columns(-1).eval(), k=4))
    model.reset_classifier(7)
    assert model(X).shape == (12, 2, 7)
    assert model(torch.randn(3, 3, 12, 20)).shape == (20, 3, 7)
    model.reset_classifier(0)
    assert model(X).shape == (12, 2, 8)
    fixed = rlawrap.apply(Columns(5).eval(), k=4)
    with pytest.raises(rlawrap.PlanError, match=r"fc \(Linear\).*with 6 in place of 5.*not run"):
        fixed.reset_classifier(7)


def test_groups_divide_the_classes() -> None:
    model = rlawrap.apply(Dense(nn.Conv2d(8, 4, 1, groups=4)).eval(), k=4)
    with pytest.raises(rlawrap.ConfigError, match=r"'fc' has 4 groups.*reset_classifier\(12\)"):
        model.reset_classifier(9)
    assert model.fc.out_channels == 4
    model.reset_classifier(12)
    assert model(X).shape == (2, 12, 12, 12)
