"""(base, traced network, Design) -> the rewritten network, in place of the base."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import nn

from rlawrap.capture.shadow import device_and_dtype
from rlawrap.capture.trace import Trace
from rlawrap.design import names
from rlawrap.design.design import Design
from rlawrap.flow.traced import Traced, trace_model
from rlawrap.splice.classes import make_class
from rlawrap.splice.edit import GraphEditor
from rlawrap.splice.hidden import Hidden, build, initialise
from rlawrap.splice.hook_points import hook_check, layer_check
from rlawrap.splice.mixed import is_mixed, put_beside_base
from rlawrap.splice.mode_watch import ModeWatch
from rlawrap.splice.program import Program, make_program, spared_layers
from rlawrap.splice.record import Settings, Splice

Mixin = TypeVar("Mixin", bound=nn.Module)


def trace_again(base: nn.Module, settings: Settings, call: str) -> Traced:
    """A network traced as it was by `apply`; `call` is the user's, for messages."""
    return trace_model(
        base,
        leaf_modules=settings.leaf_modules,
        example_input=settings.example_input,
        call=call,
    )


def hidden_part(base: nn.Module, traced: Traced, design: Design) -> Hidden:
    """The layers of a design, initialised, in the mode and with the types and devices of the base.

    Weights are drawn on the CPU, so that they are the same wherever the base lies.
    """
    with torch.device("cpu"):
        rla = build(design)
        initialise(rla, design, _classifier_widths(base, design))
    device, dtype = device_and_dtype(base)
    rla.to(device=device, dtype=dtype)
    if is_mixed(traced.trace.root, traced.trace.shadow.places):
        put_beside_base(rla, traced, design)
    return rla.train(base.training)


def write(
    base: nn.Module,
    rla: Hidden,
    traced: Traced,
    design: Design,
    settings: Settings,
    mixin: type[Mixin],
    rebuild: Callable[..., nn.Module],
) -> type[Mixin]:
    """Write a design into the traced graphs; give `rla` its record and return the new class.

    `base` is read, not changed, but for layers whose `inplace` has to be turned off.
    """
    root = nn.Module()
    root.__dict__["_modules"] = {**base._modules, names.ROOT: rla}
    root.__dict__["_parameters"] = base._parameters
    root.__dict__["_buffers"] = base._buffers
    flows = [traced.flow] if traced.training is None else [traced.flow, traced.training]
    programs: dict[bool, Program] = {}
    turned: list[str] = []
    through: dict[str, None] = {}
    for trace in (flow.trace for flow in flows):
        editor = GraphEditor(design, trace, root)
        editor.run()
        move_constants(trace, rla)
        programs[trace.training] = make_program(editor, trace, type(base))
        turned += editor.turned
        added = [frames for node, frames in editor.stacks.items() if node not in trace.stacks]
        through.update(dict.fromkeys(path for frames in added for path, _ in frames))
    modes = {flow.trace.training: flow.trace.modes for flow in flows} if len(flows) > 1 else {}
    programs = {mode: programs.get(mode, programs[False]) for mode in (False, True)}
    paths = dict.fromkeys(point.path for p in programs.values() for point in p.points)
    notes = dict.fromkeys((*design.plan.notes, *design.notes, *design.unreached))
    shape = design.plan.input_shape or traced.flow.shapes.inputs[0]  # a plan by hand has none
    rla.splice = Splice(
        plan=replace(design.plan, notes=tuple(notes), input_shape=shape),
        config=design.config,
        settings=settings,
        base_class=type(base),
        programs=programs,
        has_hooks=hook_check(paths, set(through)),
        is_changed=layer_check(spared_layers(programs), set(through)),
        watch=ModeWatch(modes),
        rebuild=rebuild,
        guarded=tuple(through),
        turned=tuple(dict.fromkeys(turned)),
    )
    methods = dict.fromkeys(name for p in programs.values() for name in p.methods)
    return make_class(mixin, type(base), programs[False].plain, methods, base)


def move_constants(trace: Trace, rla: Hidden) -> None:
    """Tensors that forward made while tracing become buffers of `rla`, in no state dict."""
    if not trace.constants:
        return
    if "constants" not in rla._modules:
        rla.add_module("constants", nn.Module())
    moved: dict[str, str] = {}
    for name, value in trace.constants.items():
        moved[name] = f"{'train' if trace.training else 'eval'}{name}"
        rla.get_submodule("constants").register_buffer(moved[name], value.clone(), persistent=False)
    for node in trace.graph.nodes:
        if node.op == "get_attr" and node.target in moved:
            node.target = f"{names.ROOT}.constants.{moved[node.target]}"


def _classifier_widths(base: nn.Module, design: Design) -> dict[str, int]:
    """Inputs of the linear layers that h joins, by their references."""
    widths = {}
    for entry in design.head:
        try:
            layer: Any = base.get_submodule(entry.target.partition("#")[0])
        except AttributeError:
            continue
        if isinstance(layer, nn.Linear):
            widths[entry.target] = layer.in_features
    return widths
