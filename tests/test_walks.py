"""Walks over small graphs whose answers are plain to see."""

from __future__ import annotations

import torch
from torch import fx

from rlawrap.walks import ancestors, chain, dominators, first_hits, only, search, shortest

#:   a ─ b ─ d ─ f      a reads nothing; e is a way round
#:    └─ c ─┘   /
#:        └ e ─┘
USERS = {"a": "bc", "b": "d", "c": "de", "d": "f", "e": "f", "f": ""}


def test_search_takes_the_nearest_first_and_each_once() -> None:
    assert list(search("a", USERS.__getitem__)) == list("abcdef")
    assert list(search("ed", USERS.__getitem__)) == list("edf")
    assert list(search("a", lambda n: USERS[n] if n != "c" else "")) == list("abcdf")


def test_a_walk_ends_at_a_hit() -> None:
    assert first_hits("a", USERS.__getitem__, lambda n: n in "cf") == ["c", "f"]
    assert first_hits("a", USERS.__getitem__, lambda n: n in "af") == ["a"]
    assert first_hits("b", USERS.__getitem__, lambda n: n == "c") == []


def test_of_ways_of_one_length_the_first() -> None:
    assert shortest("a", "f", USERS.__getitem__) == list("abdf")
    assert shortest("c", "f", USERS.__getitem__) == list("cdf")
    assert shortest("f", "a", USERS.__getitem__) is None
    assert shortest("a", "a", USERS.__getitem__) == ["a"]
    assert shortest(0, 0, lambda n: [n]) == [0]


def test_a_chain_follows_the_only_user() -> None:
    assert chain("b", lambda n: only(USERS[n])) == list("bdf")
    assert chain("a", lambda n: only(USERS[n])) == ["a"]


def test_ancestors_and_dominators_of_a_graph() -> None:
    class Net(torch.nn.Module):
        def forward(self, a: torch.Tensor) -> torch.Tensor:
            b, c = a.abs(), a.neg()
            d = b + c
            return d.exp() + c.sin()

    graph = fx.symbolic_trace(Net()).graph
    nodes = [n for n in graph.nodes if n.op != "output"]
    sources = {n: n.all_input_nodes for n in nodes}
    a, b, c, d, exp, sin, last = nodes
    above = ancestors(nodes, sources)
    assert [above[n] for n in nodes] == [1, 0b11, 0b101, 0b1111, 0b11111, 0b100101, 0b1111111]
    assert dominators(nodes, sources) == {
        a: None, b: a, c: a, d: a, exp: d, sin: c, last: a,
    }  # fmt: skip
