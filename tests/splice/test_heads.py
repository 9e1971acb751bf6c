"""Several outputs: h joins every head, or those that `head=` names, and teaches through each."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rlawrap
from rlawrap.config import RLAConfig
from tests.nets import Residual, random_rla

X = torch.randn(2, 3, 12, 12)


class Heads(nn.Module):
    """A trunk of blocks under a classifier and a head that each kind of network adds."""

    def __init__(self, second: nn.Module | None = None) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.Sequential(Residual(8, 8), Residual(8, 8))
        self.fc = nn.Linear(8, 5)
        self.projection = nn.Linear(8, 4) if second is None else second

    def maps(self, x: Tensor) -> Tensor:
        return self.body(self.stem(x))

    def forward(self, x: Tensor) -> Any:
        f = self.maps(x).mean((2, 3))
        return self.fc(f), self.projection(f)


class Mlp(Heads):
    def __init__(self) -> None:
        super().__init__(nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4)))


class Named(Heads):
    def forward(self, x: Tensor) -> Any:
        logits, z = super().forward(x)
        return {"logits": logits, "z": z}


class Many(Heads):
    """A classifier for each task, in a list."""

    def __init__(self) -> None:
        super().__init__(nn.ModuleList([nn.Linear(8, n) for n in (2, 3)]))

    def forward(self, x: Tensor) -> Any:
        f = self.maps(x).mean((2, 3))
        return [self.fc(f), *[head(f) for head in self.projection]]  # type: ignore[union-attr]


class Detached(Heads):
    def forward(self, x: Tensor) -> Any:
        f = self.maps(x).mean((2, 3))
        return self.fc(f), self.projection(f.detach())


class BeforePool(Heads):
    """One head convolves before it pools."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(8, 4, 1))

    def forward(self, x: Tensor) -> Any:
        maps = self.maps(x)
        return self.fc(maps.mean((2, 3))), self.projection(maps).mean((2, 3))


class Early(Heads):
    """The second head reads the first block."""

    def forward(self, x: Tensor) -> Any:
        early = self.body[0](self.stem(x))
        return self.fc(self.body[1](early).mean((2, 3))), self.projection(early.mean((2, 3)))


class EarlyDetached(Heads):
    def forward(self, x: Tensor) -> Any:
        early = self.body[0](self.stem(x))
        z = self.projection(early.detach().mean((2, 3)))
        return self.fc(self.body[1](early).mean((2, 3))), z


KINDS: dict[Callable[[], Heads], tuple[str, ...]] = {
    Heads: ("fc", "projection"),
    Mlp: ("fc", "projection.0"),
    Named: ("fc", "projection"),
    Many: ("fc", "projection.0", "projection.1"),
    Detached: ("fc", "projection"),
    BeforePool: ("fc", "projection"),
    Early: ("fc", "projection"),
    EarlyDetached: ("projection", "fc"),
}


def outputs(made: Any) -> list[Tensor]:
    return list(made.values()) if isinstance(made, dict) else list(made)


@pytest.mark.parametrize("kind", KINDS)
def test_h_joins_every_head(kind: Callable[[], Heads]) -> None:
    base = kind()
    plan = rlawrap.inspect(base)
    assert plan.head == KINDS[kind]
    assert f"head: h joins at {', '.join(plan.head)}" in str(plan)
    model = rlawrap.apply(base, k=4)
    for mode in (True, False):
        for net in (base, model):
            net.train(mode)
        pairs = zip(outputs(base(X)), outputs(model(X)), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    random_rla(model)
    made = outputs(model.train()(X))
    torch.stack([o.square().sum() for o in made]).sum().backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]


@pytest.mark.parametrize("kind", [Heads, Mlp, Named, Many, BeforePool, Early])
def test_every_head_teaches_h(kind: Callable[[], Heads]) -> None:
    model = rlawrap.apply(kind(), k=4, share="none")
    random_rla(model)
    for i, _ in enumerate(outputs(model(X))):
        loss = outputs(model(X))[i].square().sum()
        (grad,) = torch.autograd.grad(loss, model.rla.input["0"].weight)
        assert grad.any()


