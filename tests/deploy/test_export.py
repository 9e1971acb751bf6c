"""Files that compute what the network does, where rlawrap is not installed."""

from __future__ import annotations

import dataclasses
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import rlawrap
from rlawrap.deploy import formats
from tests.nets import Residual, random_rla, relative, uneven

needs_onnx = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("onnx", "onnxscript", "onnxruntime"))),
    reason="pip install 'rlawrap[export]' for ONNX",
)

#: Runs a file on inputs of other shapes than it was traced and compared on.
ALONE = """
import sys
sys.modules["rlawrap"] = None  # an import of it fails
import torch
kind, path, inputs, outputs = sys.argv[1:]
if kind == "pt2":
    run = torch.export.load(path).module()
elif kind == "aoti":
    run = torch._inductor.aoti_load_package(path)
else:
    import onnxruntime
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    run = lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0])
with torch.no_grad():
    torch.save([run(x) for x in torch.load(inputs)], outputs)
"""


def net() -> nn.Module:
    body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), Residual(8, 8), Residual(8, 8, 2))
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    base = uneven(net()).eval()
    example = torch.zeros(1, 3, 32, 32)
    return random_rla(rlawrap.apply(base, k=4, example_input=example)).eval()


def alone(kind: str, path: Path, inputs: list[Tensor]) -> list[Tensor]:
    """What a file computes in a process that cannot import rlawrap."""
    given, made = path.with_suffix(".in"), path.with_suffix(".out")
    torch.save(inputs, given)
    command = [sys.executable, "-c", ALONE, kind, str(path), str(given), str(made)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=path.parent)
    assert done.returncode == 0, done.stderr
    return torch.load(made)


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("onnx", marks=needs_onnx),
        "pt2",
        pytest.param(
            "aoti",
            marks=[
                pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler"),
                pytest.mark.slow,
            ],
        ),
    ],
)
def test_equal_without_rlawrap_at_other_batches_and_sizes(
    kind: str, model: nn.Module, tmp_path: Path
) -> None:
    path = tmp_path / ("net.onnx" if kind == "onnx" else "net.pt2")
    example = torch.zeros(1, 3, 32, 32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    done = rlawrap.export(model, path, to=kind, example_input=example)
    assert (done.target, done.inputs) == (kind, ("float32 [batch, 3, height, width]",))
    assert done.checked == (((2, 3, 32, 32),), ((3, 3, 24, 32),))
    assert done.difference < 1e-5 and done.bytes == path.stat().st_size
    assert f"{path}: {type(model).__name__} as {kind}" in str(done)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    inputs = [torch.randn(4, 3, 45, 31), torch.randn(1, 3, 32, 64)]
    with torch.no_grad():
        for x, got in zip(inputs, alone(kind, path, inputs), strict=True):
            assert relative(model(x), got) < 1e-5
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [path.name, f"{path.stem}.in", f"{path.stem}.out"]
    )


def test_a_fixed_size_and_normalisation_in_the_file(tmp_path: Path) -> None:
    plain = uneven(net()).eval()
    normalize = ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    done = rlawrap.export(
        plain, tmp_path / "n.pt2", to="pt2", batch=2, size=(32, 40), normalize=normalize
    )
    assert done.inputs == ("float32 [2, 3, 32, 40]",) and done.checked == (((2, 3, 32, 40),),)
    assert "norms folded by torch" in done.folded and "normalises" in done.expects
    x = torch.rand(2, 3, 32, 40)
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in normalize)
    with torch.no_grad():
        run = torch.export.load(tmp_path / "n.pt2").module()
        assert relative(plain((x - mean) / std), run(x)) < 1e-5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "tflite"}, "no format; choose one of onnx, pt2, aoti"),
        ({"path": "net.onnx"}, "name it net.pt2"),
        ({"path": "nowhere/net.pt2"}, "nowhere/net.pt2: cannot be written"),
        ({"batch": 0}, "at least 1"),
        ({"size": 8, "example_input": torch.zeros(1, 3, 8, 8)}, "not both"),
        ({"example_input": "an image"}, "must be a tensor"),
        ({"normalize": ((0.5,), (0.1, 0.2))}, "3 numbers each"),
        ({"normalize": ((0.5,), (0.0,))}, "must be positive"),
        ({"example_input": torch.zeros(1, 4, 8, 8)}, "fails on this network"),
    ],
)
def test_refusals(
    options: dict[str, object],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = str(options.pop("path", "net.pt2"))
    with pytest.raises(rlawrap.RLAError, match=message):
        rlawrap.export(net().eval(), path, **{"to": "pt2", **options})  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_train_mode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(rlawrap.ConfigError, match=r"in train mode.*model\.eval\(\)"):
        rlawrap.export(net(), tmp_path / "net.pt2", to="pt2")
    partly = net().eval()
    partly[0].train()
    with pytest.raises(rlawrap.ConfigError, match="0 is in train mode"):
        rlawrap.export(partly, tmp_path / "net.pt2", to="pt2")


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxscript" else found(name)
    )
    with pytest.raises(rlawrap.ConfigError, match=r"onnxscript: pip install 'rlawrap\[export\]'"):
        rlawrap.export(net().eval(), tmp_path / "net.onnx", to="onnx")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(formats.shutil, "which", lambda name: None)
    with pytest.raises(rlawrap.ConfigError, match=r"needs a C\+\+ compiler.*to='pt2' needs none"):
        rlawrap.export(net().eval(), tmp_path / "net.pt2", to="aoti")


def test_a_file_that_computes_something_else_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.pt2"
    path.write_bytes(b"the file of before")
    pt2 = formats.FORMATS["pt2"]

    def wrong(model: nn.Module, inputs: object, new: Path) -> None:
        new.write_bytes(b"")

    broken = dataclasses.replace(pt2, write=wrong, open=lambda new: lambda x: [torch.ones(2, 5)])
    monkeypatch.setitem(formats.FORMATS, "pt2", broken)
    with pytest.raises(rlawrap.ExportError, match=r"at 2x3x8x8 what was written differs"):
        rlawrap.export(net().eval(), path, to="pt2", example_input=torch.zeros(1, 3, 8, 8))
    assert path.read_bytes() == b"the file of before"
    assert list(tmp_path.iterdir()) == [path]
