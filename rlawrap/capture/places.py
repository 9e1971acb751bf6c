"""Where the values of a network lie that is spread over several devices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from rlawrap.walks import chain

_MOVES = ("to", "type_as", "cuda", "cpu")


class Places:
    """The device of every value of a graph, read off the network's tensors and its moves.

    A recording runs without memory, so no value lies anywhere; a layer's result lies where its
    weights do, and what has none leaves it where it was.
    """

    def __init__(
        self, root: nn.Module, devices: Mapping[int, torch.device], first: torch.device
    ) -> None:
        self.root, self.devices, self.first = root, devices, first
        #: Whether there is more than one device.
        self.several = len(set(devices.values()) | {first}) > 1

    def of_own(self, tensor: Tensor) -> torch.device:
        """The device of one of the network's own tensors."""
        return self.devices.get(id(tensor), self.first)

    def of(self, node: fx.Node) -> torch.device:
        """The device that the value of a node lies on."""
        if not self.several:
            return self.first
        found: list[torch.device] = []

        def before(n: fx.Node) -> fx.Node | None:
            here = self._at(n)
            if here is not None:
                found.append(here)
                return None
            return next(iter(n.all_input_nodes), None)

        chain(node, before)
        return found[0] if found else self.first

    def _at(self, node: fx.Node) -> torch.device | None:
        """The device that a node itself names, by its weights or as a move to it."""
        if node.op == "call_module":
            module = self.root.get_submodule(str(node.target))
            own = next((t for t in (*module.parameters(), *module.buffers())), None)
            return None if own is None else self.of_own(own)
        if node.op == "get_attr":
            value: Any = self.root
            for atom in str(node.target).split("."):
                value = getattr(value, atom, None)
            return self.of_own(value) if isinstance(value, Tensor) else None
        if node.op == "call_method" and node.target in _MOVES:
            return self._goal(node)
        return None

    def _goal(self, node: fx.Node) -> torch.device | None:
        if node.target == "cpu":
            return torch.device("cpu")
        given = [*node.args[1:], *node.kwargs.values()]
        if node.target == "cuda":
            indices = [n for n in given if isinstance(n, int) and not isinstance(n, bool)]
            given += [torch.device("cuda", *indices)]
        goals = (self._named(value) for value in given)
        return next((goal for goal in goals if goal is not None), None)

    def _named(self, value: Any) -> torch.device | None:
        """The device that an argument of a move stands for; None where it is of another kind."""
        if isinstance(value, (str, torch.device)):
            return torch.device(value)
        if isinstance(value, int) and not isinstance(value, bool):
            return torch.device("cuda", value)
        if not isinstance(value, fx.Node):
            return None
        asks = value.target is getattr
        if asks and value.args[1] != "device":
            return None
        source = value.args[0] if asks else value
        return self.of(source) if isinstance(source, fx.Node) else None
