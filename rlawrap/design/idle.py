"""What a design holds without effect: updates of h that nothing reads, and idle options."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from rlawrap.config import RLAConfig
from rlawrap.design.design import Design
from rlawrap.errors import RLAWarning


def drop_unread(design: Design) -> bool:
    """Leave out every update of h that nothing reads: its weights would never get a gradient.

    Nor would they from readers of a detached value alone, which `drop_dead` has left out. False if
    nothing reads any.
    """
    needed = [False] * len(design.steps)
    for head in design.head:
        needed[head.after] |= not head.detached
    for step in reversed(design.steps):
        reads = any(not entry.detached for entry in step.entries) or needed[step.index]
        if reads and step.parent is not None:
            needed[step.parent] = True
    for step, need in zip(design.steps, needed, strict=True):
        step.updates = need
    return any(needed)


def nothing_reads(design: Design, helps: Callable[[RLAConfig], bool]) -> str:
    """Why nothing reads h, and the options with which something would; `helps` tries some."""
    config = design.config
    told = ""
    for options in ({"inject": "entry"}, {"head": "concat"}, {"inject": "entry", "head": "concat"}):
        changed = {name: v for name, v in options.items() if getattr(config, name) != v}
        if changed == options and helps(config.with_options(**options)):
            told = f" Pass `{', '.join(f'{name}={v!r}' for name, v in options.items())}`."
            break
    why = "".join(f" {note}." for note in (*design.notes, *design.unreached))
    return (
        "nothing reads the hidden state: h enters no block that another precedes, and it does not "
        f"join a classifier.{why}{told}"
    )


def warn_of_idle_options(design: Design) -> None:
    config, plan = design.config, design.plan
    idle = []
    if config.source == "branch" and all(b.branch is None for b in plan.blocks):
        idle.append("source='branch': no block has a residual branch, its output is used")
    if config.source == "input" and all(b.shortcut is None for b in plan.blocks):
        idle.append("source='input': no block has a shortcut, its input is used")
    if config.update != "pre" and not design.cell.has_forms:
        idle.append(f"update={config.update!r}: the cell {config.cell!r} has one form only")
    if config.head == "concat" and not design.head:
        idle.append("head='concat': the network has no classifier that h could join")
    if config.inject == "depthwise" and not any(
        name == "depthwise" for s in design.steps for e in s.entries for name, _ in e.path.layers
    ):
        idle.append("inject='depthwise': no block has a depthwise convolution behind its entry")
    if config.update == "split" and config.norm == "none":
        starts: dict[str, bool] = {}
        for step in design.steps:
            if step.updates:
                starts[step.cell_key] = starts.get(step.cell_key, True) and step.parent is None
        idle += [
            f"update='split' with norm='none': rla.cell.{key} convolves only h^0 = 0, which is "
            "nothing; use update='pre', a norm, or share='network'"
            for key, only in starts.items()
            if only and design.cell.has_forms
        ]
    for text in idle:
        if text.startswith("head=") and config.head == "concat":
            continue  # the default; the plan already says that there is no classifier
        warnings.warn(f"{text}.", RLAWarning, stacklevel=5)
