"""The names of attributes decide nothing: under other names a network has the same plan."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, reject, settings
from torch import nn

import rlawrap
from tests.discover import test_holders, test_joinless, test_rules, test_ways_up
from tests.discover.renaming import renamed, translated
from tests.fuzz.build import build, inputs_of
from tests.fuzz.running import runs
from tests.fuzz.spec import Case
from tests.fuzz.strategy import cases
from tests.nets import FAMILIES, Small

IMAGE = torch.zeros(2, 3, 16, 16)


def check(net: nn.Module, example: object, seed: int) -> None:
    """The plan of a renamed copy is the network's own plan in the new names."""
    plan = rlawrap.inspect(net, example_input=example)
    twin, paths = renamed(net, seed)
    ours = translated(rlawrap.inspect(twin, example_input=example), {p: p for p in paths.values()})
    assert ours == translated(plan, paths)
    assert plan.blocks


@pytest.mark.parametrize("name", [n for n in FAMILIES if not n.startswith(("resnext", "wide"))])
def test_families(name: str) -> None:
    make, shape, _ = FAMILIES[name]
    check(make(), torch.zeros(shape), seed=len(name))


SMALL = {
    "class": lambda: Small(test_rules.Inverted(8, 8), test_rules.Inverted(8, 8, 2)),
    "dense": lambda: Small(test_rules.Dense(8, 4), test_rules.Dense(12, 4), last=16),
    "stage": lambda: Small(test_rules.CrossStage(2), test_rules.CrossStage(1)),
    "wrapper": lambda: Small(test_rules.TwoResiduals(), test_rules.TwoResiduals()),
    "folding": lambda: Small(test_rules.Folding(), test_rules.Folding(), test_rules.Folding()),
    "gatherer": lambda: Small(test_rules.Tree(), test_rules.Tree()),
    "container": lambda: Small(test_rules.Mixed(True), test_rules.Mixed(False)),
    "only part": test_holders.UNet,
    "decoder": test_ways_up.UNet,
    "dense row": test_ways_up.sparse,
    "folding, most": lambda: Small(
        *(test_rules.Folding() for _ in range(3)), test_rules.Inverted(8, 8)
    ),
    "attention": test_ways_up.Attending,
    "routes": test_ways_up.Routes,
    "hourglass": lambda: Small(test_holders.Hourglass(2)),
    "loop": lambda: test_joinless.sequence(test_joinless.Loop(3), test_joinless.Loop(2)),
    "own step": test_joinless.Whole,
    "halves": lambda: test_joinless.sequence(*(test_joinless.TwoHalves() for _ in range(2))),
}


@pytest.mark.parametrize("rule", SMALL)
def test_networks_of_each_rule(rule: str) -> None:
    for seed in range(3):
        check(SMALL[rule](), IMAGE, seed)


@pytest.mark.parametrize(
    "name", ["test_byobnet", "test_efficientnet", "test_nfnet", "test_mambaout", "dla46_c"]
)
def test_networks_of_timm(name: str) -> None:
    timm = pytest.importorskip("timm", reason="these are timm's networks")
    check(timm.create_model(name), None, seed=len(name))


@pytest.mark.filterwarnings("ignore:.*only one block was made:rlawrap.RLAWarning")
@settings(
    max_examples=15,
    derandomize=True,
    phases=[Phase.generate],
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(cases())
def test_random_networks(case: Case) -> None:
    try:
        net, image = build(case.net), inputs_of(case.net, seed=1)
    except (RuntimeError, ValueError):
        reject()
    assume(runs(net, case.net))
    try:
        rlawrap.inspect(net, example_input=image)
    except rlawrap.RLAError as error:  # then it is refused in any names
        with pytest.raises(type(error)):
            rlawrap.inspect(renamed(net, case.net.seed)[0], example_input=image)
    else:
        check(net, image, seed=case.net.seed)


def test_the_copy_has_other_names_and_computes_the_same() -> None:
    net = FAMILIES["block_net"][0]().eval()
    twin, paths = renamed(net, seed=3)
    assert [type(m) for m in twin.modules()] == [type(m) for m in net.modules()]
    assert not {n for n, _ in net.named_modules()} & {n for n, _ in twin.named_modules()} - {""}
    assert list(paths.values()) == [name for name, _ in twin.named_modules()]
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(twin(x), net(x))
