"""A network whose forward, and other methods, were bound to it after it was made."""

from __future__ import annotations

import copy
import pickle
import types
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rlawrap
from tests.nets import BlockNet, Residual, random_rla, relative, uneven

X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(5))


def features(self: Any, x: Tensor) -> Tensor:
    return self.body(self.stem(x))


def logits(self: Any, y: Tensor) -> Tensor:
    return self.last(y.amax((2, 3)))


def forward(self: Any, image: Tensor) -> Tensor:
    return self.logits(self.features(image))


def bound(net: nn.Module, *functions: Any) -> nn.Module:
    for function in functions:
        setattr(net, function.__name__, types.MethodType(function, net))
    return net


def network() -> Any:
    """Its class's own forward cannot run: the classifier has another name."""
    torch.manual_seed(3)
    net = uneven(BlockNet())
    net.last, net.fc = net.fc, None  # type: ignore[assignment]
    return bound(net, features, logits, forward).eval()


def rewritten(base: nn.Module) -> Any:
    return random_rla(rlawrap.apply(base, k=4))


def test_the_bound_forward_is_rewritten_and_not_the_class_s() -> None:
    base = network()
    model = rlawrap.apply(base, k=4)
    assert [b.path for b in model.plan.blocks] == ["body.0", "body.1", "body.2"]
    assert model.plan.head == ("last",) and isinstance(model, BlockNet)
    assert torch.equal(model(image=X), base(X))
    assert base.forward.__self__ is base and type(base) is BlockNet
    assert not {"forward", "features", "logits"} & vars(model).keys()
    random_rla(model)
    assert relative(base(X), model(X)) > 1e-4
    with rlawrap.disabled(model):
        assert torch.equal(model(X), base(X))
        assert torch.equal(model.features(X), base.features(X))


def test_its_other_methods_run_with_h() -> None:
    base, model = network(), rewritten(network())
    assert relative(base.features(X), model.features(X)) > 1e-4
    assert torch.equal(model.logits(model.features(X)), model(X))
    with pytest.raises(rlawrap.PlanError, match="give it what features"):
        model.logits(base.features(X))


def test_a_method_beside_a_class_s_forward_runs_with_h() -> None:
    class Plain(BlockNet):
        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.features(x).mean((2, 3)))

    base = bound(uneven(Plain()), features).eval()
    model = rewritten(base)
    assert relative(base.features(X), model.features(X)) > 1e-4  # type: ignore[operator]
    assert "features" in vars(rlawrap.unwrap(model))


def test_copies_and_pickles_run_on_their_own() -> None:
    model = rewritten(network())
    y = model(X)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(X), y)
        with torch.no_grad():
            twin.last.bias += 1
        assert torch.allclose(twin(X), y + 1) and torch.equal(model(X), y)
        base = rlawrap.unwrap(twin)
        assert torch.allclose(base(X), network()(X) + 1, atol=1e-5)
    assert torch.equal(copy.copy(model)(X), y)


def test_unwrap_gives_the_network_back_with_its_methods() -> None:
    base = rlawrap.unwrap(rewritten(network()))
    assert type(base) is BlockNet
    for name in ("features", "logits", "forward"):
        assert vars(base)[name].__self__ is base
    assert torch.equal(base(X), network()(X))


def test_a_base_that_copies_itself_keeps_them() -> None:
    class Copied(BlockNet):
        def __deepcopy__(self, memo: Any) -> Any:
            twin = object.__new__(type(self))
            memo[id(self)] = twin
            twin.__dict__.update(copy.deepcopy(vars(self), memo))
            return twin

    base = network()
    base.__class__ = Copied
    model = rewritten(base)
    twin = copy.deepcopy(model)
    assert torch.equal(twin(X), model(X)) and "forward" not in vars(twin)
    assert type(rlawrap.unwrap(twin)) is Copied
    assert torch.equal(rlawrap.unwrap(twin)(X), base(X))


def test_pickles_keep_another_name_of_a_class_s_method() -> None:
    base = network()
    base.again = base.extra_repr
    model = pickle.loads(pickle.dumps(rewritten(base)))
    found = rlawrap.unwrap(model)
    assert vars(found)["again"].__func__ is nn.Module.extra_repr
    assert vars(found)["again"].__self__ is found


def test_a_child_of_any_name_is_found() -> None:
    def named(self: Any, image: Tensor) -> Tensor:
        return self.bound(self.body(self.stem(image)).mean((2, 3)))

    base = network()
    base.bound = base.last
    bound(base, named)
    base.forward = base.named
    model = rlawrap.apply(base, k=4)
    assert model.bound.out_features == 5 and torch.equal(model(X), base(X))


def test_the_classifier_is_replaced() -> None:
    model = rewritten(network())
    model.reset_classifier(0)
    expected = model.features(X).amax((2, 3))
    assert torch.equal(model(X), expected) and "forward" not in vars(model)


def test_a_sequential_reads_as_its_class() -> None:
    def twice(self: Any, x: Tensor) -> Tensor:
        return nn.Sequential.forward(self, 2 * x)

    layers = [nn.Conv2d(3, 8, 3), Residual(8, 8), Residual(8, 8)]
    base = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()
    base.forward = types.MethodType(twice, base)  # type: ignore[method-assign]
    model = rlawrap.apply(base, k=4)
    assert torch.equal(model(X), base(X)) and not torch.equal(base(X), nn.Sequential(*base)(X))
    assert type(model[1:3]) is nn.Sequential and "forward" not in vars(model[1:3])


def test_a_forward_that_a_copy_would_not_run_is_refused() -> None:
    for make in (
        lambda net: lambda x: BlockNet.forward(net, x),
        lambda net: types.MethodType(forward, BlockNet()),
        lambda net: types.MethodType(lambda self, x: net.fc(x), net),
    ):
        base = BlockNet()
        base.forward = kept = make(base)  # type: ignore[method-assign]
        for call in (rlawrap.apply, rlawrap.inspect):
            with pytest.raises(rlawrap.PlanError, match="forward that was set on the instance"):
                call(base)
        assert vars(base)["forward"] is kept


def test_attention_goes_into_blocks_and_not_into_a_bound_forward() -> None:
    base = network()
    model = rlawrap.attend(base)
    assert model.body[0].eca.conv.weight.shape == (1, 1, 3)  # type: ignore[union-attr,index]
    assert model(X).shape == base(X).shape and relative(base(X), model(X)) > 1e-2
    base.body[0] = bound(base.body[0], Residual.forward)
    with pytest.raises(rlawrap.PlanError, match="forward of a Residual that was set"):
        rlawrap.attend(base)