@pytest.mark.parametrize("kind", [Detached, EarlyDetached])
def test_a_head_on_a_detached_feature_reads_h_and_teaches_it_nothing(
    kind: Callable[[], Heads],
) -> None:
    model = rlawrap.apply(kind(), k=4)
    random_rla(model)
    z = model(X)[1]
    z.square().sum().backward()
    taught = {name for name, p in model.named_parameters() if p.grad is not None}
    share = model.plan.head.index("projection")
    key = "norm_detached" if kind is Detached else "norm_0_detached"
    norm = {f"rla.head.{key}.weight", f"rla.head.{key}.bias"}
    own = {"projection.weight", "projection.bias", f"rla.head.join.{share}.linear.weight"}
    assert taught == own | norm
    before = z.detach()
    model.rla.input["0_8"].weight.data += 1  # h itself is read
    assert not torch.allclose(model(X)[1], before)


def test_a_block_behind_a_detached_value_starts_a_chain_of_its_own() -> None:
    class Greedy(Heads):
        def forward(self, x: Tensor) -> Any:
            early = self.body[0](self.stem(x))
            late = self.body[1](early.detach())
            return self.fc(late.mean((2, 3))), self.projection(early.mean((2, 3)))

    model = rlawrap.apply(Greedy(), k=4)
    assert [b.after for b in model.plan.blocks] == [None, None]
    random_rla(model)
    model(X)[0].square().sum().backward()
    assert model.stem.weight.grad is None and model.rla.input["0_8"].weight.grad is not None


def test_a_detached_head_alone_has_no_h_that_learns() -> None:
    with pytest.raises(rlawrap.ConfigError, match="does not join projection: it reads a detached"):
        rlawrap.apply(Detached(), k=4, head="projection", inject="none")


@pytest.mark.parametrize("head", ["projection", "projection.0", ("projection",)])
def test_the_named_head_alone(head: Any) -> None:
    base = Mlp().eval()
    model = rlawrap.apply(base, k=4, head=head)
    assert model.plan.head == ("projection.0",)
    assert model.config.head == head
    random_rla(model)
    whole = rlawrap.apply(base, k=4, head="none")
    state = {k: v for k, v in model.state_dict().items() if k in whole.state_dict()}
    whole.load_state_dict({**whole.state_dict(), **state})
    (logits, z), (plain, without) = model(X), whole(X)
    assert torch.equal(logits, plain) and not torch.allclose(z, without)


def test_a_tuple_of_heads_goes_through_json_and_pickle() -> None:
    config = RLAConfig(k=4, head=("fc", "projection"))
    assert RLAConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    model = rlawrap.apply(Many(), config=config)
    assert model.plan.head == ("fc", "projection.0", "projection.1")
    again = pickle.loads(pickle.dumps(model.eval()))
    assert again.config == config and again.plan == model.plan
    assert all(torch.equal(a, b) for a, b in zip(model(X), again(X), strict=True))


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("projektion", r"no module of that path. Near it: projection.* h can join fc, projection"),
        ("stem", "no head of Heads lies there. h can join fc, projection"),
        (("fc", "body.1"), "head='body.1': no head of Heads lies there"),
        ("concta", "Near it: concat"),
    ],
)
def test_what_is_no_head_is_refused_with_those_there_are(head: Any, message: str) -> None:
    with pytest.raises(rlawrap.ConfigError, match=message):
        rlawrap.apply(Heads(), k=4, head=head)


@pytest.mark.parametrize("head", [3, (), "", (3,), None])
def test_what_names_nothing_is_no_value_of_head(head: Any) -> None:
    with pytest.raises(rlawrap.ConfigError, match="the path of a head such as 'fc'"):
        RLAConfig(head=head)


def test_reset_classifier_asks_which_of_several() -> None:
    model = rlawrap.apply(Mlp().eval(), k=4)
    random_rla(model)
    with pytest.raises(rlawrap.PlanError, match=r"fc, projection.2 make an output each.*head='fc'"):
        model.reset_classifier(7)
    with pytest.raises(
        rlawrap.ConfigError, match=r"head='fd' makes no output; fc, projection.2 do"
    ):
        model.reset_classifier(7, head="fd")
    z = model(X)[1]
    model.reset_classifier(7, head="fc")
    assert model(X)[0].shape == (2, 7) and torch.equal(model(X)[1], z)
    assert model.rla.head.join["0"].linear.weight.shape[0] == 7
    model.reset_classifier(3, head=("fc", "projection"))
    assert [o.shape[1] for o in model(X)] == [3, 3]


