from __future__ import annotations

import json

import pytest

from rlawrap.errors import ConfigError
from rlawrap.train.config.augment import AugmentConfig


def test_config_survives_json() -> None:
    config = AugmentConfig(crop="padded", mean=(0.1, 0.2, 0.3), mixup=0.2, scale=(0.3, 1.0))
    assert AugmentConfig(**json.loads(config.model_dump_json())) == config


@pytest.mark.parametrize(
    "wrong",
    [
        {"crop": "random"},
        {"flip": 1.5},
        {"erase": -0.1},
        {"mixup": -1.0},
        {"padding": -1},
        {"scale": (0.5, 0.2)},
        {"magnitude": 31},
        {"std": (0.5, 0.0, 0.5)},
    ],
)
def test_config_refuses_what_makes_no_sense(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        AugmentConfig(**wrong)  # type: ignore[arg-type]
