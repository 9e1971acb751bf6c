from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import nn

import rlawrap
from rlawrap.checkpoints import load, read_header, save
from rlawrap.errors import CheckpointError
from rlawrap.models import get_model
from tests.nets import without_init


def randomised(model: nn.Module) -> nn.Module:
    """Every tensor random, norm statistics too, so that no branch or injection is silent."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_floating_point():
                noise = torch.rand(tensor.shape, generator=generator, dtype=torch.float32)
                tensor.copy_(noise + 0.5 if "running_var" in name else 0.2 * (noise - 0.5))
    return model.eval()


def same(a: nn.Module, b: nn.Module, size: int = 64, channels: int = 3) -> bool:
    x = torch.randn(2, channels, size, size)
    with torch.no_grad():
        return torch.equal(a(x), b(x))


class Mine(nn.Module):
    """A network that no library knows."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        block = torchvision.models.resnet.BasicBlock
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.Sequential(*(block(width, width) for _ in range(2)))
        self.fc = nn.Linear(width, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.blocks(self.stem(x)).mean((2, 3)))


BASES: dict[str, Callable[[], nn.Module]] = {
    "torchvision": lambda: torchvision.models.resnet18(num_classes=7),
    "mobilenet": lambda: torchvision.models.mobilenet_v2(num_classes=3),
    "cifar": lambda: get_model("cifar_resnet20"),
}


@pytest.mark.parametrize("base", BASES)
def test_round_trip_without_help(base: str, tmp_path: Path) -> None:
    model = randomised(rlawrap.apply(BASES[base](), k=8, source="branch"))
    path = save(model, tmp_path / "model.safetensors")
    loaded = load(path)
    assert isinstance(loaded, rlawrap.RLAModel)
    assert loaded.config == model.config
    assert loaded.plan.digest == model.plan.digest
    assert not loaded.training
    assert list(loaded.state_dict()) == list(model.state_dict())
    assert same(loaded, model)


def test_timm_base(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="needs the timm extra")
    model = randomised(rlawrap.apply(timm.create_model("resnet26", num_classes=4), k=8))
    assert same(load(save(model, tmp_path / "model.safetensors")), model)


def test_presets(tmp_path: Path) -> None:
    model = randomised(get_model("rla_cifar_resnet20", k=4, num_classes=3, in_channels=1))
    loaded = load(save(model, tmp_path / "model.safetensors"))
    assert same(loaded, model, size=32, channels=1)


@pytest.mark.parametrize(
    "name", ["rla_resnet50_eca", "dsrla_mobilenetv2_k12_eca", "rlagru_resnet50"]
)
def test_official_presets(name: str, tmp_path: Path) -> None:
    with without_init():
        model = randomised(get_model(name, num_classes=3))
    assert same(load(save(model, tmp_path / "model.safetensors")), model)


def test_plain_networks(tmp_path: Path) -> None:
    model = randomised(torchvision.models.resnet18(num_classes=4))
    loaded = load(save(model, tmp_path / "model.safetensors"))
    assert type(loaded) is torchvision.models.ResNet
    assert same(loaded, model)


