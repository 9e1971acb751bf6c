"""Methods of the base that compute: with h, bit-equal to forward, or refused by name."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rlawrap
from tests.nets import BlockNet, Residual, random_rla, relative, uneven

timm = pytest.importorskip("timm")
NAMES = ["test_resnet", "test_convnext", "test_efficientnet", "mobilenetv3_small_050"]
X = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module", params=NAMES)
def model(request: pytest.FixtureRequest) -> rlawrap.RLAModel:
    return random_rla(rlawrap.apply(uneven(timm.create_model(request.param)), k=4))  # type: ignore


@pytest.mark.parametrize("mode", [False, True])
def test_features_then_head_are_forward(model: rlawrap.RLAModel, mode: bool) -> None:
    model = copy.deepcopy(model).train(mode)
    results = []
    for call in (model, lambda x: model.forward_head(model.forward_features(x))):
        torch.manual_seed(1)
        twin = copy.deepcopy(model.state_dict())
        results.append(call(X))
        model.load_state_dict(twin)
    assert torch.equal(*results)
    with rlawrap.disabled(model):
        assert relative(results[0], model(X)) > 1e-5


def test_compiled_without_a_break() -> None:
    model = random_rla(rlawrap.apply(timm.create_model("test_resnet").eval(), k=4))
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda x: model.forward_head(model.forward_features(x)), fullgraph=True, backend="aot_eager"
    )
    assert relative(model(X), compiled(X)) < 1e-6


def test_hooks_fire_in_them_too() -> None:
    model = random_rla(rlawrap.apply(timm.create_model("test_resnet").eval(), k=4))
    seen: list[str] = []
    model.layer2.register_forward_hook(lambda *_: seen.append("layer2"))
    features = model.forward_features(X)
    assert seen == ["layer2"]
    assert torch.equal(model.forward_head(features), model(X))


def test_what_carries_no_state_is_refused() -> None:
    model = rlawrap.apply(timm.create_model("test_resnet").eval(), k=4)
    with pytest.raises(rlawrap.PlanError, match=r"forward_head\(\) needs .* what forward_features"):
        model.forward_head(model.forward_features(X) * 1)
    with pytest.raises(rlawrap.PlanError, match=r"forward_head\(pre_logits=True\).*=False alone"):
        model.forward_head(model.forward_features(X), pre_logits=True)
    with rlawrap.disabled(model):
        pooled = model.forward_head(model.forward_features(X), pre_logits=True)
    assert pooled.shape == (2, model.num_features)


def test_methods_that_forward_does_not_call_are_refused_by_name() -> None:
    base = timm.create_model("test_resnet").eval()
    model = rlawrap.apply(base, k=4)
    message = r"forward_intermediates\(\) of ResNet calls 'layer1' by itself.*rlawrap.backbone"
    with pytest.raises(rlawrap.PlanError, match=message):
        model.forward_intermediates(X)
    with rlawrap.disabled(model):
        expected = base.forward_intermediates(X)[1]
        assert all(map(torch.equal, model.forward_intermediates(X)[1], expected))


class Several(nn.Module):
    """A base whose forward calls one method twice, one with a list, and one that needs no h."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.ModuleList(Residual(8, 8) for _ in range(4))
        self.fc = nn.Linear(16, 5)

    def prepare(self, x: Tensor, shift: float = 0.5) -> Tensor:
        return x * 2 - shift

    def two(self, x: Tensor, first: int) -> Tensor:
        return self.body[first + 1](self.body[first](x))

    def encode(self, x: Tensor) -> dict[str, Any]:
        x = self.stem(self.prepare(x))
        a = self.two(x, 0)
        return {"maps": [a, self.two(a, 2)], "name": "maps"}

    def decode(self, maps: list[Tensor], *, scale: float = 1.0) -> Tensor:
        pooled = [m.mean((2, 3)) for m in maps]
        return self.fc(torch.cat(pooled, 1)) * scale

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x)["maps"])


def test_trees_keywords_and_methods_without_h() -> None:
    base = uneven(Several()).eval()
    model = random_rla(rlawrap.apply(base, k=4))
    state = model.encode(X)
    assert state["name"] == "maps" and relative(base.encode(X)["maps"][1], state["maps"][1]) > 1e-5
    assert torch.equal(model.decode(state["maps"]), model(X))
    assert torch.equal(model.prepare(X, shift=3.0), base.prepare(X, shift=3.0))
    with pytest.raises(rlawrap.PlanError, match=r"two\(\) of Several.*more than once"):
        model.two(torch.randn(1, 8, 8, 8), 0)
    torch.testing.assert_close(model.decode(state["maps"], scale=2.0), 2 * model(X))
    with pytest.raises(TypeError, match="unexpected keyword argument 'other'"):
        model.encode(X, other=1)


class ByMode(BlockNet):
    """A method that train mode alone calls."""

    def noisy(self, x: Tensor) -> Tensor:
        return self.body(x) + torch.randn_like(x[:, :1, :1, :1])

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.noisy(x) if self.training else self.body(x)
        return self.fc(x.mean((2, 3)))


class Around(BlockNet):
    """A forward that is one call of a method, and a step of its own if it counts."""

    def __init__(self, counts: bool) -> None:
        super().__init__()
        self.counts = counts
        self.register_buffer("seen", torch.zeros(()))

    def _forward_impl(self, x: Tensor) -> Tensor:
        return super().forward(x)

    def forward(self, x: Tensor) -> Tensor:
        if self.counts:
            self.seen.add_(1.0)
        return self._forward_impl(x)


@pytest.mark.parametrize("counts", [False, True])
def test_a_method_that_does_all_or_nearly_all(counts: bool) -> None:
    model = random_rla(rlawrap.apply(Around(counts).eval(), k=4))
    method = model.rla.splice.programs[False].methods["_forward_impl"]
    assert (method.plain is model.rla.splice.programs[False].plain) is not counts
    expected, seen = model(X), []
    assert model.seen == counts
    assert torch.equal(model._forward_impl(X), expected)
    assert torch.equal(model._forward_impl(x=X), expected)
    assert model.seen == counts
    layer = next(iter(model.rla.splice.programs[False].spared.layers))
    hook = model.get_submodule(layer).register_forward_hook(lambda *_: seen.append(layer))
    assert torch.equal(model._forward_impl(X), expected)
    assert set(seen) == {layer}
    hook.remove()
    seen.clear()
    model.body.register_forward_hook(lambda *_: seen.append("body"))
    assert torch.equal(model._forward_impl(X), expected)
    assert seen == ["body"] and model.seen == counts


def test_a_method_of_one_mode() -> None:
    model = random_rla(rlawrap.apply(ByMode(), k=4))
    x = torch.randn(2, 8, 16, 16)
    assert model.train().noisy(x).shape == (2, 16, 8, 8)
    with pytest.raises(rlawrap.PlanError, match=r"noisy\(\) of ByMode .* this mode does not call"):
        model.eval().noisy(x)
