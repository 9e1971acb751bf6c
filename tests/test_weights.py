"""Prefixes before the names of weights, and files that cannot be read, for every reader of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import rlawrap
from rlawrap.errors import CheckpointError
from rlawrap.models import get_model
from rlawrap.official.convert import load_official
from rlawrap.train.loop import plain_weights
from rlawrap.train.loop.loading import load_model
from rlawrap.train.loop.plain_weights import load_weights_of
from rlawrap.train.network.build import load_first_convolution, load_weights
from rlawrap.train.store import checkpoint
from rlawrap.weights import fit_names, state_dict_in
from tests.train.toys import toy_config, toy_models, toy_net

PREFIXES = [
    *("module.", "_orig_mod.", "model.", "backbone.", "net.", "module._orig_mod."),
    *("_orig_mod.module.model.", "model.net.", "_fsdp_wrapped_module.module."),
]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_are_dropped_in_any_nesting(prefix: str) -> None:
    own = ["conv.weight", "fc.weight", "fc.bias"]
    assert fit_names({prefix + name: name for name in own}, own, "file") == {n: n for n in own}
    part = {f"{prefix}conv.weight": 1, "fc.weight": 2, "steps": 3}  # a body within, a head beside
    assert fit_names(part, own, "file") == {"conv.weight": 1, "fc.weight": 2, "steps": 3}


def test_a_head_may_lie_beside_the_body() -> None:
    state = {"model.backbone.conv.weight": 1, "model.fc.weight": 2}
    assert list(fit_names(state, ["conv.weight", "fc.weight"], "file")) == [
        "conv.weight",
        "fc.weight",
    ]


def test_names_of_the_network_itself_are_kept() -> None:
    own = ["backbone.conv.weight", "model.weight", "module.bias"]
    assert fit_names(dict.fromkeys(own, 0), own, "file") == dict.fromkeys(own, 0)
    wrapped = {f"net.{name}": 0 for name in own}
    assert fit_names(wrapped, own, "file") == dict.fromkeys(own, 0)


def test_wrappers_of_parts_are_dropped() -> None:
    own = ["features.0.weight", "fc.weight"]
    state = {"model.features.module.0._orig_mod.weight": 1, "model.fc.weight": 2}
    assert list(fit_names(state, own, "file")) == own


def test_two_tensors_of_one_name_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"model\.fc\.weight and fc\.weight would both be"):
        fit_names({"model.fc.weight": 1, "model.conv.weight": 2, "fc.weight": 3},
                  ["fc.weight", "conv.weight"], "file")  # fmt: skip


@pytest.mark.parametrize("name", ["state_dict", "model", "net", "model_state_dict"])
def test_checkpoints_of_other_trainers(name: str) -> None:
    assert state_dict_in({"epoch": 3, name: {"a": 1}}, "file") == {"a": 1}


def save_as(path: Path, state: dict[str, Tensor]) -> Path:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"epoch": 1, "state_dict": state}, path)
    return path


@pytest.mark.parametrize("file", ["weights.pt", "weights.safetensors"])
@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.model."])
def test_the_trainer_reads_weights_with_prefixes(tmp_path: Path, file: str, prefix: str) -> None:
    base = toy_net()
    state = {prefix + name: value for name, value in base.state_dict().items()}
    path = save_as(tmp_path / file, state)
    fresh, first = toy_net(), toy_net()
    assert load_weights(fresh, path) == []
    load_first_convolution(first, "toy", str(path))
    with toy_models():
        judged = load_weights_of(path, toy_config(tmp_path), 4)
    for model in (fresh, judged):
        assert all(torch.equal(model.state_dict()[n], v) for n, v in base.state_dict().items())
    assert torch.equal(first.state_dict()["0.weight"], base.state_dict()["0.weight"])


def test_official_weights_with_prefixes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = get_model("rla_mobilenetv2_k6", num_classes=4)
    monkeypatch.setattr(plain_weights, "build_model", lambda config, classes: model)
    config = toy_config(tmp_path, arch="rla_mobilenetv2_k6")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = {f"module.net.{n}": v + 1 for n, v in rlawrap.official_state_dict(model).items()}
    assert load_weights_of(save_as(tmp_path / "theirs.pth", state), config, 4) is model
    assert all(torch.equal(value, before[n] + 1) for n, value in model.state_dict().items())
    state = {f"_orig_mod.{name}": value for name, value in before.items()}
    del state["_orig_mod.classifier.1.bias"]
    # The names are ours, so the message is about ours, not about the official code's.
    with pytest.raises(CheckpointError, match=r"does not have: classifier\.1\.bias\.$"):
        load_weights_of(save_as(tmp_path / "ours.pth", state), config, 4)


def test_our_own_format_with_prefixes(tmp_path: Path) -> None:
    class Wrapper(nn.Module):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

    plain = nn.Sequential(nn.Conv2d(3, 4, 1))
    rlawrap.save(Wrapper(plain), tmp_path / "a.safetensors")
    again = rlawrap.load(tmp_path / "a.safetensors", base=nn.Sequential(nn.Conv2d(3, 4, 1)))
    assert torch.equal(again.state_dict()["0.weight"], plain[0].weight)


class Holder(nn.Module):
    """A module of which a whole pickle is made, as `torch.save(model)` does."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(1, 1)


def whole_module(path: Path) -> None:
    torch.save(Holder(), path)


def within_a_dict(path: Path) -> None:
    torch.save({"model": {"fc.weight": torch.zeros(1)}, "args": Path("x")}, path)


def script(path: Path) -> None:
    torch.jit.trace(nn.Linear(1, 1), torch.zeros(1, 1)).save(str(path))


def old_format(path: Path) -> None:
    torch.save(Holder(), path, _use_new_zipfile_serialization=False)


def nonsense(path: Path) -> None:
    path.write_bytes(b"\x80\x02}q\x00. and more")


def cut(path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(99)}, path)
    path.write_bytes(path.read_bytes()[:300])


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize(
    "write",
    [whole_module, within_a_dict, script, old_format, nonsense, cut],
    ids=lambda w: w.__name__,
)
def test_no_reader_advises_to_load_a_file_without_protection(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    path = tmp_path / "model.pt"
    write(path)
    readers: list[Callable[[], Any]] = [
        lambda: load_official(toy_net(), path),
        lambda: load_weights(toy_net(), path),
        lambda: load_model(path),
        lambda: checkpoint.read(path),
        lambda: rlawrap.load(path),
    ]
    for reader in readers:
        with pytest.raises(CheckpointError) as caught:
            reader()
        said = str(caught.value)
        assert said.startswith(str(path))
        assert "weights_only" not in said and "False" not in said and "\n" not in said
