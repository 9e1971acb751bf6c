"""Plan: a readable table, a JSON round trip, and edits that say what they did."""

from __future__ import annotations

import json
from typing import Any

import pytest

import rlawrap
from rlawrap.plan import Block, Plan
from tests.nets import FAMILIES, BlockNet, LoopNet


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "functional_net", "loop_net"])
def test_round_trip_through_json(name: str) -> None:
    plan = rlawrap.inspect(FAMILIES[name][0]())
    again = Plan.from_dict(json.loads(json.dumps(plan.to_dict())))
    assert again == plan
    assert again.digest == plan.digest


def test_facts_of_each_block() -> None:
    plan = rlawrap.inspect(BlockNet())
    first, second, third = plan.blocks
    assert [len(s.blocks) for s in plan.stages] == [1, 2]
    assert (second.path, second.class_name) == ("body.1", "Residual")
    assert (second.input, second.output) == ("body.0.relu#1", "body.1")
    assert second.entries == ("body.1.conv1",)
    assert (second.branch, second.shortcut) == ("body.1.bn2", "body.1.project.1")
    assert (second.in_channels, second.channels, second.stride) == (8, 16, 2)
    assert (first.after, second.after, third.after) == (None, 0, 1)
    assert plan.head == ("fc",)


def test_the_table_shows_blocks_totals_and_what_was_left_out() -> None:
    text = str(rlawrap.inspect(BlockNet()))
    assert "3 blocks in 2 stages" in text
    assert "body.1  Residual  8 -> 16" in text
    assert "head: h joins at fc" in text
    assert "left out: stage1: a stage: its forward loops over steps" in str(
        rlawrap.inspect(LoopNet())
    )


def test_without_names_the_blocks_there_are() -> None:
    plan = rlawrap.inspect(BlockNet())
    with pytest.raises(rlawrap.PlanError, match=r"no block \['body.9'\].*body.0"):
        plan.without("body.9")
    less = plan.without("body.0")
    assert [b.path for b in less.blocks] == ["body.1", "body.2"]
    assert ("body.0", "removed from the plan by hand") in less.left_out


def test_without_keeps_each_chain_apart() -> None:
    def block(path: str, after: int | str | None) -> Block:
        return Block(path=path, entries=(path,), output=path, after=after)

    plan = Plan.of(
        "towers",
        [
            [block("a0", None), block("a1", "previous"), block("b0", None)],
            [block("a2", 1), block("b1", 2), block("b2", 4), block("c0", 9)],
        ],
    )

    def after(*paths: str) -> dict[str, int | str | None]:
        return {b.path: b.after for b in plan.without(*paths).blocks}

    assert after("a1") == {"a0": None, "b0": None, "a2": 0, "b1": 1, "b2": 3, "c0": 9}
    assert after("a0") == {"a1": None, "b0": None, "a2": 0, "b1": 1, "b2": 3, "c0": 9}
    assert after("b0") == {"a0": None, "a1": 0, "a2": 1, "b1": None, "b2": 3, "c0": 9}
    assert after("a0", "a1", "b1") == {"b0": None, "a2": None, "b2": 0, "c0": 9}


def test_digest_follows_the_wiring() -> None:
    def plan(entry: str) -> Plan:
        return Plan.of("net", [[Block(path="a", entries=(entry,), output="a")]])

    assert plan("a.conv1").digest == plan("a.conv1").digest
    assert plan("a.conv1").digest != plan("a.conv2").digest


def test_what_is_no_plan_is_refused() -> None:
    with pytest.raises(rlawrap.PlanError, match="version None"):
        Plan.from_dict({})
    data = rlawrap.inspect(BlockNet()).to_dict()
    del data["stages"]
    with pytest.raises(rlawrap.PlanError, match="not a plan"):
        Plan.from_dict(data)


def test_a_plan_for_another_network_names_the_nearest_references() -> None:
    plan = rlawrap.inspect(FAMILIES["resnet18"][0]())
    with pytest.raises(rlawrap.PlanError, match=r"'layer1.0'.*BlockNet does not\s+compute"):
        rlawrap.apply(BlockNet(), plan=plan)


@pytest.mark.parametrize(
    ("fields", "missing"),
    [
        ({"output": None}, "output=None, expected a reference to what h is updated from"),
        ({"path": 3}, "path=3, expected a reference to the block's module"),
        ({"entries": "3.conv1"}, "entries='3.conv1', expected a tuple"),
        ({"entries": None}, "entries=None, expected a tuple"),
        ({"entries": (None,)}, r"entries=\(None,\), expected a tuple"),
    ],
)
def test_a_block_says_which_reference_is_missing(fields: dict[str, Any], missing: str) -> None:
    given: dict[str, Any] = {"path": "3", "entries": ("3.conv1",), "output": "3"}
    with pytest.raises(rlawrap.PlanError, match=missing):
        Block(**{**given, **fields})
