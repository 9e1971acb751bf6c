"""The recurrence itself: injections equal concatenation, updates equal the equations."""

from __future__ import annotations

import copy
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rlawrap
from tests.nets import BlockNet, random_rla, relative, uneven


class Wide(nn.Module):
    """`BlockNet` with the hidden state concatenated, written out by hand for one configuration."""

    def __init__(self, model: rlawrap.RLAModel, source: str) -> None:
        super().__init__()
        self.m, self.source = model, source

    def forward(self, x: Tensor) -> Tensor:
        rla, k = self.m.rla, self.m.config.k
        x = self.m.stem(x)
        h = x.new_zeros(x.shape[0], k, *x.shape[2:])
        for i, block in enumerate(self.m.body):
            short = x if block.project is None else block.project(x)
            weight = torch.cat([block.conv1.weight, rla.inject[str(i)].conv.weight], 1)
            y = F.conv2d(torch.cat([x, h], 1), weight, stride=block.conv1.stride, padding=1)
            y = block.bn2(block.conv2(F.relu(block.bn1(y))))
            x = F.relu(y + short)
            if block.conv1.stride[0] == 2:
                h = F.avg_pool2d(h, 2)
            read = {"output": x, "branch": y, "input": short}[self.source]
            stage, channels = ("0", 8) if i == 0 else ("1", 16)
            u = rla.input[f"{stage}_{channels}"](read)
            h = rla.cell[stage].conv(torch.tanh(rla.block[str(i)].norm(u + h)))
        pooled = F.adaptive_avg_pool2d(torch.cat([x, F.relu(rla.head.norm(h))], 1), 1).flatten(1)
        weight = torch.cat([self.m.fc.weight, rla.head.join["0"].linear.weight], 1)
        return F.linear(self.m.drop(pooled), weight, self.m.fc.bias)


@pytest.mark.parametrize("source", ["output", "branch", "input"])
@pytest.mark.parametrize("training", [False, True])
def test_equals_concatenation(source: str, training: bool) -> None:
    base = uneven(BlockNet()).double()
    base.drop.p = 0.0
    model = rlawrap.apply(base, k=6, source=source, initial_state="zeros")
    model = uneven(random_rla(model, 0.3)).train(training)
    wide = Wide(copy.deepcopy(model), source)
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    mine, theirs = model(x), wide(x)
    assert relative(theirs, mine) < 1e-12
    mine.square().sum().backward()
    theirs.square().sum().backward()
    for (name, a), b in zip(model.named_parameters(), wide.m.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-12, msg=name)
    for a, b in zip(model.buffers(), wide.m.buffers(), strict=True):
        torch.testing.assert_close(a, b)


def test_identity_init_zeroes_only_what_reaches_the_main_path() -> None:
    state = rlawrap.apply(BlockNet(), k=4).state_dict()
    zero = {k for k, v in state.items() if k.startswith("rla.") and k.endswith("conv.weight")}
    assert {k for k in zero if not state[k].any()} == {
        "rla.inject.1.conv.weight",
        "rla.inject.2.conv.weight",
    }
    assert state["rla.cell.0.conv.weight"].any()


def test_paper_init_is_kaiming_normal_fan_out() -> None:
    model = rlawrap.apply(BlockNet(width=64), k=32, init="paper")
    weight = model.state_dict()["rla.cell.1.conv.weight"]
    assert weight.std().item() == pytest.approx((2 / (32 * 9)) ** 0.5, rel=0.05)
    weight = model.state_dict()["rla.head.join.0.linear.weight"]
    assert weight.abs().max().item() <= 1 / (128 + 32) ** 0.5


@pytest.mark.parametrize(
    ("share", "cells", "inputs"), [("stage", 2, 2), ("network", 1, 2), ("none", 3, 3)]
)
def test_sharing(share: str, cells: int, inputs: int) -> None:
    model = rlawrap.apply(BlockNet(), k=4, share=share)
    assert len(model.rla.cell) == cells
    assert len(model.rla.input) == inputs
    assert len(model.rla.block) == 3
    calls = Counter(n.target for n in model.rla.splice.graph.nodes if n.op == "call_module")
    assert sum(n for t, n in calls.items() if t.startswith("rla.cell.")) == 3


