"""RLAModel: what every rewritten network is, beside an instance of its own base's class."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import nn

from rlawrap._torch import COMPILED_CALL
from rlawrap.capture.bound import unbind
from rlawrap.copying import deep_copy
from rlawrap.design.names import ROOT
from rlawrap.splice.checkpointing import checkpointed
from rlawrap.splice.classes import bare_copy, copies_itself, copy_under_way, dress, plain_copy
from rlawrap.splice.classifier import replace_classifier
from rlawrap.splice.frozen import keep_still
from rlawrap.splice.hidden import Hidden
from rlawrap.splice.inplace import turn_back
from rlawrap.splice.program import Form

if TYPE_CHECKING:
    from typing_extensions import Self


class RLAModel(nn.Module):
    """A network with a hidden state along its depth; made by `rlawrap.apply`.

    It is an instance of the base's class too, with the base's modules, attributes and methods. Its
    last child, `rla`, holds what was added, and `rla.splice` is the record of what was done. `plan`
    and `config` are shown here as well, where the base has nothing of these names.
    """

    rla: Hidden

    def __init_subclass__(cls, **settings: Any) -> None:
        """Pass nothing on: registries of a base's subclasses are for classes that someone wrote."""

    def train(self, mode: bool = True) -> Self:
        """Set the mode as the base does: what its own `train` keeps frozen stays so.

        So does what `freeze_base` or a backbone froze.
        """
        maps = self.rla.splice.maps
        if maps is not None and maps.uncut is not None:
            maps.uncut.train(mode)
            self._follow(maps.uncut)
        else:
            super().train(mode)
        self.rla.train(mode)
        keep_still(self)
        self.rla.splice.watch.find(self)
        return self

    def eval(self) -> Self:
        """Set evaluation mode as the base does."""
        maps = self.rla.splice.maps
        if maps is not None and maps.uncut is not None:
            maps.uncut.eval()
            self._follow(maps.uncut)
        else:
            super().eval()
        self.rla.train(False)
        self.rla.splice.watch.find(self)
        return self

    def _follow(self, network: nn.Module) -> None:
        """Take over the modes of a network of which this is a part."""
        modes = {path: m.training for path, m in network.named_modules(remove_duplicate=False)}
        for path, module in self.named_modules(remove_duplicate=False):
            if path in modes:
                module.training = modes[path]

    def to_empty(self, *, device: Any, recurse: bool = True) -> Self:
        """Move to a device without values; those of h are not a number until they are given.

        `rlawrap.initialize(model)` gives them.
        """
        super().to_empty(device=device, recurse=recurse)
        with torch.no_grad():
            for tensor in (*self.rla.parameters(), *self.rla.buffers()) if recurse else ():
                if tensor.is_floating_point():
                    tensor.fill_(math.nan)
        return self

    def __copy__(self) -> Self:
        """Another model of the same modules and tensors."""
        twin = object.__new__(type(self))
        twin.__dict__.update({n: v for n, v in self.__dict__.items() if n != COMPILED_CALL})
        for table in ("_modules", "_parameters", "_buffers"):
            twin.__dict__[table] = dict(self.__dict__[table])
        rla = object.__new__(type(self.rla))
        rla.__dict__.update(self.rla.__dict__)
        rla.splice = self.rla.splice.for_copy()
        twin._modules[ROOT] = rla
        twin.rla.splice.watch.find(twin)
        return twin

    def __deepcopy__(self, memo: dict[Any, Any]) -> Self:
        found: Self | None = copy_under_way(self, memo)
        if found is not None:
            return found
        if copies_itself(self.rla.splice.base_class):
            twin = dress(bare_copy(self, memo), deep_copy(self.rla, memo), type(self))
            memo[id(self)] = twin
            return twin
        twin = object.__new__(type(self))
        memo[id(self)] = twin
        state = {n: v for n, v in self.__dict__.items() if n != COMPILED_CALL}
        twin.__dict__.update(deep_copy(state, memo))
        twin.rla.splice.watch.find(twin)
        return twin

    def __reduce__(self) -> tuple[Any, ...]:
        splice = self.rla.splice
        # The copy has the tensors themselves: one that a model around this ties stays tied.
        tensors: dict[int, Any] = {id(t): t for t in (*self.parameters(), *self.buffers())}
        base = plain_copy(self, tensors)
        # As the user had them: the rewrite turns them off again, and remembers which they were.
        turn_back(base, splice.turned)
        bound = unbind(base)
        return splice.rebuild, (
            base,
            self.rla,
            splice.plan,
            splice.config,
            splice.settings,
            splice.checkpointing,
            splice.frozen,
            bound,
        )

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.__reduce__()

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep only the blocks' inputs for the backward pass and compute the rest again there.

        Less memory for about a third more time in training; outputs, gradients and the norms'
        running statistics are the same. Evaluation is as before.
        """
        splice = self.rla.splice
        if enable:
            program = splice.programs[True]
            forms = get_args(Form)
            splice.checkpointed = {f: checkpointed(program.graph_of(f), self) for f in forms}
        splice.checkpointing = enable

    def reset_classifier(self, num_classes: int, *args: Any, **kwargs: Any) -> None:
        """Replace the classifier, its share of h included, by one of `num_classes` outputs.

        Further arguments are those of the base's own `reset_classifier`, where it has one; else
        `head=` says which layer, or layers, where several make an output each. New weights are
        PyTorch's defaults; where the base's share was an identity, h's stays zero. With 0 classes
        the network returns its features. Raises `PlanError` if the network ends in no linear layer
        or convolution of torch's own, or in several of which none is named.
        """
        replace_classifier(self, num_classes, args, kwargs)

    def extra_repr(self) -> str:
        """The base's own line, and one on h and on how many parameters learn."""
        splice = self.rla.splice
        base = super().extra_repr()
        k, cell, blocks = splice.config.k, splice.config.cell, len(splice.plan.blocks)
        learning = sum(p.numel() for p in self.parameters() if p.requires_grad)
        whole = sum(p.numel() for p in self.parameters())
        ours = f"h: k={k}, cell={cell}, blocks={blocks}, trainable {learning:,} of {whole:,}"
        return f"{base}, {ours}" if base else ours
