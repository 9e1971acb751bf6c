"""The backbones of official detectors, against what the official code computes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

import rlawrap
from rlawrap.errors import CheckpointError
from rlawrap.official import official_leftovers, official_names
from rlawrap.official.structure import Structure, build_call
from tests.nets import uneven, without_init
from tests.official.golden import filled, images, layout_digest

DETECTION: dict[str, Any] = json.loads(
    Path(__file__).with_name("detection.json").read_text("utf-8")
)
MODELS: dict[str, dict[str, Any]] = DETECTION["models"]


def backbone(name: str) -> nn.Module:
    """An official backbone without values, on the meta device."""
    fact = MODELS[name]
    with torch.device("meta"):
        base = ResNet(Bottleneck, fact["layers"])
        if fact["attention"]:
            base = rlawrap.attend(base, fact["attention"])
        return rlawrap.backbone(rlawrap.apply(base, config=rlawrap.variant("rla")))


def parameters(state: dict[str, Tensor]) -> int:
    """How many parameters an official state dict holds: all but the norms' statistics."""
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    return sum(value.numel() for key, value in state.items() if not key.endswith(statistics))


def small(*layers: int, k: int = 4, variant: str = "rla", **options: Any) -> nn.Module:
    """A whole network, with the widths of the official ones but for those within blocks."""
    torch.manual_seed(0)
    base = ResNet(Bottleneck, list(layers), num_classes=3, width_per_group=4)
    return uneven(rlawrap.apply(base, config=rlawrap.variant(variant, k=k, **options)))


def detector(state: dict[str, Tensor]) -> dict[str, Any]:
    """A backbone's tensors in the checkpoint of a whole detector."""
    others = ("neck.fpn_convs.0.conv.weight", "rpn_head.rpn_cls.bias", "roi_head.bbox_head.fc.bias")
    whole = {f"backbone.{key}": value for key, value in state.items()}
    return {"meta": {"epoch": 12}, "state_dict": whole | dict.fromkeys(others, torch.ones(2))}


@pytest.mark.parametrize("name", ["r50", "r50_eca"])
def test_official_maps_from_a_whole_detector(name: str) -> None:
    fact = MODELS[name]
    with without_init():
        model = rlawrap.models.get_model(name.replace("r50", "rla_resnet50"))
        body = rlawrap.backbone(model).double().eval()
    state = filled(rlawrap.official_state_dict(body))
    assert fact["params"] == parameters(state)
    assert len(state) == fact["tensors"]
    assert layout_digest(state) == fact["layout"]
    assert rlawrap.load_official(body, detector(state)) is body
    with torch.no_grad():
        maps = list(body(images()).values())
    assert len(maps) == len(fact["maps"])
    for got, golden in zip(maps, fact["maps"], strict=True):
        assert list(got.shape) == golden["shape"]
        for values, wanted in (
            (got.flatten(1)[:, :8], golden["first8"]),
            (got.mean((1, 2, 3)), golden["mean"]),
            (got.abs().max(), golden["absmax"]),
        ):
            wanted = torch.tensor(wanted, dtype=torch.float64)
            torch.testing.assert_close(values, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["r50_se", "r101", "r101_eca"])
def test_official_parameters_of_the_rest(name: str) -> None:
    assert parameters(rlawrap.official_state_dict(backbone(name))) == MODELS[name]["params"]


@pytest.mark.parametrize(
    ("stages", "beginnings"), [(0, ("conv1.", "bn1.")), (1, ("",))], ids=["stem", "stem and stage"]
)
def test_frozen_stages_are_the_official_ones(stages: int, beginnings: tuple[str, ...]) -> None:
    """The stem, the first stage, and h's path in it; the official list is of stages of 3 blocks."""
    body = rlawrap.backbone(small(3, 1, 1, 1), frozen_stages=stages)
    official = official_names(body)
    learning = {True: set[str](), False: set[str]()}
    for name, parameter in body.named_parameters():
        learning[parameter.requires_grad] |= set(official[name])
    wanted = {key for key in DETECTION["frozen_stages_1"] if key.startswith(beginnings)}
    assert learning[False] == wanted
    assert not learning[True] & wanted


@pytest.mark.parametrize("prefix", ["", "backbone.", "module.backbone."])
def test_what_has_no_place_is_named_and_comes_back(prefix: str) -> None:
    model = small(1, 2, 1, 1)
    body = rlawrap.backbone(model)
    whole = rlawrap.official_state_dict(model)
    state = {k: v for k, v in whole.items() if not k.startswith(("bn2.", "fc."))}
    source = {f"{prefix}{key}": value for key, value in state.items()}
    source["neck.lateral_convs.0.conv.bias"] = torch.zeros(1)
    with torch.no_grad():
        for value in body.state_dict().values():
            value.zero_()
    rlawrap.load_official(body, source)
    for key, value in body.state_dict().items():
        assert torch.equal(value, model.state_dict()[key]), key
    # The only block of the last stage has the only use of that stage's layers of h.
    gone = ["conv_outs.3.weight", "recurrent_convs.3.weight"]
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    gone += [f"stage_bns.3.0.{name}" for name in norm]
    left = official_leftovers(body, source)
    assert left == [f"{prefix}{key}" for key in gone] + ["neck.lateral_convs.0.conv.bias"]
    back = rlawrap.official_state_dict(body, leftovers=source)
    assert list(back) == list(state)
    assert all(torch.equal(back[key], value) for key, value in state.items())


