"""A run of a copy of a model that looks at values inside: where h joins x, and h after a block."""

from __future__ import annotations

import inspect as pyinspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from rlawrap.copying import deep_copy
from rlawrap.errors import PlanError
from rlawrap.splice import RLAModel
from rlawrap.splice.access import checked_parts
from rlawrap.splice.inside import rewritten_in
from rlawrap.splice.record import Splice

#: Of one rewritten network: what is looked at, by the node of its graph that makes it.
Watch = Callable[[RLAModel], Mapping[fx.Node, Any]]
#: Is told the network's path, what the node was watched for, and its value.
See = Callable[[str, Any, Tensor], None]


def parts_of(model: Any, call: str) -> dict[str, RLAModel]:
    """The rewritten networks in a model, by path. Raises `PlanError` where there is none."""
    if not isinstance(model, nn.Module):
        raise PlanError(f"{call}: expected a torch.nn.Module, got {type(model).__name__}.")
    if not rewritten_in(model):
        raise PlanError(
            f"{call}: {type(model).__name__} has no hidden state to look at. "
            "`rlawrap.apply(model)` gives it one (--rla at the command line), and "
            "`rlawrap.show(model)` draws where it would go."
        )
    return checked_parts(model, call, cut=True)


def shown_name(model: nn.Module) -> str:
    """The class of a model, of a rewritten one that of its base."""
    whole = model.rla.splice.base_class if isinstance(model, RLAModel) else type(model)
    return whole.__name__


def quiet_copy(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode whose hidden state runs, also where it is disabled in the model."""
    twin = deep_copy(model).eval()
    for part in rewritten_in(twin).values():
        part.rla.splice.disabled = False
    return twin


def run_watched(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], watch: Watch, see: See
) -> Any:
    """Call a copy of a model in evaluation mode and look at values; returns what the call returns.

    The model is left as it is. Forward hooks of its layers run, as in every call.
    """
    twin = quiet_copy(model)
    for path, part in rewritten_in(twin).items():
        part.__dict__["forward"] = _watched_forward(part, path, watch(part), see)
    with torch.no_grad():
        return twin(*args, **kwargs)


def _watched_forward(
    part: RLAModel, path: str, watched: Mapping[fx.Node, Any], see: See
) -> Callable[..., Any]:
    splice: Splice = part.rla.splice
    signature = pyinspect.signature(splice.programs[False].plain)

    def forward(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(part, *args, **kwargs)
        bound.apply_defaults()
        values = [*bound.args[1:], *bound.kwargs.values()]
        return _Watcher(part, splice.graph, path, watched, see).run(*values)

    return forward


class _Watcher(fx.Interpreter):
    """Runs a graph and shows some of its values as soon as they are there."""

    def __init__(
        self,
        model: nn.Module,
        graph: fx.Graph,
        path: str,
        watched: Mapping[fx.Node, Any],
        see: See,
    ) -> None:
        super().__init__(model, graph=graph)
        # Of a module that has two names the interpreter knows one.
        self.submodules = dict(model.named_modules(remove_duplicate=False))
        self.path, self.watched, self.see = path, watched, see

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n in self.watched and isinstance(value, Tensor):
            self.see(self.path, self.watched[n], value)
        return value
