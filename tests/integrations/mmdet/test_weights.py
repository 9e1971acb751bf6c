"""`init_cfg=dict(type="Pretrained", ...)`: what is read, from where, and what is refused."""

from __future__ import annotations

import functools
import pickle
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import rlawrap
from rlawrap.integrations.mmdet import RLABackbone, RLAResNet
from rlawrap.integrations.mmdet.fetching import fetch_state
from rlawrap.integrations.mmdet.weights import load_pretrained


@pytest.fixture(scope="module")
def net() -> Any:
    return RLAResNet(50)


def spoil(net: nn.Module) -> None:
    with torch.no_grad():
        for tensor in net.state_dict().values():
            tensor.fill_(7)


def same(net: nn.Module, model: nn.Module) -> bool:
    state = model.state_dict()
    return all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


def test_an_official_classifier(classifier: Any, official_file: Path) -> None:
    net = RLAResNet(50, init_cfg={"type": "Pretrained", "checkpoint": str(official_file)})
    net.init_weights()
    assert same(net, classifier) and net.is_init
    spoil(net)
    net.init_weights()  # once is enough: a Runner may call it again after weights were loaded
    assert set(net.conv1.weight.flatten().tolist()) == {7.0}


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.backbone."])
def test_ours(net: Any, classifier: Any, prefix: str) -> None:
    spoil(net)
    state = {f"{prefix}{name}": value for name, value in classifier.state_dict().items()}
    load_pretrained(net, {**state, "neck.conv1.weight": torch.zeros(1)}, "file", net.origin)
    assert same(net, classifier)


def test_a_prefix_of_the_users(classifier: Any, tmp_path: Path) -> None:
    state = {f"student.{name}": value for name, value in classifier.state_dict().items()}
    teacher = {f"teacher.{name}": value * 0 for name, value in classifier.state_dict().items()}
    torch.save({**teacher, **state}, tmp_path / "two.pth")
    entry = {"type": "Pretrained", "checkpoint": str(tmp_path / "two.pth"), "prefix": "student"}
    net = RLAResNet(50, init_cfg=[entry])
    net.init_weights()
    assert same(net, classifier)


def test_a_base_alone_leaves_h(net: Any, classifier: Any) -> None:
    base = rlawrap.unwrap(classifier).state_dict()
    # As in files from before batch norms counted.
    base = {name: value for name, value in base.items() if "num_batches" not in name}
    spoil(net)
    with pytest.warns(rlawrap.RLAWarning, match=r"`rla=dict\(init='identity'\)`"):
        load_pretrained(net, base, "resnet50.pth", net.origin)
    assert torch.equal(net.layer3[2].conv2.weight, base["layer3.2.conv2.weight"])
    assert set(net.rla.cell["0"].conv.weight.flatten().tolist()) == {7.0}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda s: s.pop("layer1.0.conv1.weight"),
            r"missing: layer1.0.conv1.weight \[64, 64, 1, 1",
        ),
        (lambda s: s.update({"bn1.bias": torch.zeros(3)}), r"bn1.bias is \[3\], the backbone has"),
        (lambda s: s.update({"bn1.bias": 3}), "bn1.bias is a int"),
        (
            lambda s: s.update({"layer4.3.bn1.bias": torch.zeros(3)}),
            "unexpected: layer4.3.bn1.bias",
        ),
        (lambda s: s.update({"rla.x.bias": torch.zeros(3)}), r"unexpected: rla\.x\.bias"),
        (lambda s: s.pop("rla.cell.1.conv.weight"), "missing: rla.cell.1.conv.weight"),
    ],
)
def test_what_does_not_fit_is_told_and_changes_nothing(
    net: Any, classifier: Any, change: Any, told: str
) -> None:
    state = dict(classifier.state_dict())
    change(state)
    spoil(net)
    with pytest.raises(rlawrap.CheckpointError, match=rf"weights.pth does not fit[^$]*{told}"):
        load_pretrained(net, state, "weights.pth", net.origin)
    assert all((value == 7).all() for value in net.state_dict().values())


def test_official_weights_of_another_k(official_file: Path) -> None:
    entry = {"type": "Pretrained", "checkpoint": str(official_file)}
    net = RLAResNet(50, rla_channel=8, init_cfg=entry)
    with pytest.raises(rlawrap.CheckpointError, match=r"model_best.pth does not fit") as told:
        net.init_weights()
    assert r"recurrent_convs.0.weight is [32, 32, 3, 3]" in str(told.value)
    assert "missing" not in str(told.value)


@pytest.fixture
def served(official_file: Path) -> Iterator[str]:
    """The URL of the folder of the official file."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None: ...

    handler = functools.partial(Quiet, directory=str(official_file.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_urls_and_paths(
    served: str, official_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    wanted = fetch_state(str(official_file))
    for _ in range(2):  # the second time from the disk
        got = fetch_state(f"{served}/{official_file.name}")
        assert list(got) == list(wanted)
    assert (tmp_path / "hub" / "checkpoints" / official_file.name).is_file()
    with pytest.raises(rlawrap.CheckpointError, match=r"nothing.pth: cannot be fetched"):
        fetch_state(f"{served}/nothing.pth")
    with pytest.raises(rlawrap.CheckpointError, match="mmengine knows no such name"):
        fetch_state("torchvision://resnet5000")
    with pytest.raises(rlawrap.CheckpointError, match=r"init_cfg\.checkpoint=FILE"):
        fetch_state(str(tmp_path / "nothing.pth"))


def test_no_code_in_a_file_is_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"state_dict": Evil()}))
    net = RLAResNet(50, init_cfg={"type": "Pretrained", "checkpoint": str(tmp_path / "evil.pth")})
    with pytest.raises(rlawrap.CheckpointError, match="not loaded"):
        net.init_weights()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("entry", [{"checkpoint": 3}, {"checkpoint": "a.pth", "strict": True}])
def test_other_keys_of_init_cfg_are_refused(entry: dict[str, Any]) -> None:
    net = RLABackbone("torchvision:resnet18", k=4, init_cfg={"type": "Pretrained", **entry})
    with pytest.raises(rlawrap.ConfigError, match="checkpoint=FILE"):
        net.init_weights()


def test_other_initialisation_is_mmengines() -> None:
    entry = {"type": "Constant", "layer": "Conv2d", "val": 0.5}
    net = RLABackbone("torchvision:resnet18", k=4, init_cfg=entry)
    net.init_weights()
    assert net.conv1.weight.eq(0.5).all() and net.rla.cell["0"].conv.weight.eq(0.5).all()
