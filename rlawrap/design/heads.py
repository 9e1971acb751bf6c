"""The heads that h joins: those of the plan or the ones named, each by the last h on its way."""

from __future__ import annotations

import difflib
from dataclasses import replace

from torch import fx, nn

from rlawrap.config import HEAD_WORDS, RLAConfig
from rlawrap.design.design import Entry
from rlawrap.design.entries import Network
from rlawrap.design.head import head_path
from rlawrap.errors import ConfigError, PlanError, few
from rlawrap.flow.dataflow import Flow
from rlawrap.plan import Plan, not_joined


def lies_in(reference: str, path: str) -> bool:
    """Whether a reference is that of a module, or of a value that it or a part of it makes.

    >>> lies_in("heads.0.fc", "heads.0"), lies_in("heads.0#1", "heads.0"), lies_in("fc2", "fc")
    (True, True, False)
    """
    return reference == path or reference.startswith(tuple(path + mark for mark in ".:#["))


def named_heads(config: RLAConfig) -> tuple[str, ...]:
    """The paths that `head=` gives, if it gives paths."""
    if config.head in HEAD_WORDS:
        return ()
    return (config.head,) if isinstance(config.head, str) else config.head


def with_named_heads(plan: Plan, named: tuple[str, ...], root: nn.Module) -> Plan:
    """The plan with those of its heads that lie at the named paths; as it is if none are named.

    Raises `ConfigError` for a path that holds none of them.
    """
    if not named:
        return plan
    for path in named:
        if not any(lies_in(head, path) for head in plan.head):
            raise ConfigError(_no_head(path, plan, root))
    heads = (head for head in plan.head if any(lies_in(head, path) for path in named))
    return replace(plan, head=tuple(heads))


def _no_head(path: str, plan: Plan, root: nn.Module) -> str:
    modules = [name for name, _ in root.named_modules() if name]
    why = f"{plan.model} has no module of that path"
    if path in modules:
        why, modules = f"no head of {plan.model} lies there", []
    parts = [h[:i] for h in plan.head for i, c in enumerate(h) if c in ".:#["]
    known = dict.fromkeys((*plan.head, *parts, *HEAD_WORDS, *modules))
    near = difflib.get_close_matches(path, known, n=3)
    hint = f" Near it: {', '.join(near)}." if near else ""
    if not plan.head:
        return f"head={path!r}: {why}.{hint} The plan has no head that h could join."
    return (
        f"head={path!r}: {why}.{hint} h can join {few(plan.head)}: name one of them, a tuple of "
        "several, or leave head= out for all."
    )


def head_entries(network: Network, plan: Plan) -> tuple[list[Entry], list[str]]:
    """The ways of h into the heads, and a note on each layer it cannot join."""
    flow, refs = network.flow, network.refs
    outputs = [refs.node(block.output) for block in plan.blocks]
    entries: list[Entry] = []
    notes: list[str] = []
    for i, reference in enumerate(plan.head):
        layer = refs.node(reference)
        if flow.ops.conv(layer) is None:
            raise PlanError(
                f"the plan's head {reference!r} is no convolution or linear layer, which h could "
                "join."
            )
        after = _last_before(flow, layer, outputs)
        path = head_path(network.maker, layer, outputs[after])
        problem = network.problem(path)
        if problem:
            notes.append(f"{not_joined(reference)}{problem}")
            continue
        entry = Entry.of(str(i), reference, path, refs)
        entry.after = after
        entry.detached = flow.severed(layer, outputs[after])
        entries.append(entry)
    return entries, notes


def _last_before(flow: Flow, layer: fx.Node, outputs: list[fx.Node]) -> int:
    """The last block that a layer derives from; the last of all where there is none."""
    before = [i for i, output in enumerate(outputs) if flow.derives(layer, output)]
    return before[-1] if before else len(outputs) - 1
