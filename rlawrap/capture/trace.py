"""Trace: one recorded call of a network as a graph, with the module calls around every node."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from rlawrap.capture.meta import OnMeta
from rlawrap.capture.shadow import Shadow

#: One module call: its path and how many calls of that module came before it.
Frame = tuple[str, int]


@dataclass
class Call:
    """One call of a module that was traced through: what it got and returned, as trees of nodes."""

    frame: Frame
    parents: tuple[Frame, ...]
    args: Any = ()
    kwargs: Any = None
    output: Any = None


@dataclass
class MethodCall:
    """One call of a method of the network's own class, as `Call`; arguments by name.

    `began` and `ended` are the last nodes of the graph when it was called and when it returned.
    """

    name: str
    arguments: dict[str, Any]
    output: Any
    began: fx.Node
    ended: fx.Node


@dataclass
class Trace:
    """One traced graph, the module calls of its nodes, and the shadow it was traced on."""

    shadow: Shadow
    graph: fx.Graph
    stacks: dict[fx.Node, tuple[Frame, ...]]
    calls: dict[Frame, Call]
    leaf_frames: dict[fx.Node, Frame]
    training: bool
    #: File and line of the network's code that made a node.
    places: dict[fx.Node, tuple[str, int]] = field(default_factory=dict)
    #: In a graph of train mode: names of the values that eval mode computes as well.
    names: dict[fx.Node, str] | None = None
    #: And layers that eval mode calls, too, on other sizes: by their reference there.
    elsewhere: dict[str, fx.Node] = field(default_factory=dict)
    #: Modules below the root that `forward` asked for their mode, and what they answered.
    modes: dict[str, bool] = field(default_factory=dict)
    #: Tensors that lie in no attribute of a module; the graph reads them as the root's.
    constants: dict[str, torch.Tensor] = field(default_factory=dict)
    #: Tensors that are plain attributes of modules, as the network has them.
    attributes: dict[str, torch.Tensor] = field(default_factory=dict)
    #: Attributes that `forward` set while tracing, in words; the graph does not set them.
    unset: tuple[str, ...] = ()
    #: The same attributes, by module path and name.
    kept: tuple[tuple[str, str], ...] = ()
    #: Methods of the network's own class that its forward called, in the order they returned.
    methods: list[MethodCall] = field(default_factory=list)
    #: For a value that was overwritten in place: who overwrote it, in order.
    writers: dict[fx.Node, list[fx.Node]] = field(default_factory=dict)
    #: Classes and paths of modules that the user kept whole.
    user_leaves: tuple[type | str, ...] = ()
    #: The tensors among the inputs, with what a person calls them.
    images: dict[fx.Node, str] = field(default_factory=dict)
    #: How many nodes take the inputs apart and check them.
    inputs: int = 0
    #: The input that is taken for the image.
    image: fx.Node | None = None
    #: Results on meta tensors by what their shape depends on; see `rlawrap.capture.shapes`.
    known: dict[Any, Any] = field(default_factory=dict)

    @property
    def root(self) -> nn.Module:
        """The shadow of the network."""
        return self.shadow.root

    def on_meta(self) -> OnMeta:
        """The mode in which the shadow runs."""
        return self.shadow.on_meta()

    def owner(self, node: fx.Node) -> Frame:
        """The innermost traced call that a node ran in; `("", 0)` is the network itself."""
        stack = self.stacks.get(node)
        return stack[-1] if stack else ("", 0)

    def module(self, path: str) -> nn.Module:
        return self.shadow.modules[path]

    def leaf(self, node: fx.Node) -> nn.Module | None:
        """The elementary module that a node calls, or None."""
        return self.shadow.modules[str(node.target)] if node.op == "call_module" else None


class CannotFollow(Exception):
    """A forward does what no graph does; `path` is the innermost module that does."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(what)
        self.path, self.what = path, what


def name_of(node: fx.Node) -> str:
    """The plain name of what a function or method node calls."""
    if node.op == "call_method":
        return str(node.target)
    name = getattr(node.target, "__name__", None)
    return str(node.target) if name is None else str(name)
