from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlawrap.errors import ConfigError
from rlawrap.train import TrainConfig
from rlawrap.train.data import AugmentConfig


def test_json_round_trip() -> None:
    config = TrainConfig(
        model_kwargs={"k": 8, "init": "identity"},
        freeze=("stem", "layer1"),
        augment=AugmentConfig(crop="padded", mean=(0.5,), mixup=0.2),
        clip=1.0,
    )
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("accumulate", 0),
        ("lr", 0),
        ("clip", 0),
        ("ema", 1.0),
        ("label_smoothing", 1.0),
        ("schedule", "linear"),
        ("amp", "fp8"),
        ("workers", -1),
        ("patience", 0),
        ("device", "tpu"),
        ("lr", float("nan")),
        ("lr", float("inf")),
        ("lr", "abc"),
        ("milestones", (8, -3)),
        ("rla", {"k": np.int64(4)}),
        ("lr", True),
        ("timeout", float("inf")),
        ("timeout", 1e12),
        ("epochs", 1.5),
        ("epochs", True),
        ("nesterov", 1),
        ("freeze", "stem"),
        ("freeze", [1]),
        ("model_kwargs", [1]),
        ("model_kwargs", {"k": float("nan")}),
        ("augment", 3),
        ("output", 3),
        ("data_root", 3),
    ],
)
def test_a_value_that_makes_no_sense_is_named(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"{field}="):
        TrainConfig(**{field: value})


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        ({"foo": 1}, "AugmentConfig has no field foo. Its fields: crop, "),
        ({"scale": [0.5]}, "scale=.0.5.: needs more values"),
        ({"scale": 0.5}, "scale=0.5: should be a list"),
        ({"mixup": float("nan")}, "mixup=nan: should be a finite number"),
        ({"resize": -5}, "resize=-5"),
        ({"ratio": [2, 1]}, "ratio="),
        ({"mean": ["x"]}, "mean=.*'x' should be a valid number"),
        ({"std": [0.5, 0]}, r"std=\[0.5, 0\]: 0.* should be greater than 0"),
    ],
)
def test_an_augmentation_that_makes_no_sense_is_named(
    augment: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig.from_dict({"augment": augment})


def test_combinations_that_make_no_sense() -> None:
    with pytest.raises(ConfigError, match="momentum"):
        TrainConfig(nesterov=True, momentum=0)
    with pytest.raises(ConfigError, match="warm-up must end"):
        TrainConfig(epochs=5, warmup_epochs=5)


def test_unknown_fields_are_named() -> None:
    with pytest.raises(ConfigError, match=r"TrainConfig has no field momentun. Nearest: momentum"):
        TrainConfig.from_dict({"momentun": 1})
    with pytest.raises(ConfigError, match=r"epochs=0: .* no field momentun"):
        TrainConfig().replace(epochs=0, momentun=1)
    with pytest.raises(ConfigError, match="version 99"):
        TrainConfig.from_dict({"version": 99})


def test_a_config_is_frozen_and_keeps_its_arguments_to_itself() -> None:
    arguments = {"sizes": (1, 2)}
    config = TrainConfig(model_kwargs=arguments)
    assert config.model_kwargs == {"sizes": [1, 2]}  # as JSON gives it back
    assert TrainConfig(lr=1).to_dict()["lr"] == 1.0 and not TrainConfig().model_kwargs
    with pytest.raises(ValueError, match="frozen"):
        config.lr = 1.0


def test_differences_leave_out_what_does_not_touch_the_numbers() -> None:
    first = TrainConfig(lr=0.1, workers=1, output="a", log_every=5)
    second = TrainConfig(lr=0.2, workers=8, output="b", log_every=50)
    assert first.differences(second) == {"lr": (0.1, 0.2)}


def test_paths_are_taken_as_text() -> None:
    config = TrainConfig(output=Path("runs") / "a", data_root=Path("/data"))
    assert (config.output, config.data_root) == (os.path.join("runs", "a"), os.sep + "data")
    assert config.replace(finetune=Path("w.pt")).to_dict()["finetune"] == "w.pt"
    with pytest.raises(ConfigError, match="epochs='runs'"):
        TrainConfig(epochs=Path("runs"))
