from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from rlawrap import networks
from rlawrap.errors import CheckpointError, ConfigError
from rlawrap.models import cifar
from rlawrap.networks import build_network, find_network
from rlawrap.splice import RLAModel

SOURCE = """
from torch import nn

class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.a = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x):
        return x + self.a(x).relu()

class Small(nn.Module):
    def __init__(self, num_classes=10, width=4):
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, 2, 1)
        self.body = nn.Sequential(*[Block(width) for _ in range(3)])
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x):
        return self.fc(self.body(self.stem(x)).mean((2, 3)))

def needs(width): return Small(width=width)
def leaves():
    raise SystemExit(2)

def raises(): raise KeyError("oops")
def number(): return 3
ready = Small()
text = "no function"
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "nets.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_ours_come_first_then_torchvision_then_timm() -> None:
    assert isinstance(build_network("cifar_resnet20", num_classes=3), cifar.CifarResNet)
    assert build_network("torchvision:resnet18", num_classes=3).fc.out_features == 3
    assert find_network("resnet50").source == "rlawrap"
    assert find_network("resnet18").source == "torchvision"
    assert find_network("resnet26").source == "timm"
    assert type(build_network("timm:resnet18", num_classes=2)).__module__.startswith("timm.")


def test_a_function_a_class_and_a_network_of_the_users(nets: Path) -> None:
    assert build_network("nets.py:Small", num_classes=7, width=6).fc.weight.shape == (7, 6)
    assert build_network("nets.py:needs", width=5).stem.out_channels == 5
    found = find_network("nets.py:ready")
    assert found.code is not None and found.code.file == nets / "nets.py"
    copy = build_network("nets.py:ready")
    assert copy is not found.code.value
    assert torch.equal(copy.fc.weight, found.code.value.fc.weight)


def test_rla_wraps_what_the_name_gives(nets: Path) -> None:
    model = build_network("nets.py:Small", rla={"k": 3, "source": "branch"})
    assert isinstance(model, RLAModel)
    assert (model.rla.config.k, model.rla.config.source) == (3, "branch")
    assert [block.path for block in model.rla.plan.blocks] == ["body.0", "body.1", "body.2"]


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("resnet_50", {}, "no such network in rlawrap, torchvision, timm. Nearest: resnet50"),
        ("torchvision:resnet_18", {}, "no such network in torchvision. Nearest: resnet18"),
        ("tf:", {}, "unknown source 'tf'"),
        ("nets.py:Smal", {}, "Nearest: Small"),
        ("nets.py:leaves", {}, r"nets.py:leaves: ends the program \(SystemExit: 2\)"),
        ("nets.py:raises", {}, r"raised KeyError: 'oops' \(called with {}\)"),
        ("nets.py:number", {}, "returned an object of class int, not a torch.nn.Module"),
        ("nets.py:text", {}, "is an object of class str, not a function"),
        ("nets.py:needs", {}, "needs width. Give them as --model-arg"),
        ("nets.py:Small", {"widht": 3}, "no argument 'widht'. Did you mean width"),
        ("torchvision:resnet18", {"depth": 3}, "cannot be built from {'depth': 3}"),
        ("timm:resnet18", {"depth": 3}, "cannot be built from {'depth': 3}"),
        ("rla_cifar_resnet20", {"rla": {"k": 2}}, "has a hidden state already.*--model-arg k=16"),
        ("nets.py:Small", {"pretrained": True}, "use --finetune FILE"),
        ("torchvision:mnasnet1_3", {"rla": {"c": 2}}, "c=2: no such option"),
    ],
)
def test_bad_input_is_told(
    nets: Path, name: str, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build_network(name, **arguments)


def test_without_timm_its_names_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'rlawrap\[timm\]'"):
        find_network("timm:resnet18")


@pytest.fixture
def cached_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """A network whose weights lie where torchvision keeps what it has downloaded."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch.manual_seed(3)
    network = torchvision.models.squeezenet1_1()
    entry = torchvision.models.SqueezeNet1_1_Weights.DEFAULT
    file = tmp_path / "hub" / "checkpoints" / entry.url.rpartition("/")[2]
    file.parent.mkdir(parents=True)
    torch.save(network.state_dict(), file)
    return network


def test_pretrained_weights_of_torchvision(cached_weights: nn.Module) -> None:
    same = build_network("torchvision:squeezenet1_1", pretrained=True)
    state = cached_weights.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in same.state_dict().items())

    other = build_network("torchvision:squeezenet1_1", pretrained=True, num_classes=5)
    assert other.classifier[1].out_channels == 5
    body = [key for key in state if not key.startswith("classifier.")]
    assert all(torch.equal(other.state_dict()[key], state[key]) for key in body)


def test_pretrained_weights_keep_the_outputs_with_a_hidden_state(cached_weights: nn.Module) -> None:
    model = build_network("torchvision:squeezenet1_1", pretrained=True, rla={"k": 2}).eval()
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(model(x), cached_weights.eval()(x))


def test_pretrained_weights_of_timm_come_from_its_config(tmp_path: Path) -> None:
    import timm

    torch.manual_seed(4)
    network = timm.create_model("test_resnet", num_classes=1000)
    file = tmp_path / "weights.pth"
    torch.save(network.state_dict(), file)
    overlay = {"file": str(file), "num_classes": 1000}
    model = build_network(
        "timm:test_resnet", pretrained=True, pretrained_cfg_overlay=overlay, num_classes=4
    )
    state = network.state_dict()
    assert model.num_classes == 4
    loaded = {key: value for key, value in model.state_dict().items() if "fc" not in key}
    assert loaded and all(torch.equal(value, state[key]) for key, value in loaded.items())


def test_weights_that_cannot_be_fetched_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", fail)
    with pytest.raises(CheckpointError, match="its weights cannot be had: no network"):
        build_network("torchvision:squeezenet1_1", pretrained=True)


def test_our_own_names_and_code_are_found_without_asking_for_others(
    nets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise AssertionError("torchvision and timm take seconds to import")

    monkeypatch.setattr(networks, "known_names", fail)
    assert find_network("rlawrap:cifar_resnet20").source == "rlawrap"
    assert find_network("cifar_resnet20").source == "rlawrap"
    assert find_network("nets.py:Small").source == "code"
