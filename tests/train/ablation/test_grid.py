from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import torch

from rlawrap.errors import CheckpointError, ConfigError
from rlawrap.train.ablation.grid import check_grid, dry_run, make_grid
from rlawrap.train.commands.options import config_from_options
from rlawrap.train.config.train_config import TrainConfig
from rlawrap.train.data import AugmentConfig
from rlawrap.train.network.build import build_model
from tests.train.ablation.tiny import tiny
from tests.train.made_up_runs import write_run


def test_the_plain_network_is_trained_once_per_seed() -> None:
    runs = make_grid(
        TrainConfig(output="x", arch="cifar_resnet20"),
        ks=[8, 0, 4],
        cells=["conv", "convgru"],
        sources=["output", "branch"],
        seeds=2,
    )
    names = [run.variant.name for run in runs if run.seed == 0]
    assert names == [
        "plain",
        *(f"{c}-{s}-k{k}" for c in ("conv", "convgru") for s in ("output", "branch")
          for k in (4, 8)),
    ]  # fmt: skip
    assert len(runs) == 2 * len(names)
    assert len({run.config.output for run in runs}) == len(runs)


def test_options_of_the_hidden_state_do_not_go_to_the_plain_network() -> None:
    config = TrainConfig(
        output="x",
        arch="cifar_resnet20",
        model_kwargs={"init": "identity", "in_channels": 1},
    )
    runs = make_grid(config, ks=[0, 4], seeds=1)
    check_grid(runs)
    plain, rla = (run.config.model_kwargs for run in runs)
    assert plain == {"in_channels": 1}
    assert rla == {"init": "identity", "in_channels": 1, "k": 4, "cell": "conv", "source": "output"}


def test_weights_that_are_not_there_are_found_out_before_any_run(tmp_path: Path) -> None:
    config = TrainConfig(output="x", arch="cifar_resnet20", finetune=str(tmp_path / "no"))
    with pytest.raises(CheckpointError, match="no such file"):
        check_grid(make_grid(config, ks=[0, 4], seeds=1))


def test_a_network_too_large_to_build_is_named() -> None:
    runs = make_grid(TrainConfig(output="x", arch="cifar_resnet20"), ks=[10**9], seeds=1)
    with pytest.raises(ConfigError, match=r"conv-output-k1000000000.*cannot be built"):
        check_grid(runs)


def test_a_run_of_the_grid_differs_from_the_others_by_network_seed_and_folder_only() -> None:
    base = TrainConfig(output="x", arch="rla_cifar_resnet20", seed=5, epochs=7, lr=0.3)
    plain, rla = make_grid(base, ks=[0, 16], seeds=1)
    assert plain.config.arch == "cifar_resnet20" and rla.config.arch == "rla_cifar_resnet20"
    assert plain.config.model_kwargs == {}
    assert rla.config.model_kwargs == {"k": 16, "cell": "conv", "source": "output"}
    assert plain.seed == rla.seed == plain.config.seed == 5
    assert set(plain.config.differences(rla.config)) == {"arch", "model_kwargs"}
    assert (rla.config.epochs, rla.config.lr) == (7, 0.3)


def test_runs_of_a_seed_start_from_the_same_base_weights(tmp_path: Path) -> None:
    plain, rla = make_grid(tiny(tmp_path), ks=[0, 4], seeds=1)
    base = build_model(plain.config, 10).state_dict()
    state = build_model(rla.config, 10).state_dict()
    assert all(torch.equal(value, state[name]) for name, value in base.items())