def test_fresh_process(tmp_path: Path) -> None:
    """A process that knows nothing but the file gets the same numbers, whatever its seed."""
    model = randomised(rlawrap.apply(torchvision.models.resnet18(num_classes=4), k=8))
    path = save(model, tmp_path / "model.safetensors")
    code = (
        "import sys, torch, rlawrap.checkpoints\n"
        "torch.set_num_threads(1)\n"
        "model = rlawrap.checkpoints.load(sys.argv[1])\n"
        "x = torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)\n"
        "print(model(x).flatten().tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    x = torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)
    assert json.loads(done.stdout) == model(x).flatten().tolist()


def test_custom_base_is_asked_for_and_left_alone(tmp_path: Path) -> None:
    model = randomised(rlawrap.apply(Mine(), k=4))
    path = save(model, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="pass `base=model`"):
        load(path)
    base = Mine()
    before = {key: value.clone() for key, value in base.state_dict().items()}
    assert same(load(path, base=base), model)
    assert all(torch.equal(before[key], value) for key, value in base.state_dict().items())
    assert base.training


def test_custom_plain_base_is_left_alone(tmp_path: Path) -> None:
    model = randomised(Mine())
    path = save(model, tmp_path / "model.safetensors")
    base = Mine()
    weight = base.fc.weight.clone()
    assert same(load(path, base=base), model)
    assert torch.equal(base.fc.weight, weight)


def test_shared_cell_is_stored_once(tmp_path: Path) -> None:
    model = rlawrap.apply(torchvision.models.resnet18(), k=8, share="network")
    path = save(model, tmp_path / "model.safetensors")
    stored = load_file(path)
    recurrent = [key for key, value in stored.items() if value.shape == (8, 8, 3, 3)]
    assert len(recurrent) == 1


def test_tied_weights_are_stored_once_and_stay_tied(tmp_path: Path) -> None:
    class Tied(Mine):
        def __init__(self) -> None:
            super().__init__()
            self.blocks[1].conv1.weight = self.blocks[0].conv1.weight

    model = randomised(rlawrap.apply(Tied(), k=4))
    path = save(model, tmp_path / "model.safetensors")
    assert read_header(path)["aliases"] == {"blocks.1.conv1.weight": "blocks.0.conv1.weight"}
    assert "blocks.1.conv1.weight" not in load_file(path)
    loaded = load(path, base=Tied())
    assert same(loaded, model)
    assert loaded.blocks[1].conv1.weight is loaded.blocks[0].conv1.weight


def test_memory_format_and_dtype(tmp_path: Path) -> None:
    model = randomised(rlawrap.apply(torchvision.models.resnet18(num_classes=2), k=8))
    model = model.to(torch.bfloat16).to(memory_format=torch.channels_last)
    loaded = load(save(model, tmp_path / "model.safetensors"))
    assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}
    state = loaded.state_dict()
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())


