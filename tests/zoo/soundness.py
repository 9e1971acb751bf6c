"""What must hold for every network that `apply` rewrites, checked on one network."""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

import rlawrap
from tests.zoo.nets import Net

#: Largest difference of outputs, relative to the largest output, in float32.
TOLERANCE = 1e-5
#: Above this many parameters the base's own take no part in the two training steps.
FROZEN_ABOVE = 150_000_000


def tensors(value: Any) -> Iterator[Tensor]:
    """The floating-point tensors in a network's output, in order."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors(item)


def relative_error(ours: Any, theirs: Any) -> float:
    """The largest difference over the largest value; infinite if shapes or finiteness differ."""
    mine, its = list(tensors(ours)), list(tensors(theirs))
    if len(mine) != len(its) or not its:
        return float("inf")
    worst = 0.0
    for a, b in zip(mine, its, strict=True):
        if a.shape != b.shape or not torch.isfinite(b).all():
            return float("inf")
        worst = max(worst, float((a - b).abs().max() / b.abs().max().clamp_min(1e-30)))
    return worst


def sizes_to_try(own: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Spatial sizes, small ones first, the network's own last; of video half the frames first."""
    *frames, _, last = own
    depths = dict.fromkeys((tuple(n // 2 for n in frames), tuple(frames)))
    return [(*depth, n, n) for depth in depths for n in (64, 96, 128) if n < last] + [own]


def _runs(base: nn.Module, shape: tuple[int, ...]) -> bool:
    mode = base.training
    state = {k: v.clone() for k, v in base.named_buffers()}
    try:
        with torch.no_grad():
            for training in (False, True):
                base.train(training)(torch.randn(shape))
    except Exception:  # whatever the network itself raises for a size it cannot take
        return False
    finally:
        base.train(mode)
        for name, buffer in base.named_buffers():
            if name in state and state[name].shape == buffer.shape:
                buffer.copy_(state[name])
    return True


def check(net: Net, k: int = 8, only_blocks: bool = False) -> dict[str, Any]:
    """One row of the sweep: blocks found and expected, times, and every check's verdict."""
    row: dict[str, Any] = {"name": net.name, "label": net.label, "kind": net.family.kind}
    base = net.build()
    row["parameters"] = sum(p.numel() for p in base.parameters())
    expected = net.family.blocks(base)
    start = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = None if only_blocks else rlawrap.apply(base, k=k)
            plan = rlawrap.inspect(base) if model is None else model.plan
    except rlawrap.RLAError as error:
        row["refused"] = str(error)
        row["blocks"], row["expected"] = 0, len(expected)
        return row
    row["apply_s"] = round(time.process_time() - start, 2)
    found = [b.path for b in plan.blocks]
    tokens = {path for path, reason in plan.left_out if "token" in reason}
    row["blocks"] = len(found)
    row["expected"] = len(expected)
    row["on_tokens"] = len(tokens & set(expected))
    row["missing"] = sorted(set(expected) - set(found) - tokens)
    row["extra"] = sorted(set(found) - set(expected))
    row["exact"] = not row["missing"] and not row["extra"] and len(found) == len(set(found)) > 0
    row["not_entered"] = [f"{b.path}: {b.note}" for b in plan.blocks if not b.entries]
    row["notes"] = [n for n in plan.notes if "refuses" not in n]
    if model is not None:
        row["checks"] = _checks(base, model, plan.input_shape)
        row["sound"] = all(v == "ok" for v in row["checks"].values())
    return row


def _checks(base: nn.Module, model: nn.Module, own: tuple[int, ...]) -> dict[str, str]:
    verdicts: dict[str, str] = {}
    verdicts["keys"] = same_keys(base, model)
    torch.manual_seed(1)
    shape = next(
        (s for n in sizes_to_try(own[2:]) if _runs(base, s := (3, own[1], *n))), (3, *own[1:])
    )
    image = torch.randn(shape)
    with torch.no_grad():
        base.eval()
        model.eval()
        verdicts["eval"] = verdict(relative_error(model(image), base(image)))
        base.train()
        model.train()
        torch.manual_seed(2)
        theirs = base(image)
        torch.manual_seed(2)
        verdicts["train"] = verdict(relative_error(model(image), theirs))
        verdicts["statistics"] = same_buffers(base, model)
        odd = (*shape[:-2], shape[-2] + 13, shape[-1] + 5)
        if _runs(base, odd):
            image = torch.randn(odd)
            base.eval()
            model.eval()
            verdicts["odd size"] = verdict(relative_error(model(image), base(image)))
    verdicts["gradients"] = gradients(model, functools.partial(_run, shape))
    return verdicts


def verdict(error: float) -> str:
    """What a row says of a relative error."""
    return "ok" if error < TOLERANCE else f"relative error {error:.1e}"


def same_keys(base: nn.Module, model: nn.Module, under: str = "rla.") -> str:
    """Whether the base's keys and shapes come first, and all others lie `under` a name."""
    mine, its = model.state_dict(), base.state_dict()
    if list(mine)[: len(its)] != list(its):
        return "the base's keys are no prefix of the new ones"
    if any(mine[key].shape != its[key].shape for key in its):
        return "a shape differs"
    if not all(key.startswith(under) for key in list(mine)[len(its) :]):
        return f"a new key is outside {under}"
    return "ok"


def same_buffers(base: nn.Module, model: nn.Module) -> str:
    """Whether running statistics are the same."""
    mine, its = dict(model.named_buffers()), dict(base.named_buffers())
    worst = [
        name
        for name, b in its.items()
        if b.is_floating_point() and not torch.allclose(mine[name], b, rtol=1e-4, atol=1e-6)
    ]
    return f"{worst[0]} differs after a training step" if worst else "ok"


def _run(shape: tuple[int, ...], model: nn.Module, dtype: torch.dtype) -> Any:
    return model(torch.randn(shape, dtype=dtype))


def gradients(
    model: nn.Module, call: Callable[[nn.Module, torch.dtype], Any], under: str = "rla."
) -> str:
    """Two steps of gradient descent, each of one length whatever the scale of the network.

    `call` runs the model on an input of that precision; the new parameters lie `under` a name.
    Stochastic depth is off: it may drop all that a parameter leads to. On random weights a small
    gradient may underflow in float32; those that are zero are computed once more in float64.
    """
    model.train()
    for module in model.modules():
        if type(module).__name__.startswith(("DropPath", "DropBlock", "StochasticDepth")):
            module.eval()
    ours = {n: p for n, p in model.named_parameters() if n.startswith(under)}
    if not ours:
        return "apply added no parameter"
    if sum(p.numel() for p in model.parameters()) > FROZEN_ABOVE:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in ours)
    _backward(model, call, seed=3)
    with torch.no_grad():
        for parameter in ours.values():
            gradient = parameter.grad
            if gradient is not None and torch.isfinite(gradient).all():
                parameter -= 0.05 * gradient / gradient.abs().max().clamp_min(1e-30)
    _backward(model, call, seed=4)
    zero = [n for n, p in ours.items() if p.grad is not None and not p.grad.any()]
    if zero:
        _backward(model.double(), call, seed=4)
        zero = [n for n in zero if not ours[n].grad.any()]  # type: ignore[union-attr]
    none = [n for n, p in ours.items() if p.grad is None]
    bad = [n for n, p in ours.items() if p.grad is not None and not torch.isfinite(p.grad).all()]
    for names, what in ((none, "no"), (bad, "a non-finite"), (zero, "a zero")):
        if names:
            return f"{len(names)} of {len(ours)} get {what} gradient, such as {names[0]}"
    return "ok"


def _backward(model: nn.Module, call: Callable[[nn.Module, torch.dtype], Any], seed: int) -> None:
    torch.manual_seed(seed)
    model.zero_grad()
    dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
    outputs = [t for t in tensors(call(model, dtype)) if t.requires_grad]
    parts = [
        ((o / o.detach().abs().max().clamp_min(1e-30)) * torch.randn_like(o)).sum() for o in outputs
    ]
    torch.stack(parts).sum().backward()
