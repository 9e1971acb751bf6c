"""Code older than `dtype` and `device`: types of tensors by name, and `requires_grad = False`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import rlawrap
from tests.capture.checking import BODY, Net, check, images


class Old(Net):
    def __init__(self, how: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.how = how

    def before(self, x: Tensor) -> Tensor:
        return self.how(x)


def _wide(x: Tensor) -> Tensor:
    return torch.full((x.size(0), 1, 1, 1), 0.3, dtype=torch.float64)


def _frozen(x: Tensor) -> Tensor:
    shift = torch.ones(x.size(0), 1, 1, 1)
    shift.requires_grad = False
    return x + shift


HOW: dict[str, Callable[[Tensor], Tensor]] = {
    "as x is": lambda x: x + _wide(x).type(x.type()),
    "a name": lambda x: x + _wide(x).type("torch.FloatTensor"),
    "a class": lambda x: x + _wide(x).type(torch.FloatTensor),
    "a dtype": lambda x: x + _wide(x).type(torch.float32),
    "compared": lambda x: x * 2 if x.type() == "torch.FloatTensor" else x * 3,
    "an instance": lambda x: x * 2 if isinstance(x, torch.FloatTensor) else x * 3,  # type: ignore[arg-type]
    "one of two": lambda x: x * 2 if isinstance(x, (int, torch.DoubleTensor)) else x * 3,  # type: ignore[arg-type]
    "no gradient": _frozen,
}


@pytest.mark.parametrize("how", HOW)
def test_types_by_name(how: str) -> None:
    base = Old(HOW[how])
    model = rlawrap.apply(base, k=4)
    assert [b.path for b in model.plan.blocks] == BODY
    check(base, model, images())


def test_a_network_of_another_type_has_its_own() -> None:
    base = Old(HOW["as x is"]).double()
    doubles = [x.double() for x in images([(2, 16, 16), (3, 9, 12)])]
    check(base, rlawrap.apply(base, k=4), doubles)


def test_a_type_that_was_asked_for_follows_the_model() -> None:
    base = Old(HOW["as x is"])
    model = rlawrap.apply(base, k=4).double().eval()
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    assert model(x).dtype == torch.float64
    torch.testing.assert_close(model(x), base.double().eval()(x), rtol=0, atol=1e-12)
