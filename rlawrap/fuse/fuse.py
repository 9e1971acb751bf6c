"""`fuse`: a rewritten network for inference, with exact algebra in place of what can be spared."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, get_args

from torch import fx, nn

from rlawrap.capture.refusals import is_wrapper
from rlawrap.copying import deep_copy
from rlawrap.errors import ConfigError, PlanError
from rlawrap.fuse.activations import halve_tanh, overwrite
from rlawrap.fuse.norms import fold_norms, spell_out_norms
from rlawrap.fuse.points import hasten_points
from rlawrap.fuse.report import FuseReport
from rlawrap.fuse.work import Work, drop_unread, open_containers
from rlawrap.fuse.zeros import drop_zeros
from rlawrap.splice.access import checked_parts
from rlawrap.splice.hooks import has_own_hooks
from rlawrap.splice.model import RLAModel

Target = Literal["eager", "inductor", "onnx"]


def fuse(model: nn.Module, *, target: Target = "eager") -> nn.Module:
    """A copy of a rewritten network for inference alone, equal to it up to float rounding.

    The norms with fixed statistics, of the base and of h, go into the convolutions before them: h
    is carried scaled, and the layers that read it scale it back. h^0 = 0 and what is known because
    of it go into biases, and an update that nobody reads goes. The copy, a `torch.fx.GraphModule`
    in evaluation mode, calls layers of `torch.nn`, each once, for quantisers and exporters. What
    was done, and what was not and why, is its `report`.

    target: what it is for. "eager" computes tanh by sigmoid and overwrites values that nobody else
    reads; "inductor" computes tanh by sigmoid; "onnx" keeps tanh, which onnxruntime computes
    faster.

    The model is left as it is; the copy has weights of its own. A model with a rewritten part
    inside comes back as a copy in which that part is fused.

    Raises `PlanError` for what has no hidden state, is wrapped, has hooks on itself, on blocks or
    on stages, or a `__call__` of its class, which would not run; `ConfigError` for an unknown
    target and for a model in train mode.

    >>> import rlawrap, torch
    >>> model = rlawrap.models.rla_resnet50(num_classes=10).eval()
    >>> fused = rlawrap.fuse(model)
    >>> x = torch.randn(1, 3, 64, 64)
    >>> torch.allclose(fused(x), model(x), atol=1e-4)
    True
    >>> any(isinstance(m, torch.nn.BatchNorm2d) for m in fused.modules())
    False
    """
    if target not in get_args(Target):
        raise ConfigError(f"fuse(target={target!r}): choose from {', '.join(get_args(Target))}.")
    if is_wrapper(model):
        raise PlanError(
            f"fuse(model): {type(model).__name__} wraps the model; fuse the model inside and wrap "
            "what comes back."
        )
    parts = checked_parts(model, "fuse(model)", cut=True)
    for path, part in parts.items():
        if part.training:
            what = f"its part {path!r}" if path else "the model"
            raise ConfigError(
                f"fuse(model): {what} is in train mode, in which norms take their statistics from "
                "the batch. Call `model.eval()` first."
            )
        _refuse_hooks(path, part)
        _refuse_call(path, part)
    if "" in parts:
        return _fused(parts[""], target)
    twin = deep_copy(model)
    reports: dict[str, FuseReport] = {}
    for path, part in parts.items():
        own: Any = _fused(part, target)
        reports[path] = own.report
        parent, _, name = path.rpartition(".")
        setattr(twin.get_submodule(parent), name, own)
    twin.__dict__["report"] = _joined(reports, target)
    return twin


def _refuse_hooks(path: str, part: RLAModel) -> None:
    """The modules whose calls the graph has dissolved are not called by the copy either."""
    hooked = [""] if has_own_hooks(part) else part.rla.splice.hooked(part)
    if hooked:
        where = ".".join(name for name in (path, hooked[0]) if name)
        what = f"its module {where!r}" if where else "the model"
        raise PlanError(
            f"fuse(model): {what} has hooks, which would not run: what is fused calls single "
            "layers. Remove them (`handle.remove()` on what `register_forward_hook` returned) "
            "or hook a layer inside."
        )


def _refuse_call(path: str, part: RLAModel) -> None:
    """What a class does around its forward lies in no graph."""
    if type(part).__call__ is not nn.Module.__call__:
        where = f"its part {path!r}" if path else "the model"
        raise PlanError(
            f"fuse(model): {where} has a `__call__` of its own ({type(part).__name__}), which "
            "would not run. Move what it does into `forward`."
        )


def _fused(model: RLAModel, target: Target) -> nn.Module:
    work = Work.of(model, model.rla.splice.graph)
    before = len(work.graph.nodes)
    open_containers(work)
    spell_out_norms(work)
    drop_zeros(work)
    drop_unread(work)
    fold_norms(work)
    if target != "onnx":
        halve_tanh(work)
    drop_unread(work)
    if target == "eager":
        hasten_points(work)
        overwrite(work)
    work.graph.lint()
    fused: Any = fx.GraphModule(work.root, work.graph, f"Fused{type(model).__name__}")
    fused.eval()
    fused.report = FuseReport(
        target=target,
        done=tuple(work.done),
        kept=tuple(work.kept),
        before=before,
        after=len(work.graph.nodes),
    )
    return fused


def _joined(reports: dict[str, FuseReport], target: Target) -> FuseReport:
    """One report of several parts, in which the layers have their whole paths."""

    def steps(name: str) -> Any:
        return tuple(
            replace(step, where=f"{path}.{step.where}")
            for path, report in reports.items()
            for step in getattr(report, name)
        )

    return FuseReport(
        target=target,
        done=steps("done"),
        kept=steps("kept"),
        before=sum(report.before for report in reports.values()),
        after=sum(report.after for report in reports.values()),
    )
