from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rlawrap.errors import CheckpointError, ConfigError
from rlawrap.models import get_model
from rlawrap.models import model_registry as registry
from rlawrap.train import TrainConfig, load_model, train
from rlawrap.train.network.build import (
    build_model,
    checkpoint_blocks,
    first_weight,
    input_channels,
    load_first_convolution,
    load_weights,
    misfits,
    read_weights,
)
from rlawrap.train.network.freezing import freeze, stem
from tests.train.toys import ToyImages, final_state, toy_config, toy_models, toy_net


@pytest.fixture(autouse=True)
def models() -> Iterator[None]:
    with toy_models():
        yield


class WithRLA(nn.Sequential):
    """The toy network with a parameter that its base does not have."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__(*toy_net(num_classes=classes))
        self.rla = nn.Module()
        self.rla.register_parameter("weight", nn.Parameter(torch.zeros(3)))


def test_the_seed_decides_the_initial_weights() -> None:
    first, again, other = (
        build_model(TrainConfig(arch="toy", seed=seed), 4).state_dict() for seed in (1, 1, 2)
    )
    assert torch.equal(first["0.weight"], again["0.weight"])
    assert not torch.equal(first["0.weight"], other["0.weight"])


def test_a_number_of_classes_unlike_the_data_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"num_classes=7.*4 classes"):
        build_model(TrainConfig(arch="toy", model_kwargs={"num_classes": 7}), 4)
    with pytest.raises(ConfigError, match="depth"):
        build_model(TrainConfig(arch="toy", model_kwargs={"depth": 7}), 4)


def test_the_stem_is_the_first_convolution_and_its_norm() -> None:
    model = toy_net()
    assert stem(model) == ["0", "1"]
    assert input_channels(model) == 3
    assert freeze(model, ["stem"]) == ["0.weight", "1.weight", "1.bias"]
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert frozen == ["0.weight", "1.weight", "1.bias"]


def test_freezing_by_name_and_by_pattern() -> None:
    assert freeze(toy_net(), ["3", "1[0-9]"]) == ["3.weight", "10.weight", "10.bias"]
    with pytest.raises(ConfigError, match="layer9"):
        freeze(toy_net(), ["layer9"])


def test_frozen_parts_stay_as_they_are_in_training(tmp_path: Path) -> None:
    config = toy_config(tmp_path, freeze=("stem",))
    start = build_model(config, 4).state_dict()
    train(config, data=(ToyImages(), ToyImages(10)))
    end = final_state(tmp_path)["model"]
    same = {name for name in start if torch.equal(start[name], end[name])}
    assert same == {name for name in start if name.startswith(("0.", "1."))}


def test_base_weights_fill_the_base_and_leave_the_rest(tmp_path: Path) -> None:
    base = toy_net()
    torch.save(
        {"state_dict": {f"module.{n}": v for n, v in base.state_dict().items()}}, tmp_path / "a"
    )
    model = WithRLA()
    assert load_weights(model, tmp_path / "a") == ["rla.weight"]
    for name, value in base.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)


def test_the_classifier_may_have_other_classes(tmp_path: Path) -> None:
    base = toy_net(num_classes=9)
    torch.save(base.state_dict(), tmp_path / "a")
    model = WithRLA()
    kept = load_weights(model, tmp_path / "a")
    assert kept == ["10.weight", "10.bias", "rla.weight"]
    assert torch.equal(model[0].weight, base[0].weight)


def test_weights_of_another_network_are_listed_and_change_nothing(tmp_path: Path) -> None:
    weights = toy_net().state_dict()
    weights["extra.weight"] = torch.zeros(1)
    weights["3.weight"] = torch.zeros(1)
    del weights["0.weight"]
    torch.save(weights, tmp_path / "a")
    model = toy_net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"extra\.weight.*0\.weight.*3\.weight"):
        load_weights(model, tmp_path / "a")
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_weights_of_a_run_are_its_averaged_ones(tmp_path: Path) -> None:
    train(toy_config(tmp_path), data=(ToyImages(), ToyImages(10)))
    best = torch.load(tmp_path / "best.pt", weights_only=True)
    for path in (tmp_path, tmp_path / "best.pt"):
        weights = read_weights(path)
        assert all(torch.equal(weights[name], best["ema"][name]) for name in best["ema"])
    with pytest.raises(CheckpointError, match="no such file"):
        read_weights(tmp_path / "missing.pt")


def test_the_first_convolution_can_be_taken_and_frozen(tmp_path: Path) -> None:
    base, model = toy_net(), toy_net()
    torch.save(base.state_dict(), tmp_path / "a")
    assert load_first_convolution(model, "toy", str(tmp_path / "a")) == "0.weight"
    assert torch.equal(model[0].weight, base[0].weight)
    assert not model[0].weight.requires_grad and model[1].weight.requires_grad
    with pytest.raises(ConfigError, match="no network behind 'toy'"):
        load_first_convolution(model, "toy", "default")
    torch.save({"0.weight": torch.zeros(1)}, tmp_path / "b")
    with pytest.raises(CheckpointError, match=r"no 0\.weight of shape"):
        load_first_convolution(model, "toy", str(tmp_path / "b"))


def test_a_network_without_checkpointing_is_refused() -> None:
    with pytest.raises(ConfigError, match="grad_checkpointing: cifar_resnet20 has no"):
        checkpoint_blocks(get_model("cifar_resnet20"), "cifar_resnet20")


def normed(norm: Any) -> nn.Module:
    model = toy_net()
    model[0] = norm(model[0])
    return model


@pytest.mark.parametrize(
    "norm", [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm]
)
def test_a_first_convolution_with_a_norm_of_its_weight(norm: Any) -> None:
    model = normed(norm)
    assert input_channels(model) == 3 and stem(model) == ["0", "1"]
    assert any("parametrizations" in name for name in freeze(model, ["stem"]))
    with pytest.raises(ConfigError, match="the first convolution, 0, has no weight of its own"):
        first_weight(model)


class HeadFirst(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(8, 4, 1)
        self.stem = nn.Conv2d(channels, 8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stem(x)).mean((2, 3))


@pytest.mark.parametrize(
    ("model", "channels"),
    [
        (nn.Conv2d(3, 3, 3, groups=3), 3),
        (HeadFirst(3), 3),
        (HeadFirst(1), 1),
        (HeadFirst(5), 8),
        (nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 4)), 3),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), 1),
        (nn.Flatten(), 2),
        (nn.LazyConv2d(4, 3), 2),
    ],
)
def test_channels_that_no_module_tells_are_tried(model: nn.Module, channels: int) -> None:
    before = {name: type(module) for name, module in model.named_modules()}
    assert input_channels(model, lambda: torch.zeros(2, 8, 8)) == channels
    assert {name: type(module) for name, module in model.named_modules()} == before


class Lazy(nn.Module):
    """Shapes that its first image settles, and a state that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.LazyConv2d(4, 3)
        self.fc = nn.LazyLinear(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.stem(x).mean((2, 3)))

    def get_extra_state(self) -> dict[str, int]:
        return {"n": 1}

    def set_extra_state(self, state: dict[str, int]) -> None:
        assert state == {"n": 1}


