"""Bad input to apply, inspect and their options: an RLAError that helps, and nothing is changed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rlawrap
from rlawrap import Block, ConfigError, Plan, PlanError, RLAConfig, RLAError, TraceError
from tests.fuzz.running import Snapshot


class Residual(nn.Module):
    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.conv2(torch.relu(self.norm(self.conv1(x)))))


class ValueDependent(Residual):
    """Doubles a dark image: control flow that depends on values."""

    def forward(self, x: Tensor) -> Tensor:
        if x.mean() < 0.1:
            x = x * 2
        return super().forward(x)


def small_net(*, middle: nn.Module | None = None) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), Residual(), middle or Residual(), Residual(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip


def refused(error: type[RLAError], net: Any, *parts: str, **options: Any) -> str:
    """Apply is refused with an error that holds all `parts`, and `net` is as it was."""
    eager = isinstance(net, nn.Module) and not isinstance(net, torch.jit.ScriptModule)
    before = Snapshot(net) if eager else None
    with pytest.raises(error) as caught:
        rlawrap.apply(net, **options)
    if before is not None:
        before.compare(net, "a refused apply")
    for part in parts:
        assert part in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("value", ["resnet50", None, nn.Conv2d, lambda x: x])
@pytest.mark.parametrize("call", [rlawrap.apply, rlawrap.inspect])
def test_not_a_module(value: Any, call: Callable[[Any], Any]) -> None:
    with pytest.raises(
        PlanError, match=r"expected a torch\.nn\.Module, got (str|NoneType|type|func)"
    ):
        call(value)


def test_no_convolution() -> None:
    refused(PlanError, nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), "no convolution")
    refused(PlanError, nn.Sequential(), "no convolution")


def test_no_blocks() -> None:
    refused(PlanError, nn.Sequential(nn.Conv2d(3, 8, 3)), "no blocks found", "no activation")


def test_nothing_would_read_the_hidden_state() -> None:
    message = refused(ConfigError, small_net(), "nothing reads", inject="none", head="none")
    assert message.endswith("Pass `inject='entry'`.")


@pytest.mark.parametrize("k", [0, -1, 1.5, "8", True])
def test_k_below_one_or_no_number(k: Any) -> None:
    refused(ConfigError, small_net(), f"k={k!r}", "whole number of at least 1", k=k)


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("sauce", "source="),
        ("updates", "update="),
        ("Head", "head="),
        ("init_state", "initial_state="),
    ],
)
def test_unknown_option(option: str, hint: str) -> None:
    parts = (f"{option}='output'", "no such option", f"Did you mean {hint}", "The options are")
    refused(ConfigError, small_net(), *parts, **{option: "output"})


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (
            {"source": "outpt"},
            ("source='outpt'", "branch, input", "Did you mean `source='output'`"),
        ),
        ({"update": "splt"}, ("update='splt'", "Did you mean `update='split'`")),
        ({"share": "stages"}, ("share='stages'", "Did you mean `share='stage'`")),
        ({"norm": 3}, ("norm=3", "batch, group")),
        ({"cell": "conw"}, ("cell='conw'", "convgru", "Did you mean `cell='conv'`")),
        ({"cell": 3}, ("cell=3", "registered cell")),
        ({"kernel": 2}, ("kernel=2", "odd")),
        ({"kernel": True}, ("kernel=True", "odd")),
        ({"config": {"k": 8}}, ("config= takes an RLAConfig", "RLAConfig(**config)")),
    ],
)
def test_unknown_value(options: dict[str, Any], parts: tuple[str, ...]) -> None:
    refused(ConfigError, small_net(), *parts, **options)


def test_configuration_from_what_is_none() -> None:
    with pytest.raises(ConfigError, match="expected a dict, got str"):
        RLAConfig.from_dict("rla")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"kk=3: no such option\. Did you mean k="):
        RLAConfig.from_dict({"version": 1, "kk": 3})


def test_already_wrapped() -> None:
    model = rlawrap.apply(small_net(), k=4)
    refused(PlanError, model, "already has a hidden state", "unwrap")
    refused(PlanError, nn.Sequential(model, nn.ReLU()), "its module '0' is a RLAModel")


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_distributed(one_process: None) -> None:
    wrapped = nn.parallel.DistributedDataParallel(small_net())
    refused(PlanError, wrapped, "DistributedDataParallel", "model.module")


def test_data_parallel_outside_and_inside() -> None:
    refused(PlanError, nn.DataParallel(small_net()), "DataParallel", "model.module")
    net = small_net()
    net[1] = nn.DataParallel(net[1])
    refused(PlanError, net, "its module '1' is a DataParallel", "`model[1] = model[1].module`")


def test_compiled() -> None:
    refused(PlanError, torch.compile(small_net()), "OptimizedModule", "_orig_mod")


@pytest.mark.filterwarnings("ignore:`?torch.jit")
def test_scripted_and_traced() -> None:
    refused(PlanError, torch.jit.script(small_net()), "scripted", "eager module")
    traced = torch.jit.trace(small_net().eval(), torch.zeros(1, 3, 8, 8))
    refused(PlanError, traced, "scripted", "eager module")
    net = small_net()
    net[1] = torch.jit.script(net[1])
    refused(PlanError, net, "its module '1' is scripted", "eager module it was made from in its")


def test_lazy_and_uncopyable() -> None:
    lazy = nn.Sequential(nn.LazyConv2d(8, 3))
    with pytest.raises(PlanError, match=r"'0\.weight' is lazy"):
        rlawrap.apply(lazy)
    net = small_net()
    net[1].stream = (n for n in ())  # an attribute that deepcopy refuses
    refused(PlanError, net, "cannot be copied", "generator")


def test_a_module_named_rla() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rla = small_net()

        def forward(self, x: Tensor) -> Tensor:
            return self.rla(x)

    refused(PlanError, Net(), "'rla'", "rename")


def test_control_flow_on_values_is_kept_whole() -> None:
    net = small_net(middle=ValueDependent())
    for choice in ((), [ValueDependent], ValueDependent, "2"):
        model = rlawrap.apply(net, k=4, leaf_modules=choice)
        assert [b.path for b in model.plan.blocks] == ["1", "3"]
        for x in (torch.rand(2, 3, 12, 12), torch.zeros(2, 3, 12, 12)):
            torch.testing.assert_close(model.eval()(x), net.eval()(x))


def test_blocks_chooses_the_modules_behind_control_flow() -> None:
    net = small_net(middle=ValueDependent())
    model = rlawrap.apply(net, k=4, leaf_modules=["2"], blocks=Residual)
    assert [b.path for b in model.plan.blocks] == ["1", "2", "3"]
    assert model.plan.blocks[1].entries == ()  # h reads a whole module, and cannot enter it


def test_control_flow_in_the_networks_own_forward() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = small_net()

        def forward(self, x: Tensor) -> Tensor:
            if x.sum() > 0:
                return self.body(x)
            return self.body(-x)

    net = Net()
    parts = ("the forward of Net", "if x.sum() > 0", __name__.split(".")[-1])
    message = refused(TraceError, net, *parts)
    assert re.search(r"test_bad_input\.py:\d+", message)
    assert "`rlawrap.apply(model, at='body')`" in message
    model = rlawrap.apply(net, at="body", k=4)
    for x in (torch.ones(2, 3, 12, 12), -torch.ones(2, 3, 12, 12)):
        assert torch.equal(model.eval()(x), net.eval()(x))


def test_a_forward_that_raises_returns_nothing_or_is_missing() -> None:
    class Raising(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("no such image\nwith a second line")

    class Silent(nn.Sequential):
        def forward(self, x: Tensor) -> None:
            super().forward(x)

    class Missing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = small_net()

    refused(PlanError, Raising(*small_net()), "Raising", "no such image")
    refused(PlanError, Silent(*small_net()), "returns no tensor")
    refused(PlanError, Missing(), "Missing", "forward")


def test_example_input_that_does_not_fit() -> None:
    net = small_net()
    wrong = torch.zeros(2, 4, 8, 8)
    refused(
        PlanError, net, "module '0' (Conv2d)", "does not run on example_input=", example_input=wrong
    )
    refused(PlanError, net, "no tensor of (batch, channels, length)", example_input=torch.zeros(3))
    refused(PlanError, net, "no place for ['y']", example_input={"y": torch.zeros(1, 3, 8, 8)})
    two = (torch.zeros(1, 3, 8, 8), torch.zeros(1))
    refused(PlanError, net, "has 2 values", example_input=two)


@pytest.mark.parametrize(
    ("blocks", "parts"),
    [
        (nn.LSTM, ("blocks=LSTM matches no module", "Residual (3 calls)")),
        ("1.cnv1", ("matches no module", "Paths near it: 1.conv1")),
        ("layer*.*", ("matches no module", "Classes it calls")),
        (["1", "22"], ("blocks='22' matches no module",)),
        ([], ("blocks=[] matches no module",)),
        (lambda path, module: False, ("matches no module", "Residual (3 calls)")),
        (lambda module: True, ("function failed", "TypeError")),
        (3, ("blocks=3", "a class", "a glob")),
        ("6", ("blocks='6'", "none returns an image")),
    ],
)
def test_blocks_that_match_nothing(blocks: Any, parts: tuple[str, ...]) -> None:
    refused(PlanError, small_net(), *parts, blocks=blocks)


@pytest.mark.parametrize(
    ("stages", "parts"),
    [
        ([1, 1], ("makes 2 blocks", "has 3")),
        ([0, 3], ("at least one block",)),
        ([], ("at least one block",)),
        (["1", "2"], ("0 of them name block '3'",)),
        (["1", "*"], ("2 of them name block '1'",)),
        (["[123]", "9"], ("['9'] names no block",)),
        ([["2"], ["1", "3"]], ("does not follow the order",)),
        ([1, "2"], ("1 is neither",)),
        (3, ("stages=3", "give a list")),
        ("1", ("stages='1'", "give a list")),
    ],
)
def test_stages_that_do_not_fit(stages: Any, parts: tuple[str, ...]) -> None:
    refused(PlanError, small_net(), *parts, stages=stages)


def test_leaf_modules_that_name_nothing() -> None:
    refused(PlanError, small_net(), "no module '1.conv'", "1.conv1", leaf_modules=["1.conv"])
    refused(PlanError, small_net(), "give classes or module paths", leaf_modules=[3])


def by_hand(*blocks: Block, head: tuple[str, ...] = ("6",)) -> Plan:
    return Plan.of("Sequential", [blocks], head=head)


ONE = Block(path="1", entries=("1.conv1",), output="1")
TWO = Block(path="2", entries=("2.conv1",), output="2")


@pytest.mark.parametrize(
    ("plan", "parts"),
    [
        (by_hand(), ("no blocks",)),
        (by_hand(Block(path="layer1", entries=("layer1.conv",), output="layer1")), ("'layer1'",)),
        (by_hand(Block(path="1", entries=("1.conv3",), output="1")), ("'1.conv3'", "1.conv1")),
        (by_hand(Block(path="1", entries=("1.norm",), output="1")), ("no convolution", "'1.norm'")),
        (by_hand(Block(path="1", entries=("1.conv1",), output="5")), ("'5'", "no image-like")),
        (by_hand(TWO, ONE), ("'1.conv1' runs before the hidden state",)),
        (by_hand(ONE, TWO, head=("5",)), ("head '5'", "no convolution or linear")),
        (by_hand(Block(path="1", entries=(), output="1", after=4)), ("after=4",)),
        ({"stages": []}, ("plan= takes a Plan", "from_dict")),
    ],
)
def test_plan_for_another_network(plan: Any, parts: tuple[str, ...]) -> None:
    refused(PlanError, small_net(), *parts, plan=plan)


def test_plan_and_blocks_together() -> None:
    plan = rlawrap.inspect(small_net())
    refused(ConfigError, small_net(), "not both", plan=plan, blocks=Residual)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("x", "expected a dict, got str"),
        ({}, "version None"),
        ({"version": 9}, "version 9"),
        ({"version": 1}, "not a plan"),
        ({**by_hand(ONE).to_dict(), "colour": "red"}, "colour"),
    ],
)
def test_plan_from_what_is_none(data: Any, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Plan.from_dict(data)


def test_unwrap_and_disabled_of_a_bare_network() -> None:
    with pytest.raises(PlanError, match=r"expected a model made by rlawrap\.apply, got Sequential"):
        rlawrap.unwrap(small_net())
    with (
        pytest.raises(PlanError, match="expected a model made by"),
        rlawrap.disabled(small_net()),
    ):
        pass