def test_inject_none_feeds_the_classifier_alone() -> None:
    model = rlawrap.apply(BlockNet(), k=4, inject="none")
    assert "inject" not in dict(model.rla.named_children())
    assert "head" in dict(model.rla.named_children())


def test_head_none_leaves_out_the_last_update() -> None:
    model = rlawrap.apply(BlockNet(), k=4, head="none")
    assert "head" not in dict(model.rla.named_children())
    assert list(model.rla.block) == ["0", "1"]


def test_nothing_reads_h_is_an_error() -> None:
    with pytest.raises(rlawrap.ConfigError, match="nothing reads the hidden state"):
        rlawrap.apply(BlockNet(), k=4, inject="none", head="none")


def test_initial_state_none_leaves_out_the_first_injection() -> None:
    assert "0" not in rlawrap.apply(BlockNet(), k=4).rla.inject
    assert "0" in rlawrap.apply(BlockNet(), k=4, initial_state="zeros").rla.inject


def test_head_norm_and_activation_follow_the_cell() -> None:
    def head(**options: object) -> list[str]:
        model = rlawrap.apply(BlockNet(), k=4, **options)
        return [n for n, _ in model.rla.head.named_children()]

    assert head() == ["norm", "act", "join"]
    assert head(update="post") == ["join"]
    assert head(cell="convlstm") == ["join"]
    assert head(cell="convgru", head_norm="yes", head_act="tanh") == ["norm", "act", "join"]
    model = rlawrap.apply(BlockNet(), k=4, head_act="tanh")
    assert isinstance(model.rla.head.act, nn.Tanh)