def test_what_has_no_place_starts_as_the_official_code_starts_it() -> None:
    body = rlawrap.backbone(small(1, 1, 1, 1, k=16))
    random = torch.get_rng_state()
    state = rlawrap.official_state_dict(body)
    assert torch.equal(random, torch.get_rng_state())
    norm = {k.rpartition(".")[2]: v for k, v in state.items() if k.startswith("stage_bns.3.0.")}
    for name, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
        assert torch.equal(norm[name], torch.full((16,), float(value)))
    assert norm["num_batches_tracked"].dtype == torch.long
    weight = state["recurrent_convs.3.weight"]
    assert weight.shape == (16, 16, 3, 3)
    assert weight.std().item() == pytest.approx((2 / (16 * 9)) ** 0.5, rel=0.05)
    again = rlawrap.official_state_dict(body)
    assert all(torch.equal(again[key], value) for key, value in state.items())
    other = small(1, 1, 1, 1, k=8)
    with pytest.raises(CheckpointError, match=r"leftovers: conv_outs\.3\.weight is \[8, 2048"):
        rlawrap.official_state_dict(body, leftovers=rlawrap.official_state_dict(other))


@pytest.mark.parametrize("variant", ["rlaus", "rlagru", "rlarh"])
def test_variants_come_back(variant: str) -> None:
    """The keys of a backbone are the whole network's, less the classifier's and in its order."""
    model = small(1, 1, 1, 1, variant=variant)
    whole = rlawrap.official_state_dict(model)
    body = rlawrap.backbone(model)
    back = rlawrap.official_state_dict(body, leftovers=whole)
    assert list(back) == [key for key in whole if not key.startswith(("bn2.", "fc."))]
    assert all(torch.equal(value, whole[key]) for key, value in back.items())


def test_maps_of_the_first_stages() -> None:
    """As the official code with num_stages=2; the stages behind are named and left."""
    model = small(1, 2, 1, 1)
    body = rlawrap.backbone(model, ["layer1", "layer2.0"])
    whole = rlawrap.official_state_dict(model)
    rlawrap.load_official(body, whole)
    left = official_leftovers(body, whole)
    assert {"stages.1.1.bn1.bias", "stages.3.0.conv1.weight", "fc.bias", "bn2.bias"} <= set(left)
    back = rlawrap.official_state_dict(body, leftovers=whole)
    assert {tuple(key.split(".")[:3]) for key in back if key.startswith("stage_bns")} == {
        ("stage_bns", "0", "0"),
        ("stage_bns", "1", "0"),
    }
    assert all(torch.equal(value, whole[key]) for key, value in back.items())


def refused(model: nn.Module, source: dict[str, Any]) -> str:
    """The message, after checking that the model is as it was."""
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        rlawrap.load_official(model, source)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    return str(caught.value)


def test_a_detectors_backbone_is_no_classifier() -> None:
    model = small(1, 1, 1, 1)
    state = rlawrap.official_state_dict(rlawrap.backbone(model))
    for source in (state, detector(state)):
        message = refused(model, source)
        assert "is the backbone of a detector: it has no bn2 and fc" in message
        assert "`rlawrap.load_official(rlawrap.backbone(model), source)`" in message
        rlawrap.load_official(rlawrap.backbone(model), source)


def test_other_networks_are_told_by_what_they_are() -> None:
    body = rlawrap.backbone(small(1, 1, 1, 1))
    state = rlawrap.official_state_dict(body)
    deeper = state | {
        key.replace("stages.1.0", "stages.1.1"): value
        for key, value in state.items()
        if key.startswith("stages.1.0")
    }
    message = refused(body, detector(deeper)).splitlines()
    assert "it has stages of 1, 2, 1, 1 blocks, the model of 1, 1, 1, 1. Read it" in message[0]
    assert "[1, 2, 1, 1], groups=1, width_per_group=4)" in message[0]
    assert message[1] == "  unexpected: stages.1.1.conv1.weight"
    attended = state | {"stages.0.0.se.fc.0.weight": torch.ones(16, 256)}
    assert "it has SE, the model no attention. Read it" in refused(body, attended)
    plain = {key.replace("stages.", "backbone.layer"): value for key, value in state.items()
             if key.startswith("stages.")}  # fmt: skip
    message = refused(body, plain).splitlines()
    assert "it has stages of 0" not in message[0]
    assert "has no hidden state, the model k = 4. Read it into the base" in message[0]
    heads = {"neck.lateral_convs.0.conv.weight": torch.zeros(1)}
    assert "it has no backbone, but neck.lateral_convs.0.conv.weight." in refused(body, heads)


def test_the_call_that_is_told_works() -> None:
    other = rlawrap.official_state_dict(rlawrap.backbone(small(1, 1, 1, 1, k=8)))
    message = refused(rlawrap.backbone(small(1, 1, 1, 1)), detector(other)).splitlines()[0]
    assert "it has k = 8, the model k = 4. Read it into `" in message
    made = eval(message.split("`")[1], {"rlawrap": rlawrap, "torchvision": torchvision})
    rlawrap.load_official(made, detector(other))


def test_calls_for_networks_with_a_name() -> None:
    names = {"r50": "50", "r50_eca": "50_eca", "r101": "101", "r101_eca": "101_eca"}
    for name, ending in names.items():
        fact = MODELS[name]
        found = Structure(
            family="ResNet", blocks=tuple(fact["layers"]), k=32, attention=fact["attention"]
        )
        call = build_call(found, backbone=False)
        assert call == f"rlawrap.models.rla_resnet{ending}()"
    found = replace(found, k=8, classes=10)
    assert build_call(found, backbone=False) == (
        "rlawrap.models.rla_resnet101_eca(k=8, num_classes=10)"
    )
    assert build_call(found, backbone=True) == (
        "rlawrap.backbone(rlawrap.models.rla_resnet101_eca(k=8))"
    )
    assert "rlawrap.attend(" in build_call(replace(found, attention="se"), backbone=False)
