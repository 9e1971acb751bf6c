"""Where modules stand: by index and likeness, whatever they are called."""

from __future__ import annotations

from torch import nn

from rlawrap.discover.places import Paths, Places, inside, outermost
from tests.nets import Residual


class Stage(nn.Module):
    def __init__(self, down: bool) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(8, 8, 2, 2)) if down else nn.Identity()
        self.blocks = nn.Sequential(Residual(8, 8), Residual(8, 8))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        self.red = nn.Sequential(Residual(8, 8), Residual(8, 8))
        self.blue = nn.Sequential(Residual(8, 8))
        self.stages = nn.ModuleList([Stage(False), Stage(True)])


PLACES = Places(dict(Net().named_modules()))


def test_paths() -> None:
    assert inside("layer1.0", "layer1") and inside("a", "")
    assert not inside("layer10", "layer1") and not inside("layer1", "layer1")
    known = Paths(["b.c.d", "b", "a", "b.c"])
    assert known.around("b.c.d.e") == ["b.c.d", "b", "b.c"] and known.around("b") == []
    assert known.below("b") == ["b.c.d", "b.c"] and known.below("") == ["b.c.d", "b", "a", "b.c"]
    assert Paths([""]).around("a.b") == [""]
    assert all(map(known.related, ("a.b", "b.c.d", "a", "b.x", ""))) and not known.related("ab")
    assert outermost(["a.b", "a", "ab", "c.d"]) == ["a", "ab", "c.d"]


def test_like_siblings_have_one_place_whatever_their_names() -> None:
    assert PLACES.place("red.0") == PLACES.place("red.1") == PLACES.place("blue.0")
    assert PLACES.repeats("red.0") == 2
    assert PLACES.place("stem.0") != PLACES.place("red.0")
    assert PLACES.repeats("stem.0") == 1


def test_an_optional_sibling_before_it_moves_no_place() -> None:
    assert PLACES.place("stages.0.blocks.0") == PLACES.place("stages.1.blocks.1")
    assert PLACES.place("stages.1.first.0") != PLACES.place("stages.1.blocks.0")
    assert PLACES.repeats("stages.0.blocks.0") == 2


def test_slots_tell_attributes_apart_by_their_order() -> None:
    slot = PLACES.slot
    assert slot("red.0.conv1") == slot("red.1.conv1") != slot("red.0.conv2")
    assert slot("red.0.conv1") != slot("blue.0.conv1")
    assert PLACES.place("red.0.conv1") == PLACES.place("blue.0.conv2")  # like siblings
