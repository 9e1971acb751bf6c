"""Which modules are blocks: one small network for each rule."""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import rlawrap
from rlawrap.discover.rules import RULES, decide
from rlawrap.discover.survey import Survey
from rlawrap.discover.verdicts import Reason, Table
from rlawrap.flow.traced import trace_model
from tests.nets import Small

DOCS = Path(__file__).parents[2] / "docs" / "discovery.md"


def conv(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class Inverted(nn.Module):
    """Adds its input only where stride and width allow, as in MobileNetV2."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(inputs, outputs, stride), conv(outputs, outputs)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.conv1(x))
        return x + y if self.adds else y


class Dense(nn.Module):
    """New features beside the old ones."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.conv = conv(inputs, growth)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(x)], 1)


class CrossStage(nn.Module):
    """Half of the way through blocks, then both halves together."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.one, self.two = conv(8, 4, kernel=1), conv(8, 4, kernel=1)
        self.blocks = nn.ModuleList(Inverted(4, 4) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        y = self.two(x)
        for block in self.blocks:
            y = block(y)
        return torch.cat([self.one(x), y], 1)


class Residual(nn.Module):
    """A generic wrapper."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fn(x)


class Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.depthwise(x))


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Conv2d(8, 16, 1), nn.GELU(), nn.Conv2d(16, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class TwoResiduals(nn.Module):
    """A block whose halves are wrapped."""

    def __init__(self) -> None:
        super().__init__()
        self.mixer, self.mlp = Residual(Mixer()), Residual(Mlp())

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.mixer(x))


class Folding(nn.Module):
    """Two linear branches that fold into one convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.large, self.small = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.large(x) + self.small(x)))


class Root(nn.Module):
    """Gathers what blocks made, as in DLA."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 8, 1)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.relu(self.conv(torch.cat([a, b], 1)))


class Tree(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.root = Inverted(8, 8), Inverted(8, 8), Root()

    def forward(self, x: Tensor) -> Tensor:
        a = self.left(x)
        return self.root(a, self.right(a))


class Split(nn.ModuleDict):
    """A container that joins in its own forward, as a mixed convolution does."""

    def __init__(self) -> None:
        super().__init__({"0": nn.Conv2d(4, 4, 3, padding=1), "1": nn.Conv2d(4, 4, 5, padding=2)})

    def forward(self, x: Tensor) -> Tensor:
        a, b = torch.split(x, [4, 4], 1)
        return torch.cat([self["0"](a), self["1"](b)], 1)


class Split8(Split):
    """A container that is large enough to be a block."""


class Mixed(nn.Module):
    def __init__(self, adds: bool) -> None:
        super().__init__()
        self.first, self.second, self.act, self.adds = Split(), Split(), nn.ReLU(), adds

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.second(self.act(self.first(x))))
        return x + y if self.adds else y


def blocks(model: nn.Module) -> list[str]:
    return [b.path for b in rlawrap.inspect(model, example_input=torch.zeros(2, 3, 16, 16)).blocks]


def test_each_rule_is_told_by_number_and_name_in_the_docs_and_where_it_stands() -> None:
    rows = re.findall(r"^\| (\d+) \| ([\w ]+) \| .{20}", DOCS.read_text(), re.M)
    assert rows == [(str(i), name) for i, (name, _) in enumerate(RULES, 1)]
    for i, (name, rule) in enumerate(RULES, 1):
        assert (rule.__doc__ or "").startswith(f"Rule {i}, `{name}`: ")


def test_a_rule_changes_no_table_and_no_evidence() -> None:
    net = Small(CrossStage(2), Inverted(8, 8), Folding())
    survey = Survey(trace_model(net, example_input=torch.zeros(2, 3, 16, 16)).flow)
    before = {name: vars(c.evidence).copy() for name, c in survey.candidates.items()}
    tables = [Table()]
    for _, rule in RULES:
        kept = dict(tables[-1].verdicts)
        tables.append(tables[-1].after(rule(survey, tables[-1])))
        assert tables[-2].verdicts == kept
    assert tables[-1] == decide(survey)
    assert {name: vars(c.evidence) for name, c in survey.candidates.items()} == before
    with pytest.raises(FrozenInstanceError):
        survey["body.1"].evidence.calls = 2  # type: ignore[misc]


def test_every_candidate_has_a_verdict() -> None:
    net = Small(CrossStage(2), Inverted(8, 8), Folding())
    survey = Survey(trace_model(net, example_input=torch.zeros(2, 3, 16, 16)).flow)
    table = decide(survey)
    assert set(table.verdicts) == set(survey.candidates)
    said = {name: verdict.reason for name, verdict in table.verdicts.items()}
    assert said["body"] is Reason.HOLDS
    assert said["body.0"] is Reason.HOLDS_BLOCKS
    assert said["body.0.blocks.1"] is said["body.1"] is Reason.JOINS
    assert said["body.0.blocks.1.conv1"] is Reason.LIES_INSIDE
    assert said["body.0.one"] is Reason.UNLIKE
    assert said["body.2"] is Reason.FOLDS


