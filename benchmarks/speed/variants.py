"""The calls that are timed against each other: a plain network and ours, treated the same way."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.speed.nets import NETS, Net, stirred
from benchmarks.speed.timing import Call
from benchmarks.speed.transfer import concatenation

#: Largest difference, relative to the largest output, that two forms of one network may have.
TOLERANCE = 1e-3
PAPER_K = 32
#: What is compared with the plain network under each treatment of inference.
VARIANTS = {
    "eager": ("ours", "concat"),
    "folded": ("fused",),
    "compiled": ("ours", "fused"),
    "frozen": ("ours", "fused"),
    "onnx": ("ours", "fused"),
}


class NotEqual(Exception):
    """A variant does not compute what its network computes."""


def sample(batch: int, size: int, device: str) -> Tensor:
    """Images as a loader gives them."""
    torch.manual_seed(1)
    x = torch.randn(batch, 3, size, size, device=device)
    return x.contiguous(memory_format=torch.channels_last)


def placed(model: nn.Module, device: str, training: bool = False) -> nn.Module:
    """On the device, channels last, in the mode."""
    return model.to(device, memory_format=torch.channels_last).train(training)


def plain_folded(model: nn.Module) -> nn.Module:
    """A plain network as torch itself folds its norms."""
    from torch.fx.experimental.optimization import fuse

    return fuse(model).to(memory_format=torch.channels_last)


def fused(model: nn.Module, target: str) -> nn.Module:
    """Ours as `rlawrap.fuse` folds it."""
    import rlawrap

    return rlawrap.fuse(model, target=target).to(memory_format=torch.channels_last)


def inference_calls(
    name: str, ks: Sequence[int], treatment: str, x: Tensor, failed: dict[str, str]
) -> dict[str, Call]:
    """Name -> call. "base" is the plain network; others are "VARIANT kK". Outputs are checked.

    A variant that cannot be had goes into `failed`, with the error that stops it.
    """
    net, device = NETS[name], str(x.device)
    base = placed(stirred(net.base), device)
    if treatment == "folded":
        base = plain_folded(base)
    calls = {"base": _call(base, treatment, x)}
    for k in ks:
        ours = placed(stirred(lambda k=k: net.ours(k)), device)
        for variant in VARIANTS[treatment]:
            label = f"{variant} k{k}"
            try:
                form = _form(net, ours, variant, treatment)
                if form is None:
                    continue
                calls[label] = _call(form, treatment, x)
                _check(ours, calls[label], x)
            except Exception as error:  # one variant less, the others are measured
                calls.pop(label, None)
                failed[label] = f"{type(error).__name__}: {error}"[:500]
    return calls


def _form(net: Net, ours: nn.Module, variant: str, treatment: str) -> nn.Module | None:
    """The network of a variant; None where it is not written for this net."""
    if variant == "ours":
        return ours
    if variant == "fused":
        target = {"folded": "eager", "onnx": "onnx"}.get(treatment, "inductor")
        return fused(ours, target)
    beside = _beside(net.name, ours)
    return None if beside is None else placed(beside, str(next(ours.parameters()).device))


def _beside(name: str, ours: nn.Module) -> nn.Module | None:
    """The concatenation network, at the paper's k alone, or its runs would be half of the time."""
    return concatenation(name, ours) if ours.rla.config.k == PAPER_K else None


def _call(model: nn.Module, treatment: str, x: Tensor) -> Call:
    if treatment == "onnx":
        return _onnx(model, x)
    if treatment in ("compiled", "frozen"):
        return _compiled(model, x, freezing=treatment == "frozen")
    return _quiet(model, x)


def _quiet(model: Callable[[Tensor], Any], x: Tensor) -> Call:
    def call() -> Any:
        with torch.no_grad():
            return model(x)

    return call


def _compiled(model: nn.Module, x: Tensor, freezing: bool) -> Call:
    """Compiled for the shape of x, here and now."""
    import torch._inductor.config as inductor

    compiled = torch.compile(model, dynamic=False)
    with inductor.patch(freezing=freezing), torch.no_grad():
        compiled(x)
    return _quiet(compiled, x)


def _onnx(model: nn.Module, x: Tensor) -> Call:
    import onnxruntime

    program = torch.onnx.export(model, (x,), dynamo=True, verbose=False)
    buffer = io.BytesIO()
    program.save(buffer)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    wanted = ["CUDAExecutionProvider"] if x.is_cuda else ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(buffer.getvalue(), options, providers=wanted)
    feed = {session.get_inputs()[0].name: x.contiguous().cpu().numpy()}
    return lambda: torch.from_numpy(session.run(None, feed)[0])


@torch.no_grad()
def _check(ours: nn.Module, call: Call, x: Tensor) -> None:
    expected, got = ours(x), call()
    error = float((expected.cpu() - got.cpu()).abs().max() / expected.abs().max())
    if not error < TOLERANCE:
        raise NotEqual(f"differs from the network by {error:.1e}")


def training_calls(
    name: str, ks: Sequence[int], treatment: str, x: Tensor, failed: dict[str, str]
) -> dict[str, Call]:
    """Whole steps: forward, cross-entropy, backward, SGD with momentum; named as for inference."""
    net, device = NETS[name], str(x.device)
    models = {"base": stirred(net.base)}
    for k in ks:
        ours = stirred(lambda k=k: net.ours(k))
        beside = _beside(name, ours) if treatment == "eager" else None
        models |= {f"ours k{k}": ours} | ({} if beside is None else {f"concat k{k}": beside})
    return {
        label: training_step(placed(model, device, training=True), x, treatment)
        for label, model in models.items()
    }


def training_step(model: nn.Module, x: Tensor, treatment: str = "eager") -> Call:
    """One step after the other on the same images."""
    labels = torch.arange(len(x), device=x.device) % 1000
    # A rate at which weights stay what they are, however many steps are measured.
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9)
    forward = torch.compile(model, dynamic=False) if treatment == "compiled" else model

    def step() -> None:
        F.cross_entropy(forward(x), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step
