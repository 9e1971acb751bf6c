"""RLAConfig: frozen, checked, and the same after a round trip through JSON."""

from __future__ import annotations

import dataclasses
import json

import pytest

import rlawrap
from rlawrap.config import VARIANTS, RLAConfig, variant


@pytest.mark.parametrize("name", VARIANTS)
def test_round_trip(name: str) -> None:
    config = variant(name, k=7)
    assert RLAConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_frozen_and_keyword_only() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        RLAConfig().k = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        RLAConfig(32)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k must be a whole number of at least 1"),
        ({"k": 2.5}, "k must be a whole number"),
        ({"k": True}, "k must be a whole number"),
        ({"kernel": 2}, "must be odd"),
        ({"source": "outptu"}, "Did you mean `source='output'`"),
        ({"update": "before"}, "choose one of pre, split, post"),
        ({"norm": "spectral"}, "choose one of batch, group"),
        ({"cell": 3}, "name of a registered cell"),
    ],
)
def test_wrong_values_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(rlawrap.ConfigError, match=message):
        RLAConfig(**options)  # type: ignore[arg-type]


def test_unknown_option_names_the_nearest() -> None:
    with pytest.raises(rlawrap.ConfigError, match="Did you mean share="):
        RLAConfig().with_options(shared="stage")


def test_other_versions_are_refused() -> None:
    data = RLAConfig().to_dict() | {"version": 99}
    with pytest.raises(rlawrap.ConfigError, match="version 99"):
        RLAConfig.from_dict(data)


def test_variants_are_the_published_ones() -> None:
    assert variant("rla") == RLAConfig(init="paper", initial_state="zeros")
    assert variant("rlav6").source == "input" and variant("rlav6").update == "split"
    assert variant("rlaus").source == "branch" and variant("rlaus").share == "none"
    assert variant("dsrla_mobilenetv2").cell == "dwconv"
    with pytest.raises(rlawrap.ConfigError, match="rlav9"):
        variant("rlav9")
