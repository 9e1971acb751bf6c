from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import Subset, TensorDataset

import rlawrap
from rlawrap.errors import CheckpointError, ConfigError
from rlawrap.models import model_registry
from rlawrap.train import TrainConfig, evaluate, load_model, train
from rlawrap.train.loop.loading import load_checkpoint

NET = """
from torch import nn
from rlawrap.models.model_registry import builder, register_model

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        return x + self.a(x).relu()

class Small(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, 2, 1)
        self.body = nn.Sequential(Block(), Block())
        self.fc = nn.Linear(4, num_classes)

    def forward(self, x):
        return self.fc(self.body(self.stem(x)).mean((2, 3)))

def three():
    return Small(3)

if builder("registered_small") is None:
    register_model("registered_small")(Small)
"""
TINY: dict[str, Any] = {
    "image_size": 16, "subset": 16, "epochs": 1, "batch_size": 8, "workers": 0, "progress": "none",
}  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_of_the_users_function_is_found_again_from_anywhere(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainConfig(arch="net.py:Small", rla={"k": 3}, output="run", **TINY)
    result = train(config)
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    model = load_model(here / "run")
    assert isinstance(model, rlawrap.RLAModel) and model.rla.config.k == 3
    judged = evaluate(here / "run", workers=0)
    assert judged.top1 == pytest.approx(result.last["top1"])

    origin = load_checkpoint(here / "run")[0]["network"]
    assert (origin["source"], origin["name"]) == ("code", "Small")
    assert origin["file"] == str(here / "net.py")


def test_a_file_that_has_changed_or_gone_is_named(here: Path) -> None:
    config = TrainConfig(arch="net.py:Small", output="run", **TINY)
    train(config)
    (here / "net.py").write_text(NET + "\n# another\n")
    with pytest.raises(CheckpointError, match=r"net.py, has changed since.*--arch .*net.py:Small"):
        load_model("run")
    assert isinstance(load_model("run", arch="net.py:Small"), nn.Module)
    with pytest.raises(CheckpointError, match=r"net.py, has changed since.*--change arch="):
        train(config.replace(resume="auto"))
    named = config.replace(resume="auto", change=("arch",), epochs=1)
    assert train(named).status == "finished"
    (here / "net.py").write_text(NET.replace("Block(), Block()", "Block()"))
    with pytest.raises(CheckpointError, match=r"do not fit what net.py:Small makes. 2 names"):
        train(named)
    (here / "net.py").write_text(NET + "\n# another\n")

    (here / "net.py").rename(here / "moved.py")
    with pytest.raises(CheckpointError, match=r"made by Small in .*net.py, which is not there"):
        load_model("run")
    assert isinstance(load_model("run", arch="moved.py:Small"), nn.Module)


def test_a_registered_name_is_found_again_where_nobody_has_registered_it(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainConfig(arch="registered_small", imports=("net.py",), output="run", **TINY)
    train(config)
    # As in a process that has not seen the file.
    monkeypatch.delitem(model_registry._BUILDERS, "registered_small")
    for name in [n for n in sys.modules if n.startswith("rlawrap_user_code_net_")]:
        monkeypatch.delitem(sys.modules, name)
    assert type(load_model("run")).__name__ == "Small"


def test_other_classes_than_the_data_has_are_told_before_anything_is_written(here: Path) -> None:
    config = TrainConfig(arch="net.py:three", output="run", **TINY)
    with pytest.raises(ConfigError, match=r"net.py:three: gives 3 outputs.*10 classes"):
        train(config)
    assert not (here / "run" / "metrics.jsonl").exists()


def test_a_script_that_trains_when_it_is_imported_is_stopped(here: Path) -> None:
    (here / "script.py").write_text(
        NET + "\nfrom rlawrap.train import TrainConfig, train\ntrain(TrainConfig(output='x'))\n"
    )
    with pytest.raises(ConfigError, match=r"script.py:Small: calls train\(\) while it is imported"):
        train(TrainConfig(arch="script.py:Small", output="run", **TINY))
    assert not (here / "x").exists()


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(x).relu().mean((2, 3)))


class Noisy(torch.utils.data.Dataset[Any]):
    """Images whose noise is drawn anew each time, as augmentation is."""

    classes = ("a", "b", "c")

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.randn(2, 8, 8) + index % 3, index % 3


GIVEN: dict[str, Any] = {"batch_size": 4, "workers": 0, "progress": "none", "lr": 0.05}


def test_a_network_and_data_sets_of_the_users_are_trained_in_place(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Net()
    before = model.fc.weight.clone()
    output = str(tmp_path / "run")
    result = train(model, Noisy(), Subset(Noisy(), [0, 1, 2]), epochs=3, output=output, **GIVEN)
    assert result.status == "finished" and result.model is model
    assert not torch.equal(model.fc.weight, before)
    assert load_checkpoint(output)[0]["classes"] == ["a", "b", "c"]

    with pytest.raises(CheckpointError, match=r"Net, was given to train\(\).*model=\.\.\."):
        load_model(output)
    loaded = load_model(output, model=Net())
    judged = evaluate(output, model=Net(), images=_images(Noisy()), workers=0)
    assert judged.images == 12
    assert loaded.fc.weight.shape == (3, 4)
    with pytest.raises(ConfigError, match=r"its images were given to train\(\)"):
        evaluate(output, model=Net(), workers=0)


def _images(dataset: Any) -> Any:
    from rlawrap.train.data.given import GivenImages

    return GivenImages(dataset, Noisy.classes, "test")


def test_a_run_of_a_given_network_resumes_bit_for_bit(tmp_path: Path) -> None:
    def run(output: str, **options: Any) -> nn.Module:
        torch.manual_seed(0)
        path = str(tmp_path / output)
        return train(Net(), Noisy(), Noisy(), output=path, **{**GIVEN, **options}).model

    whole = run("whole", epochs=2)
    run("parts", epochs=2, patience=None, save_every=1, keep=9)
    parts = tmp_path / "parts"
    first = sorted((parts / "checkpoints").glob("epoch0000-step000002*.pt"))[0]
    again = run("parts", epochs=2, save_every=1, keep=9, resume=str(first))
    for one, other in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_given_network_of_torchvision_is_found_by_its_name(tmp_path: Path) -> None:
    from torchvision.models import shufflenet_v2_x0_5

    data = TensorDataset(torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 0, 1]))
    model = rlawrap.apply(shufflenet_v2_x0_5(num_classes=2), k=2)
    output = str(tmp_path / "run")
    train(model, data, data, epochs=1, output=output, **GIVEN)
    loaded = load_model(output)
    assert isinstance(loaded, rlawrap.RLAModel) and loaded.rla.config.k == 2
    state = model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items())


