"""RLAModel: the rewritten network, an `fx.GraphModule` that keeps the base's own module tree."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn

from rlawrap.config import RLAConfig
from rlawrap.plan import Plan
from rlawrap.splice.checkpointing import checkpointed
from rlawrap.splice.hidden import Hidden
from rlawrap.splice.mode_watch import Modes, ModeWatch
from rlawrap.splice.overrides import forward_extra_state, set_mode, sets_modes

if TYPE_CHECKING:
    from typing_extensions import Self

#: Attributes of a base that its users read and that stay true of the rewritten network.
_KEPT_ATTRIBUTES = (
    "num_classes",
    "num_features",
    "head_hidden_size",
    "default_cfg",
    "pretrained_cfg",
    "feature_info",
    "in_channels",
)


#: Ends of the names under which `nn.Module` keeps hooks.
_HOOKS = ("_hooks", "_hooks_with_kwargs", "_hooks_always_called", "_is_full_backward_hook")


class RLAModel(fx.GraphModule):
    """A network with a hidden state along its depth; made by `rlawrap.apply`.

    Its modules are those of the base under their own names, `rla` comes last. `plan` and `config`
    say what was done; where the base has modules of these names, `rla.plan` and `rla.config` do.
    `forward` follows train and eval mode as the base's did.
    """

    rla: Hidden
    plan: Plan
    config: RLAConfig
    #: What `rla` holds and the model shows as its own, where the base has no such name.
    _shown: tuple[str, ...] = ("plan", "config")
    #: False where layers were cut off, so that there is no base to go back to.
    _whole = True

    def __init__(
        self,
        base: nn.Module,
        rla: Hidden,
        graph: fx.Graph,
        train_graph: fx.Graph | None,
        *,
        plan: Plan,
        config: RLAConfig,
        turned: tuple[str, ...] = (),
        settings: dict[str, Any] | None = None,
        modes: Modes | None = None,
    ) -> None:
        # GraphModule copies only what a graph calls, in that order, into bare containers, and
        # fails where a child has the name of an attribute of its own: so it gets an empty graph.
        super().__init__(nn.Module(), fx.Graph(), class_name=type(base).__name__)
        self.__dict__["_modules"] = {**base._modules, "rla": rla}
        self.__dict__["_parameters"] = base._parameters
        self.__dict__["_buffers"] = base._buffers
        self.__dict__["_non_persistent_buffers_set"] = base._non_persistent_buffers_set
        self.__dict__["_graph"] = graph
        graph.owning_module = self
        self.__dict__["_train_graph"] = train_graph
        self.training = base.training
        rla.plan, rla.config = plan, config
        taken = self._give_way()
        for name in self._shown:
            if name not in taken:
                self.__dict__[name] = getattr(rla, name)
        self.__dict__["_base"] = base
        self.__dict__["_turned"] = turned
        self.__dict__["_settings"] = dict(settings or {})
        #: Of a backbone: the base with the layers that were cut off, where its `train` needs them.
        self.__dict__["_uncut"] = None
        self.__dict__["_watch"] = ModeWatch(modes or {})
        self.__dict__["_disabled"] = False
        self.__dict__["_checkpointing"] = False
        for name, value in base.__dict__.items():
            if name.endswith(_HOOKS):
                self.__dict__[name] = copy.copy(value)
        for name in _KEPT_ATTRIBUTES:
            if name not in taken and hasattr(base, name) and not callable(getattr(base, name)):
                self.__dict__[name] = getattr(base, name)
        forward_extra_state(self, base)
        self.recompile()

    def _give_way(self) -> set[str]:
        """Let the base's own names be found in place of GraphModule's; all names the base has."""
        taken: set[str] = set()
        for table in ("_modules", "_parameters", "_buffers"):
            for name in self.__dict__[table]:
                taken.add(name)
                self.__dict__.pop(name, None)
                if name in ("graph", "code"):
                    # Properties come before the tables; the class is this instance's alone, as
                    # that of every GraphModule.
                    setattr(type(self), name, _entry(table, name))
        return taken

    def recompile(self) -> Any:
        """Regenerate `forward`: the graph's code, or one of two graphs by `training`."""
        code = super().recompile()
        cls = type(self)
        spliced: Callable[..., Any] = cls.forward
        trained = spliced
        train_graph = self.__dict__.get("_train_graph")
        if self.__dict__.get("_checkpointing"):
            trained = checkpointed(self._graph if train_graph is None else train_graph, self)
        elif train_graph is not None:
            other = train_graph.python_code(root_module="self")
            namespace = dict(other.globals)
            exec(compile(other.src, "<rlawrap train graph>", "exec"), namespace)
            trained = namespace["forward"]

        if trained is not spliced:
            watch: ModeWatch = self.__dict__["_watch"]
            watch.find(self)
            watching = bool(watch.modes)

            @functools.wraps(spliced)
            def forward(self: RLAModel, *args: Any, **kwargs: Any) -> Any:
                if watching and not torch.compiler.is_compiling():
                    watch.check(self.training)
                if self.training:
                    return trained(self, *args, **kwargs)
                return spliced(self, *args, **kwargs)

            cls.forward = forward  # type: ignore[method-assign]
        return code

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.__dict__["_disabled"]:
            return self._bare_base()(*args, **kwargs)
        return super().__call__(*args, **kwargs)

    def train(self, mode: bool = True) -> Self:
        """Set the mode as the base does: what its own `train` keeps frozen stays so."""
        self.__dict__["_watch"].find(self)
        uncut = self.__dict__["_uncut"]
        base = self._bare_base() if uncut is None else uncut
        if sets_modes(base):
            set_mode(self, base, mode)
            return self
        return super().train(mode)

    def _bare_base(self) -> nn.Module:
        """The base with this model's present modules; shares them and must not be given away."""
        base: nn.Module = self.__dict__["_base"]
        base.__dict__["_modules"] = {n: m for n, m in self._modules.items() if n != "rla"}
        base.__dict__["_parameters"] = self._parameters
        base.__dict__["_buffers"] = self._buffers
        base.training = self.training
        return base

    def __copy__(self) -> RLAModel:
        """Another model of the same modules and tensors."""
        other = type(self).__new__(type(self))
        self._share(other)
        other._give_way()
        other.recompile()
        return other

    def _replicate_for_data_parallel(self) -> RLAModel:
        # GraphModule's own gives a plain GraphModule, which knows nothing of modes; of this class
        # the replica needs no compilation. Its parameters are set as attributes by DataParallel.
        replica: RLAModel = object.__new__(type(self))
        self._share(replica)
        replica.__dict__["_parameters"] = {}
        replica.__dict__["_is_replica"] = True
        return replica

    def _share(self, other: RLAModel) -> None:
        other.__dict__.update(self.__dict__)
        for table in ("_modules", "_parameters", "_buffers"):
            other.__dict__[table] = dict(self.__dict__[table])

    def __deepcopy__(self, memo: dict[int, Any]) -> RLAModel:
        base = copy.deepcopy(self._bare_base(), memo)
        rla = copy.deepcopy(self._modules["rla"], memo)
        train_graph = self.__dict__["_train_graph"]
        cls = next(
            c for c in type(self).__mro__ if "<locals>.GraphModuleImpl" not in c.__qualname__
        )
        twin = cls(
            base,
            rla,  # type: ignore[arg-type]
            copy.deepcopy(self._graph),
            None if train_graph is None else copy.deepcopy(train_graph),
            plan=self.rla.plan,
            config=self.rla.config,
            turned=self.__dict__["_turned"],
            settings=self.__dict__["_settings"],
            modes=self.__dict__["_watch"].modes,
        )
        memo[id(self)] = twin
        self._copy_extras(twin, memo)
        if self.__dict__["_checkpointing"]:
            twin.set_grad_checkpointing()
        return twin

    def _copy_extras(self, twin: RLAModel, memo: dict[int, Any]) -> None:
        """Hooks and attributes that a user set on the model itself."""
        for name, value in self.__dict__.items():
            if name.endswith(("_hooks", "_hooks_with_kwargs")):
                twin.__dict__[name] = copy.copy(value)
            elif name not in twin.__dict__ and not name.startswith("_"):
                twin.__dict__[name] = copy.deepcopy(value, memo)

    def __reduce__(self) -> tuple[Any, ...]:
        from rlawrap.splice.access import unwrap

        extras = {
            n: v
            for n, v in self.__dict__.items()
            if not n.startswith("_") and n not in ("plan", "config", "training", "meta")
        }
        return _rebuild, (
            unwrap(self),
            self._modules["rla"],
            self.rla.plan,
            self.rla.config,
            self.__dict__["_settings"],
            {**extras, "_checkpointing": self.__dict__["_checkpointing"]},
        )

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep only the blocks' inputs for the backward pass and compute the rest again there.

        Less memory for about a third more time in training; outputs, gradients and the norms'
        running statistics are the same. Evaluation is as before.
        """
        self.__dict__["_checkpointing"] = enable
        self.recompile()

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifier, its share of h included, by one of `num_classes` outputs.

        New weights are PyTorch's defaults; where the base's share was an identity, h's stays zero.
        Raises `PlanError` if the network ends in no linear layer (or 1x1 convolution).
        """
        from rlawrap.splice.classifier import replace_classifier

        replace_classifier(self, num_classes)

    def __repr__(self) -> str:
        return nn.Module.__repr__(self)

    def extra_repr(self) -> str:
        plan, config = self.rla.plan, self.rla.config
        return f"k={config.k}, cell={config.cell}, blocks={len(plan.blocks)}"


def _entry(table: str, name: str) -> property:
    """What an instance has in one of `nn.Module`'s tables, as a property."""

    def read(self: nn.Module) -> Any:
        return getattr(self, table)[name]

    return property(read)


def _rebuild(
    base: nn.Module,
    rla: nn.Module,
    plan: Plan,
    config: RLAConfig,
    settings: dict[str, Any],
    extras: dict[str, Any],
) -> RLAModel:
    """Unpickle: rewrite the base again after the same plan and put the saved layers in."""
    from rlawrap.splice.apply import apply

    model = apply(base, plan=plan, config=config, **settings)
    model._modules["rla"] = rla
    model.__dict__.update(extras)
    model.recompile()
    return model
