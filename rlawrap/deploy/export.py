"""A network to a file: folded, written aside, compared with the network, put in its place."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlawrap import _torch
from rlawrap.cost.inputs import Size
from rlawrap.deploy.exported import Exported
from rlawrap.deploy.folding import Normalization, Normalized, check_normalization, folded
from rlawrap.deploy.formats import FORMATS, Format, Run, tensors_in
from rlawrap.deploy.shapes import Inputs, choose_inputs
from rlawrap.errors import ConfigError, ExportError
from rlawrap.files import put_in_place, usual_mode

#: Largest difference to the network that a file may have, relative to the largest output.
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}
LOOSE = 5e-2
RAW = "as the network takes them; no normalisation is in the file"


def export(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    to: str,
    example_input: Any = None,
    batch: int | None = None,
    size: Size = None,
    normalize: Normalization | None = None,
) -> Exported:
    """Write a network to a file that runs where rlawrap is not installed.

    The network is folded first, by `fuse` where it has a hidden state, by torch's own where it has
    none; `model` stays as it is. What was written is run on two batches and sizes and compared with
    the model, and only then it takes its name: a file that was there stays until then.

    to: "onnx"; "pt2", a program of `torch.export`, for `torch.export.load`; "aoti", compiled by
    AOTInductor for this kind of machine, for `torch._inductor.aoti_load_package`.
    example_input: a tensor or a tuple of tensors that the model takes; default: an image of the
    size that the network is known for, or of 224 pixels.
    batch, size: fix the batch, or the sides of the image; both may change by default.
    normalize: mean and standard deviation by channel; the file then normalises its input.

    Raises `ConfigError` for options that do not fit, a model in train mode, and missing libraries
    (`pip install 'rlawrap[export]'`), `ExportError` for a network that cannot be exported, or a
    file that does not compute what the network does.

    >>> import rlawrap, tempfile
    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     done = rlawrap.export(net, f"{folder}/net.pt2", to="pt2")
    >>> done.inputs, done.difference < 1e-4
    (('float32 [batch, 3, height, width]',), True)
    """
    path = Path(path)
    form = _checked(model, path, to)
    inputs = choose_inputs(model, example_input, batch, size)
    check_normalization(normalize, inputs.shapes[0][1] if len(inputs.shapes[0]) > 1 else 1)
    form.check()
    with _beside(path) as folder:
        new = Path(folder) / path.name
        ready, words = folded(model, form.fuse_for)
        reference = model
        if normalize is not None:
            ready, reference = Normalized(ready, normalize), Normalized(model, normalize)
        _write(form, ready, inputs, new)
        difference = _compare(form.open(new), reference, inputs, path)
        _take_name(new, path)
    return Exported(
        path=path,
        target=to,
        network=type(model).__name__,
        folded=words,
        inputs=inputs.describe(),
        bytes=path.stat().st_size,
        difference=difference,
        checked=tuple(tuple(tuple(t.shape) for t in ts) for ts in inputs.to_compare()),
        expects=RAW if normalize is None else "from 0 to 1; the file normalises them",
    )


def _checked(model: nn.Module, path: Path, to: str) -> Format:
    if not isinstance(model, nn.Module):
        raise ConfigError(f"export: expected a torch.nn.Module, got {type(model).__name__}.")
    if to not in FORMATS:
        raise ConfigError(f"export: to={to!r} is no format; choose one of {', '.join(FORMATS)}.")
    training = [name or "the model" for name, part in model.named_modules() if part.training]
    if training:
        raise ConfigError(
            f"export: {training[0]} is in train mode, and a file computes what a network does in "
            "eval mode. Call model.eval() first."
        )
    if path.suffix != FORMATS[to].ending:
        raise ConfigError(
            f"export: {path}: files of {to} end in {FORMATS[to].ending}; name it "
            f"{path.with_suffix(FORMATS[to].ending)}."
        )
    if path.is_dir():
        raise ExportError(f"{path}: is a folder; name a file in it.")
    return FORMATS[to]


def _beside(path: Path) -> tempfile.TemporaryDirectory[str]:
    """A folder on the file system of `path`, gone afterwards."""
    try:
        return tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise ExportError(f"{path}: cannot be written ({error.strerror}).") from error


def _write(form: Format, model: nn.Module, inputs: Inputs, path: Path) -> None:
    try:
        form.write(model, inputs, path)
    except OSError as error:
        raise ExportError(f"{path.name}: cannot be written ({error.strerror}).") from error
    except Exception as error:  # exporters raise errors of all kinds
        fix = "size=" if inputs.any_size else "batch=" if inputs.any_batch else ""
        advice = f" Fix what may change, with {fix}, if the network depends on it." if fix else ""
        raise ExportError(
            f"export: to={form.name!r} fails on this network: {type(error).__name__}: "
            f"{_torch.first_line(error)[:300]}.{advice}"
        ) from error


@torch.no_grad()
def _compare(run: Run, model: nn.Module, inputs: Inputs, path: Path) -> float:
    """The largest difference between a file and the network, relative to the largest output."""
    worst = 0.0
    for tensors in inputs.to_compare():
        shapes = " and ".join("x".join(map(str, t.shape)) for t in tensors)
        try:
            expected = tensors_in(model(*tensors))
        except Exception as error:
            raise ExportError(
                f"export: the network itself does not run at {shapes}: {_torch.first_line(error)}. "
                "Fix the size that it is for with size=."
            ) from error
        try:
            got = run(tensors)
        except Exception as error:
            raise ExportError(
                f"{path.name}: what was written does not run at {shapes}: "
                f"{_torch.first_line(error)[:300]}. Fix the size with size=, the batch with batch=."
            ) from error
        worst = max(worst, _difference(expected, got, path, shapes))
    return worst


def _difference(expected: list[Tensor], got: list[Tensor], path: Path, shapes: str) -> float:
    sizes = [tuple(t.shape) for t in expected], [tuple(t.shape) for t in got]
    if sizes[0] != sizes[1]:
        raise ExportError(
            f"{path.name}: at {shapes} what was written puts out {sizes[1]}, the network "
            f"{sizes[0]}."
        )
    worst = 0.0
    for own, other in zip(expected, got, strict=True):
        scale = float(own.abs().max()) or 1.0
        difference = float((own.cpu() - other.cpu()).abs().max()) / scale
        limit = TOLERANCE.get(own.dtype, LOOSE)
        if not difference <= limit:
            raise ExportError(
                f"{path.name}: at {shapes} what was written differs from the network by "
                f"{difference:.1e} of its largest output, more than {limit:.0e}; it was not kept."
            )
        worst = max(worst, difference)
    return worst


def _take_name(new: Path, path: Path) -> None:
    try:
        new.chmod(usual_mode())
        put_in_place(new, path)
    except OSError as error:
        raise ExportError(f"{path}: cannot be written ({error.strerror}).") from error
