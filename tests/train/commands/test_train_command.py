from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from rlawrap.errors import ConfigError
from rlawrap.network_options import parse_assignments
from rlawrap.train import TrainConfig
from rlawrap.train.commands.options import config_from_options, option_parameters
from rlawrap.train.commands.train_command import recipe_app
from rlawrap.train.commands.train_command import train as train_command
from rlawrap.train.config.recipes import RECIPES, get_recipe
from rlawrap.train.store.run_folder import RunFolder

ROOT = Path(__file__).parents[3]
runner = CliRunner()


def make_app() -> typer.Typer:
    app = typer.Typer()
    app.command()(train_command)
    app.add_typer(recipe_app, name="recipe")
    return app


def config_of(*arguments: str) -> TrainConfig:
    result = runner.invoke(make_app(), ["train", *arguments, "--dry-run"])
    assert result.exit_code == 0, result.output
    return TrainConfig.from_dict(json.loads(result.stdout))


def test_every_field_has_an_option() -> None:
    names = {parameter.name for parameter in option_parameters()}
    assert set(TrainConfig.model_fields) - names == {"augment"}


def test_options_become_fields() -> None:
    config = config_of(
        *(
            "cifar10",
            "--arch",
            "rla_resnet50",
            "--model-arg",
            "k=8",
            "--model-arg",
            "init=identity",
        ),
        *("--freeze", "stem", "--freeze", "layer1", "--lr", "0.2", "--nesterov", "--epochs", "3"),
        *("--save-minutes", "2.5", "--mixup", "0.2", "--crop", "none", "--no-tensorboard"),
    )
    assert config.data == "cifar10"
    assert config.model_kwargs == {"k": 8, "init": "identity"}
    assert config.freeze == ("stem", "layer1")
    assert (config.lr, config.nesterov, config.epochs) == (0.2, True, 3)
    assert config.save_minutes == 2.5
    assert config.augment is not None
    assert (config.augment.mixup, config.augment.crop) == (0.2, "none")
    assert config.momentum == TrainConfig().momentum


def test_options_change_a_recipe_or_a_config(tmp_path: Path) -> None:
    config = config_of("/imagenet", "--recipe", "rla-imagenet-resnet", "--epochs", "90")
    changes = {"data": "/imagenet", "epochs": 90, "monitor": "top1"}
    assert config == get_recipe("rla-imagenet-resnet").config(**changes)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    again = config_of("--config", str(tmp_path / "config.json"), "--lr", "1", "--flip", "0")
    assert again.augment is not None and config.augment is not None
    assert again.augment == config.augment.replace(flip=0)
    assert again == config.replace(lr=1.0, augment=again.augment)
    assert config_of("--config", json.dumps(config.to_dict())) == config


def test_official_recipes() -> None:
    resnet = get_recipe("rla-imagenet-resnet").config()
    assert (resnet.lr, resnet.epochs, resnet.batch_size) == (0.1, 120, 256)
    assert (resnet.momentum, resnet.weight_decay, resnet.decay_filter) == (0.9, 1e-4, "all")
    assert (resnet.schedule, resnet.step_epochs, resnet.gamma) == ("step", 30, 0.1)
    mobile = get_recipe("rla-imagenet-mobilenet").config()
    assert (mobile.lr, mobile.epochs, mobile.batch_size) == (0.045, 400, 96)
    assert (mobile.schedule, mobile.gamma, mobile.weight_decay) == ("exponential", 0.98, 4e-5)
    for config in (resnet, mobile):
        assert config.augment is not None
        assert (config.augment.crop, config.augment.flip, config.augment.resize) == (
            "resized",
            0.5,
            256,
        )
        assert config.image_size == 224


def test_a_recipe_s_resize_goes_with_the_image_size() -> None:
    recipe = ("--recipe", "rla-imagenet-resnet")
    config = config_of(*recipe, "--image-size", "288")
    assert config.augment is not None and config.augment.resize == 329  # 256/224 of it
    assert get_recipe(recipe[1]).config(image_size=288).augment == config.augment
    whole = config.augment.replace(resize=288)
    assert get_recipe(recipe[1]).config(image_size=288, augment=whole).augment == whole
    again = config_of("--config", json.dumps(config.to_dict()), "--image-size", "224")
    assert again.augment == get_recipe("rla-imagenet-resnet").config().augment
    config = config_of(*recipe, "--image-size", "288", "--resize", "300", "--flip", "0.1")
    assert config.augment is not None and (config.augment.resize, config.augment.flip) == (300, 0.1)


def test_the_recipe_for_convnext_is_that_of_its_paper() -> None:
    config = get_recipe("convnext-imagenet").config()
    assert (config.optimizer, config.lr, config.weight_decay) == ("adamw", 4e-3, 0.05)
    assert (config.epochs, config.batch_size, config.warmup_epochs) == (300, 4096, 20)
    assert (config.decay_filter, config.label_smoothing, config.ema) == ("weights", 0.1, 0.9999)
    assert config.augment is not None
    augment = config.augment
    assert (augment.randaugment, augment.magnitude, augment.erase) == (2, 9, 0.25)
    assert (augment.mixup, augment.cutmix) == (0.8, 1.0)


def test_recipes_are_shown() -> None:
    listed = runner.invoke(make_app(), ["recipe", "list"]).stdout
    assert all(name in listed for name in RECIPES)
    shown = json.loads(runner.invoke(make_app(), ["recipe", "show", "rla-32"]).stdout)
    assert shown["sets"]["image_size"] == 32
    assert TrainConfig.from_dict(shown["config"]) == get_recipe("rla-32").config()
    with pytest.raises(ConfigError, match="rla-32"):
        get_recipe("rla-33")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model_kwargs": ["k"]}, "NAME=VALUE"),
        ({"epochs": 0}, "epochs=0"),
        ({"flip": 2.0}, "flip"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        config_from_options(options)


def test_a_config_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        config_from_options({}, base=str(tmp_path / "missing.json"))
    with pytest.raises(ConfigError, match="not JSON"):
        config_from_options({}, base="{nonsense")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not JSON"):
        config_from_options({}, base=str(tmp_path / "binary"))
    with pytest.raises(ConfigError, match="one of them"):
        config_from_options({}, base="{}", recipe="rla-32")


def test_assignments_keep_text_and_numbers_apart() -> None:
    assert parse_assignments(["a=1", "b=1.5", "c=x", "d=null", "e=[1, 2]", "f=a=b"]) == {
        "a": 1, "b": 1.5, "c": "x", "d": None, "e": [1, 2], "f": "a=b",
    }  # fmt: skip


def test_a_bad_option_is_one_clean_line(tmp_path: Path) -> None:
    done = run_module("--epochs", "0", "--output", str(tmp_path / "run"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "rlawrap train: epochs=0: should be greater than or equal to 1.\n"
    assert not (tmp_path / "run").exists()


def test_sigterm_saves_and_exits_with_0(tmp_path: Path) -> None:
    config = TrainConfig(
        arch="cifar_resnet20", subset=400, batch_size=20, image_size=8, epochs=99, workers=1,
        output=str(tmp_path / "run"), log_every=1,
    )  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "rlawrap.train", "--config", json.dumps(config.to_dict())],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "step 3/" in line:
            process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert lines[-1] == f"stopped; resume with --output {tmp_path / 'run'} --resume auto\n"
    assert RunFolder(tmp_path / "run").status()["state"] == "stopped"
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 1


def run_module(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rlawrap.train", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