def test_blocks_that_do_not_add_belong_to_their_class() -> None:
    net = Small(Inverted(8, 8), Inverted(8, 16, 2), Inverted(16, 16), last=16)
    assert blocks(net) == ["body.0", "body.1", "body.2"]


def test_a_block_that_does_not_add_belongs_to_its_place() -> None:
    class Other(Inverted):
        pass

    stages = [nn.Sequential(Other(8, 8 * 2, 2), Inverted(16, 16))]
    stages.append(nn.Sequential(Other(16, 8, 2), Inverted(8, 8)))
    assert blocks(Small(*stages)) == ["body.0.0", "body.0.1", "body.1.0", "body.1.1"]


def test_every_dense_layer_is_a_block() -> None:
    net = Small(Dense(8, 4), Dense(12, 4), Dense(16, 4), last=20)
    assert blocks(net) == ["body.0", "body.1", "body.2"]


def test_a_stage_that_joins_is_no_block_at_any_depth() -> None:
    assert blocks(Small(CrossStage(2), CrossStage(2))) == [
        "body.0.blocks.0", "body.0.blocks.1", "body.1.blocks.0", "body.1.blocks.1",
    ]  # fmt: skip
    assert blocks(Small(CrossStage(1), CrossStage(1))) == ["body.0.blocks.0", "body.1.blocks.0"]


def test_wrapped_halves_are_one_block() -> None:
    assert blocks(Small(TwoResiduals(), TwoResiduals())) == ["body.0", "body.1"]


def test_wrappers_of_one_kind_are_blocks_themselves() -> None:
    net = Small(Residual(Mlp()), Residual(Mlp()), Residual(Mlp()))
    assert blocks(net) == ["body.0", "body.1", "body.2"]


def test_wrappers_in_a_transition_are_left_out() -> None:
    between = nn.Sequential(Residual(Mixer()), Residual(Mlp()), nn.Conv2d(8, 8, 3, 2, 1))
    net = Small(TwoResiduals(), TwoResiduals(), between, TwoResiduals())
    plan = rlawrap.inspect(net, example_input=torch.zeros(2, 3, 16, 16))
    assert [b.path for b in plan.blocks] == ["body.0", "body.1", "body.3"]
    reasons = dict(plan.left_out)
    assert reasons["body.2.0"] == "a transition: its like are parts of larger blocks"


def test_a_wrapper_and_a_convolution_in_a_sequential_are_one_block() -> None:
    def step() -> nn.Sequential:
        return nn.Sequential(Residual(Mixer()), nn.Conv2d(8, 8, 1), nn.GELU())

    assert blocks(Small(step(), step(), step())) == ["body.0", "body.1", "body.2"]


def test_an_aggregator_is_no_block() -> None:
    assert blocks(Small(Tree(), Tree())) == [
        "body.0.left", "body.0.right", "body.1.left", "body.1.right",
    ]  # fmt: skip


def test_joining_containers_belong_to_the_block_they_are_attributes_of() -> None:
    assert blocks(Small(Mixed(True), Mixed(False), Mixed(True))) == ["body.0", "body.1", "body.2"]


def test_a_class_that_occurs_once_before_all_others_is_the_stem() -> None:
    class Stem(Inverted):
        pass

    plan = rlawrap.inspect(
        Small(Stem(8, 8), Inverted(8, 8), Inverted(8, 8)), example_input=torch.zeros(2, 3, 16, 16)
    )
    assert [b.path for b in plan.blocks] == ["body.1", "body.2"]
    assert dict(plan.left_out)["body.0"] == "stem: the only Stem"


def test_a_gate_is_no_join() -> None:
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.squeeze = nn.Conv2d(8, 8, 1)
            self.conv = nn.Conv2d(8, 8, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.conv(x))
            return x * torch.sigmoid(self.squeeze(x.mean((2, 3), keepdim=True)))

    net = Small(Gate(), Inverted(8, 8), Gate(), Inverted(8, 8))
    assert blocks(net) == ["body.1", "body.3"]


def test_residual_modules_on_sequences_are_left_out_by_name() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.act, self.fc2 = nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.fc2(self.act(self.fc1(x)))

    class Hybrid(Small):
        def __init__(self, *body: nn.Module) -> None:
            super().__init__(*body)
            self.tokens = nn.Sequential(Tokens(), Tokens())

        def forward(self, x: Tensor) -> Tensor:
            x = self.body(self.stem(x))
            return self.fc(self.tokens(x.flatten(2).transpose(1, 2)).mean(1))

    image = torch.zeros(2, 3, 16, 16)
    plan = rlawrap.inspect(Hybrid(Inverted(8, 8), Inverted(8, 8)), example_input=image)
    assert [b.path for b in plan.blocks] == ["body.0", "body.1"]
    assert "tokens" in dict(plan.left_out)["tokens.0"]
    try:
        rlawrap.inspect(Hybrid(conv(8, 8)), example_input=image)
    except rlawrap.PlanError as error:
        assert "tokens.0" in str(error) and "sequences of tokens" in str(error)
    else:
        raise AssertionError("a network of sequences alone has no blocks")