def test_leaf_modules_are_remembered(tmp_path: Path) -> None:
    class Gate(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 0.5 if x.shape[-1] < 1000 else x

    class Gated(Mine):
        def __init__(self) -> None:
            super().__init__()
            self.gate = Gate()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(self.gate(x))

    model = randomised(rlawrap.apply(Gated(), k=4, leaf_modules=(Gate,)))
    loaded = load(save(model, tmp_path / "model.safetensors"), base=Gated())
    assert same(loaded, model)


def test_all_that_does_not_fit_is_listed(tmp_path: Path) -> None:
    model = rlawrap.apply(Mine(), k=4)
    path = save(model, tmp_path / "model.safetensors")
    metadata = {"rlawrap": json.dumps(read_header(path))}
    state = load_file(path)
    state["fc.bias"] = torch.zeros(6)
    state["stem.bias"] = torch.zeros(2)
    state["extra"] = torch.zeros(1)
    del state["stem.weight"]
    save_file(state, path, metadata)
    with pytest.raises(CheckpointError) as caught:
        load(path, base=Mine())
    message = str(caught.value)
    assert "in 4 places" in message
    assert "missing in the file: stem.weight" in message
    assert "not in the model: extra" in message
    assert "fc.bias: the file has (6,), the model (5,)" in message
    assert "stem.bias: the file has (2,), the model (8,)" in message


def test_base_of_another_network(tmp_path: Path) -> None:
    path = save(rlawrap.apply(Mine(), k=4), tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="fit"):
        load(path, base=torchvision.models.resnet18())
    with pytest.raises(CheckpointError, match="fit"):
        load(path, base=Mine(width=16))


def test_damaged_and_foreign_files(tmp_path: Path) -> None:
    path = save(rlawrap.apply(Mine(), k=4), tmp_path / "model.safetensors")
    whole = path.read_bytes()
    with pytest.raises(CheckpointError, match="no such file"):
        load(tmp_path / "nothing.safetensors")
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        load(path)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        load(path)
    torch.save(Mine().state_dict(), path)
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        load(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match=r"not one that rlawrap\.save wrote"):
        load(path)
    save_file({"a": torch.zeros(1)}, path, {"rlawrap": "{"})
    with pytest.raises(CheckpointError, match="header is damaged"):
        load(path)
    save_file({"a": torch.zeros(1)}, path, {"rlawrap": '{"version": 99}'})
    with pytest.raises(CheckpointError, match="format 99"):
        load(path)


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(rlawrap.apply(Mine(), k=4), tmp_path / "model.safetensors")
    whole = path.read_bytes()

    def full(*args: object) -> None:
        Path(str(args[1])).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rlawrap.checkpoints.save_file", full)
    with pytest.raises(CheckpointError, match="No space left"):
        save(Mine(), path)
    assert path.read_bytes() == whole
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_save_refuses(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be written"):
        save(Mine(), tmp_path / "missing" / "model.safetensors")
    with pytest.raises(CheckpointError, match="meta device"):
        save(Mine().to("meta"), tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"expected a torch\.nn\.Module"):
        save({"a": 1}, tmp_path / "model.safetensors")  # type: ignore[arg-type]
    backbone = rlawrap.backbone(rlawrap.apply(torchvision.models.resnet18(), k=4))
    with pytest.raises(CheckpointError, match="part of a model"):
        save(backbone, tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_saving_leaves_the_model_alone(tmp_path: Path) -> None:
    model = rlawrap.apply(Mine(), k=4)
    model.blocks.eval()
    modes = [m.training for m in model.modules()]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    save(model, tmp_path / "model.safetensors")
    assert modes == [m.training for m in model.modules()]
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    assert torch.equal(random_state, torch.get_rng_state())


def test_an_example_input_is_remembered(tmp_path: Path) -> None:
    class Weighted(Mine):
        def forward(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
            return super().forward(x * weight)

    example = {"x": torch.zeros(1, 3, 32, 32), "weight": torch.zeros(1)}
    model = randomised(rlawrap.apply(Weighted(), k=4, example_input=example))
    path = save(model, tmp_path / "model.safetensors")
    assert read_header(path)["example_input"]["named"]["x"]["shape"] == [1, 3, 32, 32]
    loaded = load(path, base=Weighted())
    x, weight = torch.randn(2, 3, 32, 32), torch.ones(1)
    assert torch.equal(loaded(x, weight), model(x, weight))


class Pair(nn.Module):
    """Two networks side by side; one may be at both places."""

    def __init__(self, shared: bool = False) -> None:
        super().__init__()
        self.left = Mine()
        self.right = self.left if shared else Mine()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.left(x) - 2 * self.right(x)


@pytest.mark.parametrize("shared", [False, True])
def test_rewritten_networks_inside_of_a_model(shared: bool, tmp_path: Path) -> None:
    model = rlawrap.apply(Pair(shared), at="left", k=4)
    if not shared:
        model = rlawrap.apply(model, at="right", k=2, source="branch")
    randomised(model)
    path = save(model, tmp_path / "model.safetensors")
    header = read_header(path)
    assert [*header["parts"]] == (["left"] if shared else ["left", "right"])
    with pytest.raises(CheckpointError, match="pass `base=model`"):
        load(path)
    base = Pair(shared)
    loaded = load(path, base=base)
    assert type(loaded) is Pair and same(loaded, model)
    assert list(loaded.state_dict()) == list(model.state_dict())
    assert (loaded.left is loaded.right) is shared
    assert not isinstance(base.left, rlawrap.RLAModel)
    with pytest.raises(CheckpointError, match="at='left': the model has no such module"):
        load(path, base=Mine())


def test_a_segmentation_network_with_a_rewritten_backbone_needs_no_help(tmp_path: Path) -> None:
    with without_init():
        base = torchvision.models.segmentation.lraspp_mobilenet_v3_large(
            weights=None, weights_backbone=None, num_classes=3
        )
    model = randomised(rlawrap.apply(base, at="backbone", k=4))
    path = save(model, tmp_path / "model.safetensors")
    loaded = load(path)
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(loaded(x)["out"], model(x)["out"])
    assert loaded.backbone.plan.digest == model.backbone.plan.digest


def test_an_altered_plan_of_a_part_is_found(tmp_path: Path) -> None:
    model = rlawrap.apply(Pair(), at="left", k=4)
    path = save(model, tmp_path / "model.safetensors")
    header = read_header(path)
    header["parts"]["left"]["plan"]["stages"][0]["blocks"][1]["after"] = None
    state = load_file(path)
    save_file(state, path, {"format": "pt", "rlawrap": json.dumps(header)})
    with pytest.raises(CheckpointError, match="the file was altered"):
        load(path, base=Pair())
