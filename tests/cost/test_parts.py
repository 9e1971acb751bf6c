from __future__ import annotations

from rlawrap.cost.count import Call, Ops
from rlawrap.cost.parts import assign_calls, assign_parameters, by_child


def calls(*paths: str) -> list[Call]:
    return [Call(path, Ops()) for path in paths]


def test_stem_stages_head_and_what_lies_between() -> None:
    order = calls("conv1", "a.0.conv", "a.0", "down", "b.0.conv", "", "norm", "fc")
    assert assign_calls(order, [["a.0"], ["b.0"]], {}) == [
        "stem",
        "stage 0",
        "stage 0",
        "stage 0",
        "stage 1",
        "head",
        "head",
        "head",
    ]


def test_the_hidden_state_belongs_to_the_stage_it_runs_in() -> None:
    """The update after the last block is no head; a module of one block has its own stage."""
    order = calls("a.conv", "rla.update", "rla.enter.1", "b.conv", "rla.update", "rla.head", "fc")
    hidden = {"rla.enter.1": "stage 1", "rla.head": "head"}
    assert assign_calls(order, [["a"], ["b"]], hidden) == [
        "stage 0",
        "stage 0",
        "stage 1",
        "stage 1",
        "stage 1",
        "head",
        "head",
    ]


def test_parameters_go_by_where_they_are_read_or_what_holds_them_runs() -> None:
    order = [*calls("stem.conv", "a.0"), Call("", Ops(), reads=("kernels.1",))]
    parts = ["stem", "stage 0", "stage 1"]
    owned = ["stem.conv.weight", "a.0.scale.x", "aux.fc.weight", "spare", "kernels.1"]
    assert assign_parameters(owned, order, parts) == {
        "stem.conv.weight": "stem",
        "a.0.scale.x": "stage 0",
        "aux.fc.weight": "not run",
        "spare": "not run",
        "kernels.1": "stage 1",
    }


def test_without_blocks_the_children_are_the_parts() -> None:
    assert by_child(calls("", "conv1", "layer1.0.conv", "", "fc")) == [
        "forward",
        "conv1",
        "layer1",
        "layer1",
        "fc",
    ]
