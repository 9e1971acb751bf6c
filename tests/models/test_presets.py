from __future__ import annotations

import math
from typing import Any
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import Tensor, nn

import rlawrap
from rlawrap.cost import cost, measure
from rlawrap.errors import CheckpointError, ConfigError
from rlawrap.models import get_model, list_models
from rlawrap.models.presets import PRESETS
from tests.nets import without_init
from tests.official.golden import FACTS

# With those that tests/cost/test_paper.py counts, one of every family, attention and cell; the rest
# differ in depth, k or an equation.
QUICK = [
    "dsrla_mobilenetv2_k12_eca",
    "mobilenetv2_eca",
    "resnet50_se",
    "resnext50_32x4d_eca",
    "rla_mobilenetv2_k6",
    "rla_resnext50_32x4d_se",
    "rlagru_resnet50_eca",
]


def test_every_official_constructor_has_a_preset() -> None:
    assert set(PRESETS) == set(FACTS)
    assert set(FACTS) <= set(list_models())
    assert rlawrap.models.rla_resnet50.__name__ == "rla_resnet50"
    assert "'rla'" in str(rlawrap.models.rla_resnet50.__doc__)


def _check(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "thop_available", lambda: False)  # not looked at here
    with without_init():
        model, fact = get_model(name), FACTS[name]
    assert sum(p.numel() for p in model.parameters()) == fact["params"]
    total = cost(model, 224).total
    assert (total.macs, total.norm_elements) == (fact["macs"], fact["norm_elements"])


@pytest.mark.parametrize("name", QUICK)
def test_exact_costs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _check(name, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(FACTS) - set(QUICK)))
def test_exact_costs_of_the_rest(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _check(name, monkeypatch)


@pytest.mark.parametrize("name", ["rla_resnet50", "dsrla_mobilenetv2_eca", "rlaus_resnet50"])
def test_k_classes_and_fields_of_the_configuration(name: str) -> None:
    model = get_model(name, k=5, num_classes=7, source="branch", norm="layer").eval()
    assert model.config.k == 5
    assert (model.config.source, model.config.norm) == ("branch", "layer")
    with torch.no_grad():
        assert model(torch.randn(2, 3, 64, 64)).shape == (2, 7)


def _std(weight: Tensor) -> float:
    return float(weight.detach().std())


def test_fresh_resnets_start_as_the_official_ones() -> None:
    model = get_model("rla_resnet50_eca")
    for path, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 20_000:
            fan_out = module.out_channels * math.prod(module.kernel_size) / module.groups
            assert _std(module.weight) == pytest.approx(math.sqrt(2 / fan_out), rel=0.05), path
        if path.endswith("bn3"):
            assert not module.weight.any(), path  # type: ignore[union-attr,operator]
    # The injections are parts of a convolution over Concat[x, h], with the fan of the whole.
    bound = 1 / math.sqrt(2048 + 32)
    for weight in (model.fc.weight, model.rla.head.join["0"].linear.weight):  # type: ignore[union-attr,index]
        assert 0.98 * bound < float(weight.detach().abs().max()) <= bound  # type: ignore[arg-type,operator]


def test_fresh_mobilenets_start_as_the_official_ones() -> None:
    model = get_model("rla_mobilenetv2_k32")
    for i in (12, 16):  # 576 and 960 channels, and 32 of h
        hidden = model.get_submodule(f"features.{i + 1}.conv.1.0").weight
        share = model.get_submodule(f"rla.inject.{i}.depthwise").weight
        wanted = math.sqrt(2 / ((hidden.shape[0] + 32) * 9))  # type: ignore[index,operator]
        assert _std(hidden) == pytest.approx(wanted, rel=0.05)  # type: ignore[arg-type]
        assert _std(share) == pytest.approx(wanted, rel=0.2)  # type: ignore[arg-type]


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> dict[str, nn.Module]:
    """Stands in for torchvision's downloads: by class of weights, a network of random weights."""
    networks: dict[str, nn.Module] = {}

    def get_state_dict(self: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        name = {"ResNet50_Weights": "resnet50", "MobileNet_V2_Weights": "mobilenet_v2"}[
            type(self).__name__
        ]
        networks[name] = torchvision.models.get_model(name, weights=None)
        return dict(networks[name].state_dict())

    monkeypatch.setattr(torchvision.models.WeightsEnum, "get_state_dict", get_state_dict)
    return networks


@pytest.mark.parametrize(
    ("name", "base"),
    [("rla_resnet50", "resnet50"), ("dsrla_mobilenetv2", "mobilenet_v2"), ("resnet50",) * 2],
)
def test_pretrained_base(name: str, base: str, fetched: dict[str, nn.Module]) -> None:
    model = get_model(name, weights="IMAGENET1K_V1").eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(x), fetched[base].eval()(x))


def test_pretrained_base_with_other_classes(fetched: dict[str, nn.Module]) -> None:
    model = get_model("rla_resnet50", weights="DEFAULT", num_classes=3)
    base = fetched["resnet50"].state_dict()
    for key, value in rlawrap.unwrap(model).state_dict().items():
        assert key.startswith("fc.") or torch.equal(value, base[key]), key
    assert model.fc.weight.shape == (3, 2048)  # type: ignore[union-attr]


def test_bad_options(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, options, reason in (
        ("rla_resnet50", {"weights": "V9"}, "choose one of IMAGENET1K_V1, IMAGENET1K_V2, DEFAULT"),
        ("rla_resnet50", {"weights": 3}, "choose one of"),
        ("rla_resnext101_32x4d", {"weights": "DEFAULT"}, "torchvision has no weights for it"),
        ("resnet50_k", {"weights": "DEFAULT"}, "torchvision has no weights for it"),
        ("rla_resnet50", {"num_classes": 0}, "whole number of at least 1"),
        ("rla_resnet50", {"k": 0}, "whole number of at least 1"),
        ("rla_resnet50", {"sourse": "branch"}, "Did you mean source="),
        ("resnet50", {"k": 4}, "it has no hidden state"),
        ("resnet50", {"source": "branch"}, "not source"),
    ):
        with pytest.raises(ConfigError, match=reason):
            get_model(name, **options)  # type: ignore[arg-type]
    with pytest.raises(AttributeError, match="rla_resnet51"):
        rlawrap.models.rla_resnet51  # noqa: B018

    def fail(*args: Any, **kwargs: Any) -> None:
        raise URLError("no route")

    monkeypatch.setattr(torchvision.models.WeightsEnum, "get_state_dict", fail)
    with pytest.raises(CheckpointError, match=r"cannot be fetched: .*no route"):
        get_model("rla_resnet50", weights="DEFAULT")


def test_a_registration_without_a_name_is_refused() -> None:
    with pytest.raises(rlawrap.ConfigError, match=r"used on 'my_net' without a name.*my_net"):

        @rlawrap.models.register_model  # type: ignore[arg-type]
        def my_net() -> None:
            """A builder."""