def test_a_named_head_comes_back_after_a_reset_to_features() -> None:
    model = rlawrap.apply(Heads().eval(), k=4, head="fc")
    model.reset_classifier(0, head="fc")
    assert model(X)[0].shape == (2, 8) and (model.plan.head, model.config.head) == ((), "none")
    again = pickle.loads(pickle.dumps(model))
    assert torch.equal(again(X)[0], model(X)[0])
    assert again.rla.splice.settings == model.rla.splice.settings


def test_a_classifier_that_another_layer_reads_is_not_reset() -> None:
    class Serial(Heads):
        def __init__(self) -> None:
            super().__init__(nn.Linear(5, 4))

        def forward(self, x: Tensor) -> Any:
            logits = self.fc(self.maps(x).mean((2, 3)))
            return logits, self.projection(logits)

    model = rlawrap.apply(Serial(), k=4)
    with pytest.raises(rlawrap.PlanError, match="projection reads what fc makes"):
        model.reset_classifier(7, head="fc")


def test_one_head_called_for_two_images_is_reset_with_both_shares() -> None:
    class Pair(Heads):
        def forward(self, a: Tensor, b: Tensor) -> Any:  # type: ignore[override]
            return self.fc(self.maps(a).mean((2, 3))), self.fc(self.maps(b).mean((2, 3)))

    with pytest.warns(rlawrap.RLAWarning, match="runs once for each of 2 inputs"):
        model = rlawrap.apply(Pair().eval(), k=4, example_input=(X, X))
    assert model.plan.head == ("fc", "fc#1")
    random_rla(model)
    model.reset_classifier(7)
    assert [o.shape[1] for o in model(X, X)] == [7, 7]


class Sloped(nn.Module):
    """A PReLU before the classifier, as a module or as a function of a weight."""

    def __init__(self, functional: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), Residual(8, 8), Residual(8, 8))
        self.act, self.functional = nn.PReLU(), functional
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x).mean((2, 3))
        return self.fc(torch.prelu(y, self.act.weight) if self.functional else self.act(y))


@pytest.mark.parametrize("functional", [False, True])
def test_h_passes_no_slope_for_what_is_never_negative(functional: bool) -> None:
    model = random_rla(rlawrap.apply(Sloped(functional), k=4))
    assert not any(isinstance(m, nn.PReLU) for m in model.rla.head.modules())
    model(X).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.rla.parameters())
    if functional:
        return
    model = rlawrap.apply(Sloped(functional), k=4, head_act="tanh")
    assert sum(isinstance(m, nn.PReLU) for m in model.rla.head.modules()) == 1


class Folding(Heads):
    """A pool of a fixed window and `x.view(-1, channels)`: several rows of a larger image."""

    def forward(self, x: Tensor) -> Any:
        f = torch.nn.functional.avg_pool2d(self.maps(x), 12).view(-1, 8)
        return self.fc(f), self.projection(f)


def test_rows_of_a_larger_image() -> None:
    base = Folding().eval()
    model = random_rla(rlawrap.apply(base, k=4, example_input=X)).eval()
    assert model.plan.joined == ("fc", "projection")
    for size, rows in ((12, 2), (24, 8), (30, 8)):
        x = torch.randn(2, 3, size, size)
        assert [out.shape for out in model(x)] == [(rows, 5), (rows, 4)]
        assert [out.shape for out in base(x)] == [(rows, 5), (rows, 4)]


class Picked(Heads):
    """A classifier that reads some channels, by a tensor of their indices."""

    def __init__(self, how: str) -> None:
        super().__init__(nn.Linear(8, 4))
        self.how = how
        self.register_buffer("index", torch.tensor([3, 0, 6]))
        self.fc = nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Any:
        f = self.maps(x).mean((2, 3))
        if self.how == "select":
            return self.fc(torch.index_select(f, 1, self.index))
        return self.fc(torch.index_select(f, dim=-1, index=self.index)
                       if self.how == "last" else f[:, self.index])  # fmt: skip


@pytest.mark.parametrize("how", ["select", "last", "index"])
def test_h_joins_a_classifier_of_picked_channels_with_all_of_its_own(how: str) -> None:
    base = Picked(how).eval()
    model = rlawrap.apply(base, k=4)
    assert model.plan.joined == ("fc",)
    assert dict(model.rla.named_parameters())["head.join.0.linear.weight"].shape == (5, 4)
    assert torch.equal(model(X), base(X))
    random_rla(model).train()(X).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.rla.parameters())
