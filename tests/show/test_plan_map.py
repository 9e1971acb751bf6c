from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

import pytest

import rlawrap
from rlawrap.plan import Block, Plan
from rlawrap.show.drawing import Box, Dot, Drawing, overlapping
from rlawrap.show.plan_map import draw_plan, tail_of
from rlawrap.show.plan_rows import MOST, bands_of
from rlawrap.show.svg import to_svg


def block(path: str, **fields: object) -> Block:
    known = {"in_channels": 8, "channels": 8, "stride": 1.0, "size": (16, 16)} | fields
    return Block(
        path=path, entries=(f"{path}.conv1",), output=path, class_name="Bottleneck", **known
    )


def deep(counts: tuple[int, ...], name: str = "layer{s}.{n}") -> Plan:
    """A plan of stages of so many blocks, halving from stage to stage."""
    stages = []
    for s, count in enumerate(counts):
        size = (64 >> s, 64 >> s)
        stages.append(
            [
                block(name.format(s=s + 1, n=n), size=size, stride=2.0 if s and not n else 1.0)
                for n in range(count)
            ]
        )
    return Plan.of("ResNet", stages, input_shape=(1, 3, 224, 224), head=["fc"])


def cards(drawing: Drawing) -> list[Box]:
    return [p for p in drawing.parts if isinstance(p, Box) and p.fill == "card"]


PLANS = {
    "resnet18": deep((2, 2, 2, 2)),
    "resnet152": deep((3, 8, 36, 3)),
    "densenet201": deep((6, 12, 48, 32), "features.denseblock{s}.denselayer{n}"),
    "long names": deep(
        (2, 9), "a_very_long_name_of_a_module_{s}.another_long_name_without_end_{n}"
    ),
    "branches": Plan.of(
        "Fork",
        [
            [
                block("stem.a"),
                block("left.b"),
                block("right.c", after=0),
                block("apart.d", after=None),
            ]
        ],
    ),
    "empty": Plan.of("Nothing", []),
}


@pytest.mark.parametrize("name", PLANS)
def test_texts_and_blocks_lie_apart_and_every_block_is_named(name: str) -> None:
    plan = PLANS[name]
    drawing = draw_plan(plan)
    assert overlapping(drawing) == []
    boxes = cards(drawing)
    assert len(boxes) == len(plan.blocks) + len(plan.head)
    for one, other in pairwise(sorted(boxes, key=lambda b: (b.y, b.x))):
        assert other.y >= one.y + one.height or other.x >= one.x + one.width
    assert all(b.x >= 0 and b.x + b.width <= drawing.width for b in boxes)
    svg = to_svg(drawing)
    for each in plan.blocks:
        assert re.search(rf"\b{re.escape(each.path)}\b", svg), each.path
    # One recurrent cell on the lane for each block, beside the legend's.
    dots = [p for p in drawing.parts if isinstance(p, Dot) and p.line is None]
    assert len(dots) == len(plan.blocks) + 1


def test_rows_are_even_and_none_is_too_long() -> None:
    for plan in PLANS.values():
        for band in bands_of(plan):
            lengths = [len(row) for row in band.rows]
            assert all(n <= MOST for n in lengths)
            assert all(n == lengths[0] for n in lengths[:-1])
    assert [len(row) for row in bands_of(PLANS["resnet152"])[2].rows] == [6] * 6


def test_h_is_pooled_where_a_block_strides_or_the_size_changed_before_it() -> None:
    """A stride may round either way: a side of 7 becomes 3 here and 3 becomes 2."""
    blocks = [
        block("a", size=(7, 7)),
        block("b", stride=2.0, size=(3, 3)),
        block("c", stride=2.0, size=(2, 2)),
        block("d", stride=1.0, size=(1, 1)),
        block("e", stride=0.5, size=(2, 2)),
    ]
    (band,) = bands_of(Plan.of("Net", [blocks]))
    assert [cell.pooled for cell in band.rows[0]] == ["", "÷2", "÷2", "", "×2"]
    assert [cell.brought for cell in band.rows[0]] == ["", "", "", "÷2", ""]


def test_a_branch_says_whose_h_it_reads() -> None:
    drawing = draw_plan(PLANS["branches"])
    texts = [t.text for t in drawing.texts]
    assert [t for t in texts if t.startswith(("h of", "h from", "h0"))] == [
        "h0 = 0",
        "h of stem.a",
        "h from zeros",
    ]


def test_a_stage_says_its_size_its_blocks_and_who_shares_a_cell() -> None:
    plan = PLANS["densenet201"]
    texts = [t.text for t in draw_plan(plan).texts]
    assert "stage 1, 32×32: 12 blocks in features.denseblock2, one recurrent cell" in texts
    alone = rlawrap.RLAConfig(share="none")
    texts = [t.text for t in draw_plan(plan, alone).texts]
    assert "stage 1, 32×32: 12 blocks in features.denseblock2, a recurrent cell each" in texts
    assert "h: 32 channels, cell conv, updated from the output" in texts


def test_where_h_leaves_follows_the_configuration() -> None:
    plan = Plan.of("Net", [[block("a", branch="a.bn2"), block("b")]])

    def ways(**options: object) -> list[tuple[str, str]]:
        config = rlawrap.RLAConfig(**options)
        return [(c.enters, c.leaves) for c in bands_of(plan, config)[0].rows[0]]

    assert ways(source="branch", initial_state="zeros") == [("conv1", "bn2"), ("conv1", "out")]
    assert ways(source="input", initial_state="none") == [("", "in"), ("conv1", "in")]
    assert ways(inject="none") == [("", "out"), ("", "out")]


def test_a_long_path_keeps_its_end() -> None:
    assert tail_of("features.denseblock4.denselayer16", 110) == "…denselayer16"
    assert tail_of("layer1.0", 110) == "layer1.0"


def test_left_out_parts_and_notes_stand_below() -> None:
    plan = replace(PLANS["resnet18"], left_out=(("stem", "no block"),), notes=("n" * 40,) * 9)
    drawing = draw_plan(plan)
    texts = [t.text for t in drawing.texts]
    assert "left out: stem: no block" in texts
    assert texts[-1] == "… 5 lines more in print(plan)"
    assert overlapping(drawing) == []
