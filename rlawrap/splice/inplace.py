"""Values that h is updated from must not be overwritten: the writers become out-of-place."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import fx, nn

from rlawrap.capture.overwrites import writes_in_place
from rlawrap.capture.trace import name_of

_OUT_OF_PLACE = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}
_VIEWS = frozenset(
    "view reshape permute transpose flatten unflatten squeeze unsqueeze chunk split narrow getitem "
    "movedim expand contiguous detach unbind view_as reshape_as swapaxes to written".split()
)


def aliases(module: nn.Module | None, node: fx.Node) -> bool:
    """Whether a node may return its input's own storage."""
    if node.op == "call_module":
        name = type(module).__name__
        return isinstance(module, (nn.Identity, nn.Flatten)) or name.startswith(
            ("Drop", "StochasticDepth", "Permute")
        )
    return name_of(node) in _VIEWS or "dropout" in name_of(node) or "drop" in name_of(node)


def protect(modules: Mapping[str, nn.Module], node: fx.Node) -> tuple[fx.Node, list[str]]:
    """Make `node` safe to read: (the node to read, paths of modules whose inplace was turned off).

    A writer that alone overwrites the value is made out-of-place. Where views of the value are
    read behind a writer, turning it would change what they see; then a copy is read instead.
    """
    family, writers = sharing(modules, node)
    if not writers:
        return node, []
    first = min(writers)
    read_later = any(
        first < user and user not in family and user not in writers
        for member in family
        for user in member.users
    )
    made_later = any(first < member for member in family)
    if read_later or made_later or not all(_can_turn(w, modules) for w in writers):
        with node.graph.inserting_before(node.next):
            return node.graph.call_method("clone", (node,)), []
    return node, [path for writer in writers for path in _turn(writer, modules)]


def sharing(modules: Mapping[str, nn.Module], node: fx.Node) -> tuple[set[fx.Node], list[fx.Node]]:
    """The nodes that may share a node's storage, itself included, and who writes into it later."""
    family = _family(modules, node)
    writers = [
        user
        for member in family
        for user in member.users
        if node < user and writes_in_place(modules.get(str(user.target)), user) is member
    ]
    return family, writers


def _family(modules: Mapping[str, nn.Module], node: fx.Node) -> set[fx.Node]:
    """The nodes that may share a node's storage, itself included."""
    family, stack = {node}, [node]
    while stack:
        current = stack.pop()
        near = [u for u in current.users if aliases(modules.get(str(u.target)), u)]
        if aliases(modules.get(str(current.target)), current):
            near += current.all_input_nodes[:1]
        for other in near:
            if other not in family:
                family.add(other)
                stack.append(other)
    return family


def _can_turn(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    if node.op == "call_module":
        return isinstance(getattr(modules.get(str(node.target)), "inplace", None), bool)
    if node.op == "call_method":
        return hasattr(torch.Tensor, str(node.target).rstrip("_"))
    if node.target in _OUT_OF_PLACE or node.kwargs.get("inplace") is True:
        return True
    return hasattr(F, name_of(node).rstrip("_")) and name_of(node).endswith("_")


def turn_back(network: nn.Module, paths: Iterable[str]) -> None:
    """Let the layers at some paths write in place again, as they did before a rewrite."""
    for path in paths:
        network.get_submodule(path).inplace = True  # type: ignore[assignment]


def _turn(node: fx.Node, modules: Mapping[str, nn.Module]) -> list[str]:
    """Turn one writer; the path of its module if it is a module."""
    if node.op == "call_module":
        path = str(node.target)
        modules[path].inplace = False  # type: ignore[assignment]
        return [path]
    if node.op == "call_method":
        node.target = str(node.target).rstrip("_")
    elif node.target in _OUT_OF_PLACE:
        node.target = _OUT_OF_PLACE[node.target]
    elif node.kwargs.get("inplace") is True:
        node.kwargs = {**node.kwargs, "inplace": False}
    else:
        node.target = getattr(F, name_of(node).rstrip("_"))
    return []
