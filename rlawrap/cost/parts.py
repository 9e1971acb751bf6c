"""Which part of a network a call or a parameter belongs to: stem, stages, head."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rlawrap.cost.count import Call
from rlawrap.design.names import is_added, is_output

STEM, HEAD, UNUSED = "stem", "head", "not run"


def is_inside(path: str, ancestor: str) -> bool:
    """Whether `path` is the module `ancestor` or lies below it.

    >>> is_inside("layer1.0.conv1", "layer1.0"), is_inside("layer1.10", "layer1.1")
    (True, False)
    """
    return path == ancestor or path.startswith(ancestor + ".")


def stage_name(index: int) -> str:
    """The name of a stage; numbered from 0, as in a printed plan."""
    return f"stage {index}"


def assign_calls(
    calls: Sequence[Call], stages: Sequence[Sequence[str]], hidden: Mapping[str, str]
) -> list[str]:
    """The part of each call, given the module paths of the blocks, stage by stage.

    What runs before the first block is the stem, what runs after the last one the head, and what
    runs between two blocks belongs to the stage of the first of them. `hidden` names the part of
    those modules of the hidden state that belong to one block alone or to the head; a module that
    several blocks share goes by when it is called: after the identity on a block's output.
    """
    block_part = {path: stage_name(i) for i, stage in enumerate(stages) for path in stage}
    own = [_lookup(call.path, block_part) for call in calls]
    last = max((i for i, part in enumerate(own) if part), default=-1)
    parts: list[str] = []
    current = STEM
    for index, call in enumerate(calls):
        fixed = _lookup(call.path, hidden)
        if fixed:
            current = fixed if fixed == HEAD or is_output(call.path) else current
            parts.append(fixed)
            continue
        if own[index]:
            current = own[index]
        elif index > last and not is_added(call.path):
            current = HEAD
        parts.append(current)
    return parts


def assign_parameters(
    parameters: Iterable[str], calls: Sequence[Call], parts: Sequence[str]
) -> dict[str, str]:
    """The part of each parameter: where it is read first, else where what holds it runs first."""
    ran: dict[str, str] = {}
    read: dict[str, str] = {}
    for call, part in zip(calls, parts, strict=True):
        read.update(dict.fromkeys(call.reads, part))
        if call.path:
            ran.setdefault(call.path, part)
    return {
        name: read.get(name) or _lookup(name.rpartition(".")[0], ran) or UNUSED
        for name in parameters
    }


def by_child(calls: Sequence[Call]) -> list[str]:
    """The part of each call where no blocks are known: the network's own child that ran it."""
    parts: list[str] = []
    for call in calls:
        child = call.path.partition(".")[0]
        parts.append(child or (parts[-1] if parts else "forward"))
    return parts


def _lookup(path: str, table: Mapping[str, str]) -> str:
    """The entry of the nearest module at or above `path`, or an empty string."""
    while path:
        if path in table:
            return table[path]
        path = path.rpartition(".")[0]
    return ""
