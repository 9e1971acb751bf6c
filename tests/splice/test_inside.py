"""What there is to ask of a model that holds rewritten networks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import rlawrap
from rlawrap.splice.inside import added_in, rewritten_in
from tests.refused import classifier
from tests.splice.test_at import Towers, X, randomised, same


def held() -> tuple[Towers, Any]:
    base = Towers()
    return base, randomised(rlawrap.apply(base, k=3, at=["towers.a", "aux"]))


def test_they_are_found_once_and_not_looked_into() -> None:
    tower = rlawrap.apply(classifier(), k=2)
    assert list(rewritten_in(nn.ModuleList([nn.ReLU(), tower, tower]))) == ["1"]
    assert rewritten_in(tower) == {"": tower}
    assert rewritten_in(classifier()) == {}
    is_added = added_in(nn.ModuleList([nn.ReLU(), tower, tower]))
    assert is_added("1.rla") and is_added("2.rla.cell.0.conv.weight")
    assert not is_added("1.rlax.weight") and not is_added("0.rla")


def test_state_dict_of_what_was_added() -> None:
    base, model = held()
    added = rlawrap.rla_state_dict(model)
    assert set(model.state_dict()) - set(added) == set(base.state_dict())
    assert {key.split(".rla.")[0] for key in added} == {"towers.a", "aux"}


def test_disabled_and_unwrapped_it_is_the_base() -> None:
    base, model = held()
    assert not same(base, model)
    with rlawrap.disabled(model):
        assert all(map(torch.equal, model.eval()(X, X).values(), base.eval()(X, X).values()))
    assert not same(base, model)
    back: Any = rlawrap.unwrap(model)
    assert same(back, base) and rewritten_in(back) == {} and len(rewritten_in(model)) == 2
    assert list(back.state_dict()) == list(base.state_dict())
    assert back.kept[0] is back.towers["a"] and type(back.kept[0]) is nn.Sequential
    assert back.words.weight is back.towers["a"][5].weight
    assert [m.inplace for m in back.modules() if isinstance(m, nn.ReLU)] == [True] * 6
    back.towers["a"][1](torch.rand(1, 4, 6, 6))  # no guard is left that would warn


def test_a_classifier_inside_is_replaced() -> None:
    _, model = held()
    model.aux.reset_classifier(7)
    assert model.aux(X).shape == (2, 7)


def test_values_for_parts_that_were_made_without_memory() -> None:
    with torch.device("meta"):
        empty = Towers()
    model: Any = rlawrap.apply(empty, k=3, at=["towers.a", "aux"]).to_empty(device="cpu")
    weights = Towers()
    model.load_state_dict(weights.state_dict(), strict=False)
    torch.manual_seed(5)
    rlawrap.initialize(model)
    assert same(model, weights)
    torch.manual_seed(5)
    expected: Any = rlawrap.apply(weights, k=3, at=["towers.a", "aux"])
    for key, value in rlawrap.rla_state_dict(expected).items():
        assert torch.equal(value, model.state_dict()[key]), key


def test_a_backbone_inside_is_refused_by_path() -> None:
    holder = nn.ModuleDict({"maps": rlawrap.backbone(rlawrap.apply(classifier(), k=2))})
    for ask in (rlawrap.unwrap, rlawrap.initialize):
        with pytest.raises(rlawrap.PlanError, match="its module 'maps' is a backbone"):
            ask(holder)


def test_the_part_of_h_in_a_detector_on_a_backbone() -> None:
    maps = rlawrap.backbone(rlawrap.apply(classifier(), k=2))
    holder = nn.ModuleDict({"body": maps})
    added = {f"body.{key}" for key in maps.state_dict() if key.startswith("rla.")}
    assert set(rlawrap.rla_state_dict(holder)) == added and added