def test_weights_of_a_lazy_network_fit_it(tmp_path: Path) -> None:
    trained = Lazy()
    trained(torch.zeros(1, 3, 8, 8))
    weights = trained.state_dict()
    assert misfits(Lazy(), weights) == []
    other = Lazy()
    other(torch.zeros(1, 1, 8, 8))
    assert misfits(other, weights) == ["1 of another shape: stem.weight"]
    torch.save(weights, tmp_path / "w.pt")
    model = Lazy()
    load_weights(model, tmp_path / "w.pt")
    assert torch.equal(model.fc.weight, trained.fc.weight) and input_channels(model) == 3


def test_a_run_of_a_lazy_network_is_read_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry._BUILDERS, "toy", Lazy)
    images = (ToyImages(), ToyImages(10))
    train(toy_config(tmp_path, epochs=1), data=images)
    again = {"epochs": 2, "resume": "auto", "change": ("epochs",)}
    assert train(toy_config(tmp_path, **again), data=images).epoch == 2
    assert load_model(tmp_path)(torch.zeros(1, 3, 8, 8)).shape == (1, 4)


def test_weights_of_other_shapes_are_named_when_a_run_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = [3]

    def net() -> nn.Module:
        model = toy_net()
        model[0] = nn.Conv2d(3, 8, sides[0], padding="same", bias=False)
        return model

    monkeypatch.setitem(registry._BUILDERS, "toy", net)
    images = (ToyImages(), ToyImages(10))
    train(toy_config(tmp_path, epochs=1), data=images)
    sides[0] = 5
    with pytest.raises(CheckpointError, match=r"1 of another shape: 0\.weight\. Put the code"):
        train(toy_config(tmp_path, epochs=1, resume="auto"), data=images)