@pytest.mark.parametrize("arch", ["resnet50", "rla_mobilenetv2"])
def test_the_papers_networks_can_be_in_a_grid(tmp_path: Path, arch: str) -> None:
    config = TrainConfig(arch=arch, output=str(tmp_path))
    check_grid(make_grid(config, ks=[0, 8], cells=["convgru"], sources=["branch"], seeds=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ks": []}, "--k"),
        ({"ks": [0, 4, 4]}, "twice"),
        ({"ks": [-1]}, "--k -1"),
        ({"ks": [4], "cells": []}, "--cell"),
        ({"ks": [4], "seeds": 0}, "--seeds 0"),
    ],
)
def test_impossible_grids(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_grid(TrainConfig(), **options)  # type: ignore[arg-type]


def test_what_the_grid_sets_cannot_be_set_otherwise() -> None:
    with pytest.raises(ConfigError, match="use --cell"):
        make_grid(TrainConfig(model_kwargs={"cell": "conv"}), ks=[4])


def test_a_network_that_cannot_be_built_is_found_before_anything_is_written(
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigError, match="nonsense"):
        check_grid(make_grid(tiny(tmp_path / "out"), ks=[0, 4], cells=["conv", "nonsense"]))
    with pytest.raises(ConfigError, match="cifar_resnet21"):
        make_grid(tiny(tmp_path / "out", arch="cifar_resnet21"), ks=[0])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_another_run_is_refused(tmp_path: Path) -> None:
    runs = make_grid(tiny(tmp_path), ks=[0], seeds=1)
    write_run(tmp_path / "plain" / "seed0", [50], epochs=9)
    before = torch.get_rng_state()
    with pytest.raises(ConfigError, match="epochs: 9 there, 1 now"):
        check_grid(runs)
    assert torch.equal(torch.get_rng_state(), before)


def test_dry_run_gives_a_command_for_each_run_to_do(tmp_path: Path) -> None:
    config = tiny(tmp_path, augment=AugmentConfig(crop="none", mixup=0.1), lr=0.2)
    runs = make_grid(config, ks=[0, 4], seeds=2)
    write_run(tmp_path / "plain" / "seed1", [50])
    commands = [shlex.split(command) for command in dry_run(runs)]
    assert [command[:3] for command in commands] == [["rlawrap", "train", "--config"]] * 3
    read = [config_from_options({}, base=command[3]) for command in commands]
    assert read == [runs[0].config, runs[2].config, runs[3].config]


def test_any_network_gets_its_hidden_state_by_apply(tmp_path: Path) -> None:
    config = tiny(tmp_path, arch="torchvision:squeezenet1_1", model_kwargs={})
    runs = make_grid(
        config, ks=[0, 4], options={"share": ["stage", "none"], "kernel": [3]}, seeds=1
    )
    assert [run.variant.name for run in runs] == [
        "plain", "conv-output-share=stage-kernel=3-k4", "conv-output-share=none-kernel=3-k4",
    ]  # fmt: skip
    assert [run.config.rla for run in runs] == [
        None,
        {"k": 4, "cell": "conv", "source": "output", "share": "stage", "kernel": 3},
        {"k": 4, "cell": "conv", "source": "output", "share": "none", "kernel": 3},
    ]
    assert {run.config.arch for run in runs} == {"torchvision:squeezenet1_1"}
    base, model = (build_model(run.config, 10).state_dict() for run in runs[:2])
    assert all(torch.equal(value, model[name]) for name, value in base.items())


def test_a_preset_takes_the_fields_of_the_grid_as_its_arguments(tmp_path: Path) -> None:
    runs = make_grid(tiny(tmp_path), ks=[4], options={"update": ["post"]}, seeds=1)
    assert runs[0].config.arch == "rla_cifar_resnet20"
    assert runs[0].config.model_kwargs["update"] == "post"


@pytest.mark.parametrize(
    ("options", "config", "message"),
    [
        ({"shar": ["none"]}, {}, "no such field of RLAConfig. Did you mean share"),
        ({"share": []}, {}, "--share: give at least one value"),
        ({"share": ["none"]}, {"rla": {"share": "stage"}}, "--rla-arg share=...: the grid sets it"),
    ],
)
def test_a_grid_over_what_is_not_there_is_refused(
    tmp_path: Path, options: dict[str, list[str]], config: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make_grid(tiny(tmp_path, **config), ks=[4], options=options)
