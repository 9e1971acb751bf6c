from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor

import rlawrap
from rlawrap.errors import CheckpointError
from rlawrap.models import get_model
from tests.nets import without_init
from tests.official.golden import FACTS, WITH_LOGITS, filled, images

SMALL = "dsrla_mobilenetv2_k6_eca"


@pytest.mark.parametrize("name", WITH_LOGITS)
def test_official_logits(name: str) -> None:
    with without_init():
        model = get_model(name).double().eval()
    rlawrap.load_official(model, filled(rlawrap.official_state_dict(model)))
    with torch.no_grad():
        logits = model(images())
    fact = FACTS[name]
    for got, wanted in ((logits[:, :8], "logits_first8"), (logits.mean(dim=1), "logits_mean")):
        golden = torch.tensor(fact[wanted], dtype=torch.float64)
        # The mean of 1,000 logits of size ten is small: relative to the logits, not to itself.
        slack = 1e-12 if wanted == "logits_mean" else 0.0
        torch.testing.assert_close(got, golden, rtol=1e-9, atol=slack)


@pytest.mark.parametrize("source", ["state", "checkpoint", "parallel", "file"])
def test_sources(source: str, tmp_path: Path) -> None:
    with without_init():
        model = get_model(SMALL, num_classes=7)
    state = filled(rlawrap.official_state_dict(model))
    given: object = state
    if source != "state":
        prefix = "module." if source == "parallel" else ""
        given = {
            "epoch": 5,
            "state_dict": {prefix + key: value for key, value in state.items()},
            "best_acc1": torch.tensor(71.0),
            "optimizer": {"state": {}, "param_groups": [{"lr": 0.045}]},
        }
    if source == "file":
        torch.save(given, tmp_path / "model_best.pth.tar")
        given = tmp_path / "model_best.pth.tar"
    assert rlawrap.load_official(model, given) is model  # type: ignore[arg-type]
    back = rlawrap.official_state_dict(model)
    listed = [key for key in state if key.startswith("recurrent_dsconvs.")]
    assert len(listed) == 5
    for key, value in state.items():
        # One convolution stands under five keys, and the last of them wins.
        value = state[listed[-1]] if key in listed else value
        assert torch.equal(back[key], value.to(back[key].dtype)), key


@pytest.mark.parametrize("name", ["rla_resnext50_32x4d_se", "rlaus_resnet50", "rlagru_resnet50"])
def test_any_k_and_classes_come_back_unchanged(name: str) -> None:
    model = get_model(name, k=5, num_classes=3)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = rlawrap.official_state_dict(model)
    assert state["fc.weight"].shape == (3, 2048 + 5)
    other = rlawrap.load_official(get_model(name, k=5, num_classes=3), state)
    for key, value in other.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_other_depths_by_structure() -> None:
    """A network the official code has no constructor for, but could build: depths 1, 2, 1, 3."""
    from torchvision.models.resnet import Bottleneck, ResNet

    base = ResNet(Bottleneck, [1, 2, 1, 3], num_classes=4)
    model = rlawrap.apply(base, config=rlawrap.variant("rla", k=8))
    state = rlawrap.official_state_dict(model)
    blocks = {tuple(key.split(".")[1:3]) for key in state if key.startswith("stages.")}
    assert blocks == {
        ("0", "0"),
        ("1", "0"),
        ("1", "1"),
        ("2", "0"),
        ("3", "0"),
        ("3", "1"),
        ("3", "2"),
    }
    assert state["stages.3.2.conv1.weight"].shape == (512, 2048 + 8, 1, 1)


def test_converted_tensors_are_copies() -> None:
    model = get_model("rla_mobilenetv2_k6")
    state = rlawrap.official_state_dict(model)
    before = model.get_parameter("classifier.1.bias").clone()
    state["classifier.1.bias"].add_(1)
    assert torch.equal(model.get_parameter("classifier.1.bias"), before)


def _state() -> tuple[torch.nn.Module, dict[str, Tensor]]:
    model = get_model("rla_mobilenetv2_k6", num_classes=2)
    return model, rlawrap.official_state_dict(model)


def test_every_misfit_is_listed_and_nothing_changed() -> None:
    model, state = _state()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = {key: torch.full_like(value, 3) for key, value in state.items()}
    del state["bn2.bias"]
    state["conv_outs.6.weight"] = torch.zeros(6, 7, 1, 1)
    state["layer1.0.conv1.weight"] = torch.zeros(1)
    state["classifier.1.bias"] = "no tensor"  # type: ignore[assignment]
    with pytest.raises(CheckpointError) as caught:
        rlawrap.load_official(model, state)
    message = str(caught.value)
    assert "in 4 places" in message
    assert "missing: bn2.bias [6]" in message
    assert "shape: conv_outs.6.weight is [6, 7, 1, 1], the model has [6, 320, 1, 1]" in message
    assert "unexpected: layer1.0.conv1.weight" in message
    assert "no tensor: classifier.1.bias is a str" in message
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_another_models_checkpoint() -> None:
    _, state = _state()
    with pytest.raises(CheckpointError, match=r"missing: conv1\.weight(?s:.*)unexpected: conv1\.0"):
        rlawrap.load_official(get_model("resnet50"), state)


class _Code:
    """Runs something when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("ran"),))


def test_files_with_code_and_damaged_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model, state = _state()
    code, damaged, text = (tmp_path / n for n in ("code.pth", "damaged.pth", "text.pth"))
    torch.save({"state_dict": state, "extra": _Code()}, code)
    torch.save(state, damaged)
    damaged.write_bytes(damaged.read_bytes()[:5000])
    text.write_text("not a checkpoint")
    for path, reason in ((code, "might run code"), (damaged, "damaged"), (text, "no checkpoint")):
        with pytest.raises(CheckpointError, match=reason) as caught:
            rlawrap.load_official(model, path)
        assert str(path) in str(caught.value)
        assert "weights_only" not in str(caught.value)
    with pytest.raises(CheckpointError, match=r"it names (builtins\.)?getattr\b"):
        rlawrap.load_official(model, code)
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps({"state_dict": _Code()}))
    with pytest.raises(CheckpointError):
        rlawrap.load_official(model, tmp_path / "plain.pkl")
    with pytest.raises(CheckpointError, match="no such file"):
        rlawrap.load_official(model, tmp_path / "absent.pth")
    assert not (tmp_path / "ran").exists()


def test_what_is_no_state_dict() -> None:
    model, _ = _state()
    for source in ({"state_dict": 3, 4: "x"}, {1: torch.zeros(1)}):
        with pytest.raises(CheckpointError, match="expected a state dict"):
            rlawrap.load_official(model, source)  # type: ignore[arg-type]