@pytest.mark.parametrize("norm", ["batch", "group", "layer", "instance", "none"])
@pytest.mark.parametrize("cell", ["conv", "dwconv", "convlstm", "convgru"])
def test_every_cell_with_every_norm_keeps_the_function(cell: str, norm: str) -> None:
    base = uneven(BlockNet()).eval()
    model = rlawrap.apply(base, k=8, cell=cell, norm=norm).eval()
    x = torch.randn(2, 3, 16, 16)
    assert relative(base(x), model(x)) < 1e-6
    assert relative(base(x), random_rla(model)(x)) > 1e-4
    model.train()(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_cell_of_the_users_own() -> None:
    from rlawrap.cells.cell_registry import _CELLS

    class Gate(rlawrap.Cell):
        """h' = sigmoid(Conv(u)) h + u."""

        def shared(self) -> dict[str, nn.Module]:
            return {"conv": self.spec.conv(self.spec.k, self.spec.k)}

        def own(self) -> dict[str, nn.Module]:
            return {}

        def step(self, layers, u, state):  # type: ignore[no-untyped-def]
            return (torch.sigmoid(layers["conv"](u)) * state[0] + u,)

    rlawrap.register_cell("gate-of-the-test")(Gate)
    try:
        base = uneven(BlockNet()).eval()
        model = rlawrap.apply(base, k=4, cell="gate-of-the-test", share="network")
        assert "block" not in dict(model.rla.named_children())
        x = torch.randn(1, 3, 16, 16)
        assert relative(base(x), model(x)) < 1e-6
        assert relative(base(x), random_rla(model)(x)) > 1e-4
        with pytest.raises(rlawrap.ConfigError, match="taken by Gate"):
            rlawrap.register_cell("gate-of-the-test")(type("Other", (Gate,), {}))
    finally:
        del _CELLS["gate-of-the-test"]


def test_options_without_effect_warn() -> None:
    with pytest.warns(rlawrap.RLAWarning, match="update='split'"):
        rlawrap.apply(BlockNet(), k=4, cell="convgru", update="split")
    with pytest.warns(rlawrap.RLAWarning, match="no block has a depthwise"):
        rlawrap.apply(BlockNet(), k=4, inject="depthwise")


def test_a_cell_that_only_convolves_zeros_warns() -> None:
    split = {"k": 4, "update": "split", "norm": "none"}
    with pytest.warns(rlawrap.RLAWarning, match="rla.cell.0 convolves only h") as caught:
        model = rlawrap.apply(BlockNet(), **split)
    assert len(caught) == 1  # stage 0 has one block, stage 1 reads what it writes
    random_rla(model)(torch.randn(2, 3, 16, 16)).sum().backward()
    assert not model.rla.cell["0"].conv.weight.grad.any()
    assert model.rla.cell["1"].conv.weight.grad.any()
    rlawrap.apply(BlockNet(), **split, share="network")  # no warning, which would be an error


class Separable(nn.Module):
    """Depthwise, then dense; with `dense=False` the pixels of each channel alone."""

    def __init__(self, width: int, dense: bool = True) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.dense = nn.Conv2d(width, width, 1) if dense else nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.dense(F.relu(self.depthwise(x)))


class Strided(nn.Module):
    """The depthwise convolution comes behind one that makes the image smaller."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down, self.rest = nn.Conv2d(width, width, 3, stride=2, padding=1), Separable(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(F.relu(self.down(x)))


def small_net(*body: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )


def test_h_enters_a_block_only_in_that_block() -> None:
    plain = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU())
    net = small_net(Separable(8), plain, Separable(8))
    model = rlawrap.apply(net, k=4, blocks=["1", "2", "3"], inject="depthwise")
    into = {name: [n for n, _ in path.named_children()] for name, path in model.rla.inject.items()}
    assert into["1"] == ["conv"]  # not beside the next block's depthwise convolution
    assert into["2"] == ["depthwise", "act", "conv"]


def test_a_dense_convolution_of_the_next_block_is_no_way_into_this_one() -> None:
    plain = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU())
    net = small_net(Separable(8), Separable(8, dense=False), plain)
    why = "2: h does not enter 2.depthwise: no dense convolution follows the depthwise one"
    with pytest.warns(rlawrap.RLAWarning, match=why) as caught:
        model = rlawrap.apply(net, k=4, blocks=["1", "2", "3"])
    assert [warning.filename for warning in caught] == [__file__]
    assert list(model.rla.inject) == ["2"]  # the first has no hidden state before it
    assert model.plan.notes == (why,) == rlawrap.inspect(net, blocks=["1", "2", "3"]).notes


@pytest.mark.parametrize("size", [16, 17])
def test_h_is_brought_to_the_size_of_a_depthwise_convolution(size: int) -> None:
    net = small_net(Strided(8), Strided(8))
    model = rlawrap.apply(net, k=4, blocks=Strided, inject="depthwise")
    assert [n for n, _ in model.rla.inject["1"].named_children()][:2] == ["pool", "depthwise"]
    x = torch.randn(2, 3, size, size)
    assert relative(net(x), model(x)) < 1e-6
    assert relative(net(x), random_rla(model)(x)) > 1e-4


@pytest.mark.parametrize("size", [15, 16, 17, 31])
def test_h_has_the_size_of_x_at_every_size(size: int) -> None:
    model = rlawrap.apply(BlockNet(), k=4, initial_state="zeros")
    sizes: dict[str, torch.Size] = {}
    for name, module in model.named_modules():
        if name.startswith(("rla.block", "body.2.bn2")) and not list(module.children()):
            module.register_forward_hook(lambda m, i, o, n=name: sizes.update({n: o.shape[2:]}))
    model(torch.randn(2, 3, size, size))
    assert sizes["rla.block.2.norm"] == sizes["body.2.bn2"] == ((size + 1) // 2,) * 2


def test_even_sizes_pool_two_by_two_as_in_the_paper() -> None:
    pool = rlawrap.apply(BlockNet(), k=4).rla.down["1"]
    h = torch.randn(1, 4, 8, 8)
    assert torch.equal(pool(h), F.avg_pool2d(h, 2))