@pytest.mark.parametrize(
    ("sets", "options", "message"),
    [
        ((None, None), {}, "needs two data sets"),
        ((Noisy(), Noisy()), {"arch": "x"}, "arch= is for runs by name"),
        ((Noisy(), Noisy()), {"epoch": 3}, "epoch"),
        ((Noisy(), Noisy()), {"classes": 3}, r"classes=3: give the names.*classes=range\(3\)"),
        ((Noisy(), []), {}, "the test set is empty"),
        (
            (Noisy(), Noisy()),
            {"classes": ("a", "b")},
            "gives 3 outputs, but the data has 2 classes",
        ),
    ],
)
def test_bad_calls_are_told(
    tmp_path: Path, sets: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(rlawrap.RLAError, match=message):
        train(Net(), *sets, **{"output": str(tmp_path / "run"), **GIVEN, **options})
    with pytest.raises(ConfigError, match=r"expected a TrainConfig or a torch.nn.Module, got str"):
        train("resnet18")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="given:Sequential: has no parameters to train"):
        pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        train(pooled, Noisy(), Noisy(), classes=range(2), output=str(tmp_path / "none"), **GIVEN)


def test_a_network_of_a_package_is_found_again_from_anywhere(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(model_registry._BUILDERS, "registered_small", raising=False)
    package = here / "somepkg"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "blocks.py").write_text(NET)
    (package / "model.py").write_text("from .blocks import Small\ndef net():\n    return Small()\n")
    with pytest.raises(ConfigError, match=rf"somepkg\.model:net in {here}\.$"):
        train(TrainConfig(arch="somepkg/model.py:net", output="run", **TINY))
    train(TrainConfig(arch="somepkg.model:net", output="run", **TINY))

    def forget() -> None:
        for name in [n for n in sys.modules if n.partition(".")[0] == "somepkg"]:
            monkeypatch.delitem(sys.modules, name)

    forget()
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    before = list(sys.path)
    run = str(here / "run")
    assert type(load_model(run)).__module__ == "somepkg.blocks"
    assert sys.path == before
    forget()
    (here / "elsewhere" / "somepkg").mkdir()
    (here / "elsewhere" / "somepkg" / "model.py").write_text("def net():\n    return None\n")
    monkeypatch.syspath_prepend(str(here / "elsewhere"))
    (here / "elsewhere" / "somepkg" / "__init__.py").touch()
    with pytest.raises(CheckpointError, match=f"another module is found.*folder {here}"):
        load_model(run)
    (package / "model.py").write_text("from .blocks import Small as net\n")
    with pytest.raises(CheckpointError, match=f"in the folder {here}: --change arch=somepkg.model"):
        load_model(run)
    forget()
