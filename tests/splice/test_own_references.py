"""Networks that know themselves: hooks that are bound to them, children that know their parent."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rlawrap
from tests.nets import BlockNet, random_rla


class Hooked(BlockNet):
    """Keeps the shapes of what its second block returns, by a hook bound to it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []
        self.body[1].register_forward_hook(self.keep)

    def keep(self, module: nn.Module, args: Any, out: Tensor) -> None:
        self.seen.append(tuple(out.shape))


class Renaming(BlockNet):
    """Reads old checkpoints by a hook bound to it."""

    def __init__(self) -> None:
        super().__init__()
        self.read = 0
        self._register_load_state_dict_pre_hook(self.rename)

    def rename(self, *loading: Any) -> None:
        self.read += 1


class Parent(BlockNet):
    """Its first block knows it."""

    def __init__(self) -> None:
        super().__init__()
        object.__setattr__(self.body[0], "root", self)


class Stateful(Hooked):
    """Says itself what is copied of it."""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "seen": []}


def _saved(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


WAYS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "save": _saved,
    "deepcopy": copy.deepcopy,
}
#: It keeps shapes in a list of its own.
pytestmark = pytest.mark.filterwarnings("ignore:.*sets its attribute .seen:rlawrap.RLAWarning")
X = torch.randn(2, 3, 16, 16)


def _copied(net: type[nn.Module], way: str) -> tuple[rlawrap.RLAModel, rlawrap.RLAModel]:
    """A rewritten network and its copy, which has the outputs, h's part among them."""
    model = random_rla(rlawrap.apply(net(), k=4).eval())
    twin = WAYS[way](model)
    assert isinstance(twin, net) and isinstance(twin, rlawrap.RLAModel)
    y = model(X)
    assert torch.equal(twin(X), y)
    with rlawrap.disabled(twin):
        assert not torch.allclose(twin(X), y)
    return model, twin


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("net", [Hooked, Stateful])
def test_a_hook_of_the_copy_is_bound_to_the_copy(net: type[Hooked], way: str) -> None:
    model, twin = _copied(net, way)
    model.seen.clear(), twin.seen.clear()
    twin(X)
    assert (model.seen, twin.seen) == ([], [(2, 16, 8, 8)])
    (hook,) = twin.body[1]._forward_hooks.values()
    assert hook.__self__ is twin


@pytest.mark.parametrize("way", WAYS)
def test_a_hook_on_loading_is_bound_to_the_copy(way: str) -> None:
    model, twin = _copied(Renaming, way)
    before = model.read, twin.read
    twin.load_state_dict(model.state_dict())
    assert (model.read, twin.read) == (before[0], before[1] + 1)


@pytest.mark.parametrize("way", WAYS)
def test_a_child_knows_the_copy_as_its_parent(way: str) -> None:
    model, twin = _copied(Parent, way)
    assert model.body[0].root is model
    assert twin.body[0].root is twin


@pytest.mark.parametrize("net", [Hooked, Stateful, Parent])
def test_what_is_unwrapped_refers_to_itself(net: type[nn.Module]) -> None:
    base = rlawrap.unwrap(rlawrap.apply(net(), k=4))
    assert type(base) is net
    if net is Parent:
        assert base.body[0].root is base
    else:
        (hook,) = base.body[1]._forward_hooks.values()
        assert hook.__self__ is base


def test_a_copy_of_a_copy_and_a_pickle_of_a_model_around_it() -> None:
    model = random_rla(rlawrap.apply(Hooked(), k=4).eval())
    around = nn.Sequential(nn.Identity(), copy.deepcopy(copy.deepcopy(model)))
    for twin in (copy.deepcopy(around), pickle.loads(pickle.dumps(around))):
        assert torch.equal(twin(X), model(X))
        (hook,) = twin[1].body[1]._forward_hooks.values()
        assert hook.__self__ is twin[1]
