"""The formats: each writes a network to a file and runs such a file, without our code in it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlawrap import _torch
from rlawrap.deploy.shapes import Inputs
from rlawrap.errors import ConfigError
from rlawrap.fuse import Target

Run = Callable[[tuple[Tensor, ...]], list[Tensor]]


@dataclass(frozen=True, kw_only=True)
class Format:
    """ending: of its files. fuse_for: the target of `rlawrap.fuse`. check: raises `ConfigError`
    where something is missing that it needs; write and open: to a file, and what runs one.
    """

    name: str
    ending: str
    fuse_for: Target
    check: Callable[[], None]
    write: Callable[[nn.Module, Inputs, Path], None]
    open: Callable[[Path], Run]


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings of PyTorch's exporters, which are about themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _exported(model: nn.Module, inputs: Inputs) -> torch.export.ExportedProgram:
    axes = inputs.dynamic_axes()
    # A forward that takes `*args` has one argument for all.
    with torch.no_grad(), quiet():
        return torch.export.export(model, inputs.example(), dynamic_shapes=axes, strict=False)


def _check_onnx() -> None:
    missing = [n for n in ("onnx", "onnxscript", "onnxruntime") if not importlib.util.find_spec(n)]
    if missing:
        raise ConfigError(
            f"export: to='onnx' needs {', '.join(missing)}: pip install 'rlawrap[export]'."
        )


def _write_onnx(model: nn.Module, inputs: Inputs, path: Path) -> None:
    with quiet():
        program = torch.onnx.export(
            _exported(model, inputs), dynamo=True, verbose=False, external_data=False
        )
        assert program is not None
        program.save(path, external_data=False)


def _open_onnx(path: Path) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [argument.name for argument in session.get_inputs()]

    def run(inputs: tuple[Tensor, ...]) -> list[Tensor]:
        feed = {n: tensor.cpu().numpy() for n, tensor in zip(names, inputs, strict=True)}
        return [torch.from_numpy(array) for array in session.run(None, feed)]

    return run


def _write_pt2(model: nn.Module, inputs: Inputs, path: Path) -> None:
    program = _exported(model, inputs)
    with quiet():
        torch.export.save(program, path)


def _open_pt2(path: Path) -> Run:
    with quiet():
        return _leaves_of(torch.export.load(path).module())


def _check_aoti() -> None:
    own = os.environ.get("CXX")
    if not any(shutil.which(name) for name in ((own,) if own else ("g++", "clang++", "c++"))):
        raise ConfigError(
            "export: to='aoti' needs a C++ compiler, and there is no "
            f"{own or 'g++, clang++ or c++'} on PATH. Install one, or name it in the environment "
            "variable CXX; to='pt2' needs none."
        )


def _write_aoti(model: nn.Module, inputs: Inputs, path: Path) -> None:
    program = _exported(model, inputs)
    with torch.no_grad(), quiet():
        _torch.compile_and_package(program, path)


def _open_aoti(path: Path) -> Run:
    with quiet():
        return _leaves_of(_torch.load_package(path))


def _leaves_of(call: Callable[..., Any]) -> Run:
    def run(inputs: tuple[Tensor, ...]) -> list[Tensor]:
        with torch.no_grad():
            return tensors_in(call(*inputs))

    return run


def tensors_in(outputs: Any) -> list[Tensor]:
    """The tensors of what a network returns, in order."""
    return [leaf for leaf in _torch.pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]


FORMATS = {
    form.name: form
    for form in (
        Format(
            name="onnx",
            ending=".onnx",
            fuse_for="onnx",
            check=_check_onnx,
            write=_write_onnx,
            open=_open_onnx,
        ),
        Format(
            name="pt2",
            ending=".pt2",
            fuse_for="eager",
            check=lambda: None,
            write=_write_pt2,
            open=_open_pt2,
        ),
        Format(
            name="aoti",
            ending=".pt2",
            fuse_for="inductor",
            check=_check_aoti,
            write=_write_aoti,
            open=_open_aoti,
        ),
    )
}
