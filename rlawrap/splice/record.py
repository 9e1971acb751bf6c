"""`Splice`: the one record of what a rewrite did, at `model.rla.splice`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import fx, nn

from rlawrap.config import RLAConfig
from rlawrap.plan import Plan
from rlawrap.splice.feature_info import FeatureInfos
from rlawrap.splice.frozen import Frozen
from rlawrap.splice.hooks import has_own_hooks
from rlawrap.splice.mode_watch import ModeWatch
from rlawrap.splice.program import Form, Forward, Program


@dataclass(frozen=True)
class Settings:
    """How the base was traced, so that it can be traced so again."""

    leaf_modules: tuple[type | str, ...] = ()
    example_input: Any = None
    #: The layers that h joins at the end, also where they are gone at present.
    head: tuple[str, ...] = ()
    #: The paths that `head=` names them by, if it does.
    named: tuple[str, ...] = ()


@dataclass(frozen=True)
class Maps:
    """What a backbone returns, and how it is kept in `train()`."""

    infos: FeatureInfos
    #: The base with the layers that were cut off, on the meta device, where its own `train` needs
    #: them.
    uncut: nn.Module | None = None
    #: Paths of modules that stay in evaluation mode.
    still: frozenset[str] = frozenset()


@dataclass
class Splice:
    """What was done to a network, and how it runs now.

    Of the fields only `disabled`, `checkpointing`, `frozen` and `watch` belong to one model; all
    others are shared by its copies.
    """

    plan: Plan
    config: RLAConfig
    settings: Settings
    #: The network's class before the rewrite.
    base_class: type[nn.Module]
    #: By mode; one program may serve both.
    programs: Mapping[bool, Program]
    #: Whether a network has hooks on modules that its program does not call.
    has_hooks: Callable[[nn.Module], bool]
    #: Whether layers that its programs call otherwise than they are written have hooks or changed.
    is_changed: Callable[[nn.Module], bool]
    watch: ModeWatch
    #: Makes the model anew from its base; what a pickle of it calls.
    rebuild: Callable[..., nn.Module]
    #: Paths of modules that h runs through, which tell who calls them alone.
    guarded: tuple[str, ...] = ()
    #: Paths of modules whose `inplace` was turned off.
    turned: tuple[str, ...] = ()
    maps: Maps | None = None
    disabled: bool = False
    checkpointing: bool = False
    #: What `freeze_base` froze, while it is frozen.
    frozen: Frozen | None = None
    #: Forwards of train mode that keep the blocks' inputs only.
    checkpointed: Mapping[Form, Forward] = field(default_factory=dict)

    @property
    def graph(self) -> fx.Graph:
        """The graph of evaluation mode; `programs[True].graph` is that of train mode."""
        return self.programs[False].graph

    def function(self, model: nn.Module) -> Forward:
        """The function that computes `model` now."""
        form = self.form(model)
        if model.training and self.checkpointing:
            return self.checkpointed[form]
        return self.programs[model.training].function(form)

    def form(self, model: nn.Module) -> Form:
        """In which form a program runs now: its hooks, or those of its layers, decide."""
        if self.has_hooks(model):
            return "hooked"
        return "written" if self.is_changed(model) else "spared"

    def hooked(self, model: nn.Module) -> list[str]:
        """Paths of blocks and stages, whose calls the graph has dissolved, that have hooks."""
        modules = dict(model.named_modules(remove_duplicate=False))
        points = dict.fromkeys(p.path for program in self.programs.values() for p in program.points)
        return [path for path in points if path in modules and has_own_hooks(modules[path])]

    def written(self, model: nn.Module) -> Forward:
        """The function of the graph as it was written, layer by layer, for those who trace it."""
        form: Form = "hooked" if self.has_hooks(model) else "written"
        return self.programs[model.training].function(form)

    def for_copy(self) -> Splice:
        """A record for another model of the same programs."""
        return replace(self, watch=ModeWatch(self.watch.modes))

    def __reduce__(self) -> Any:
        # A pickled model is rewritten again when it is loaded, and makes its own record.
        return type(None), ()

    def __deepcopy__(self, memo: dict[int, Any]) -> Splice:
        twin = self.for_copy()
        memo[id(self)] = twin
        if self.maps is not None:
            twin.maps = replace(self.maps, uncut=copy.deepcopy(self.maps.uncut, memo))
        return twin