def test_an_addition_counts_where_the_network_takes_the_size() -> None:
    class Halves(nn.Module):
        """The shortcut rounds up, the branch down: odd sizes are refused."""

        def __init__(self) -> None:
            super().__init__()
            self.down, self.inner = nn.Conv2d(8, 8, 1, stride=2), Inverted(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.down(x) + torch.relu(nn.functional.avg_pool2d(self.inner(x), 2))

    assert blocks(Small(Halves(), Halves())) == ["body.0", "body.1"]


def test_weight_norm_makes_no_other_kind_of_module() -> None:
    class Step(nn.Module):
        """Adds where the shapes agree, so that the first of a stage is no join."""

        def __init__(self, stride: int) -> None:
            super().__init__()
            conv = nn.Conv2d(8, 8, 3, stride, 1)
            self.conv = nn.utils.parametrizations.weight_norm(conv)

        def forward(self, x: Tensor) -> Tensor:
            y = torch.tanh(self.conv(x))
            return x + y if x.shape == y.shape else y

    class Stage(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.steps = nn.ModuleList([Step(2), Step(1)])

        def forward(self, x: Tensor) -> Tensor:
            return self.steps[1](self.steps[0](x))

    found = [f"body.{i}.steps.{j}" for i in range(2) for j in range(2)]
    assert blocks(Small(Stage(), Stage())) == found


def test_parts_that_concatenate_make_no_stage_of_a_residual_block() -> None:
    class Ghost(nn.Module):
        """Half of the features convolved from the others."""

        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.primary, self.cheap = conv(inputs, outputs // 2, kernel=1), conv(outputs // 2, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.primary(x)
            return torch.cat([x, self.cheap(x)], 1)

    class Bottleneck(nn.Module):
        def __init__(self, stride: int) -> None:
            super().__init__()
            down = nn.Conv2d(8, 8, 3, stride, 1, groups=8) if stride > 1 else nn.Identity()
            self.conv = nn.Sequential(Ghost(8, 8), down, Ghost(8, 8))
            self.shortcut = nn.Conv2d(8, 8, 1, stride) if stride > 1 else nn.Sequential()

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) + self.shortcut(x)

    assert blocks(Small(Bottleneck(1), Bottleneck(2), Bottleneck(1))) == [
        "body.0", "body.1", "body.2",
    ]  # fmt: skip


def test_a_block_whose_residual_output_is_unread_ends_in_its_other_output() -> None:
    class Gated(nn.Module):
        """Hands on a residual sum and a skip output, as in WaveNet."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(8, 8, 3, padding=1)
            self.residual, self.skip = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = torch.tanh(self.conv(x))
            return x + self.residual(y), self.skip(y)

    class Skips(Small):
        def forward(self, x: Tensor) -> Tensor:
            x, total = self.stem(x), 0
            for block in self.body:
                x, skip = block(x)
                total = total + skip
            return self.fc(torch.relu(total).mean((2, 3)))

    plan = rlawrap.inspect(
        Skips(Gated(), Gated(), Gated()), example_input=torch.zeros(2, 3, 16, 16)
    )
    assert [b.path for b in plan.blocks] == ["body.0", "body.1", "body.2"]
    assert [b.output for b in plan.blocks] == ["body.0:add", "body.1:add", "body.2.skip"]


def test_the_addition_of_a_block_found_by_its_place_counts() -> None:
    class First(Inverted):
        """The only one of its class, before all others: a stem, but for its place."""

    stages = [nn.Sequential(First(8, 8), Inverted(8, 8)), nn.Sequential(Inverted(8, 8))]
    net = Small(*stages)
    plan = rlawrap.inspect(net, example_input=torch.zeros(2, 3, 16, 16))
    assert [b.path for b in plan.blocks] == ["body.0.0", "body.0.1", "body.1.0"]
    assert [b.branch for b in plan.blocks] == [f"{b.path}.conv2.2" for b in plan.blocks]
    assert [b.shortcut for b in plan.blocks] == ["stem", "body.0.0:add", "body.0.1:add"]


def test_a_module_that_joins_and_returns_no_image_hides_no_block() -> None:
    class Whole(nn.Module):
        """A classifier that concatenates, wrapped in another module."""

        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3, padding=1)
            self.one, self.two = Inverted(8, 8), Inverted(8, 8)
            self.fc = nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.one(self.stem(x))
            return self.fc(torch.cat([x, self.two(x)], 1).mean((2, 3)))

    class Lightning(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Whole()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    assert blocks(Lightning()) == ["net.one", "net.two"]


def test_joining_attributes_of_a_module_that_occurs_once_are_blocks() -> None:
    class Backbone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mixed, self.more = Split8(), Split8()

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.more(torch.relu(self.mixed(x))))

    assert blocks(Small(Backbone())) == ["body.0.mixed", "body.0.more"]
