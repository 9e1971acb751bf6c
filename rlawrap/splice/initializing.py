"""`initialize`: values for what `apply` added, once a network made without memory has some."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from rlawrap.design import names
from rlawrap.design.resolve import resolve
from rlawrap.errors import PlanError, RLAWarning
from rlawrap.splice.access import checked_parts
from rlawrap.splice.classes import bare, tables_of
from rlawrap.splice.model import RLAModel
from rlawrap.splice.splicing import hidden_part, move_constants, trace_again


def initialize(model: nn.Module) -> None:
    """Give everything under `rla.` the values that `apply` would give it now, in place.

    For a model made of a base on the meta device, after `model.to_empty(device=...)` or after the
    base's weights were loaded with `assign=True`; what still lies on meta comes to where the base's
    layers are. Of an ordinary model it draws h's layers anew. The base's weights are left alone.
    New weights follow the global random state, as in `apply`, and are the same for the same seed.
    Of a model that holds rewritten networks each gets them.

    Raises `PlanError` for what is no model made by `apply`, or a base that is on meta yet.

    >>> import torch, rlawrap, torchvision
    >>> with torch.device("meta"):
    ...     base = torchvision.models.resnet18()
    >>> model = rlawrap.apply(base, k=8).to_empty(device="cpu")
    >>> weights = torchvision.models.resnet18().state_dict()
    >>> missing = model.load_state_dict(weights, strict=False).missing_keys
    >>> rlawrap.initialize(model)
    >>> bool(model.rla.inject["1"].conv.weight.any())
    False
    """
    parts = checked_parts(model, "initialize(model)")
    for path, part in parts.items():
        _check_base(bare(part), f"{path}." if path else "")
    with torch.random.fork_rng(devices=[]):
        for part in parts.values():
            _initialize(part)


def _initialize(part: RLAModel) -> None:
    splice, base = part.rla.splice, bare(part)
    traced = trace_again(base, splice.settings, "initialize(model)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RLAWarning)  # said by `apply` already
        design = resolve(traced, splice.plan, splice.config)
        made = hidden_part(base, traced, design)
    for flow in (traced.flow, traced.training):
        if flow is not None:
            move_constants(flow.trace, made)
    _fill(part.rla, made)


def _check_base(base: nn.Module, before: str) -> None:
    for name, tensor in (*base.named_parameters(), *base.named_buffers()):
        if tensor.is_meta:
            raise PlanError(
                f"initialize(model): {before + name!r} of the base has no values yet. Call "
                'model.to_empty(device="cpu"), or another device, and '
                "model.load_state_dict(weights_of_the_base, strict=False) first."
            )


def _fill(present: nn.Module, made: nn.Module) -> None:
    """Put the values of a new tree into the present one; what is on meta becomes the new tensor."""
    for path, module in made.named_modules():
        target = present.get_submodule(path)
        for mine, its in zip(tables_of(module)[1:], tables_of(target)[1:], strict=True):
            for name, value in mine.items():
                if value is not None:
                    its[name] = _filled(its[name], value, f"{names.ROOT}.{path}.{name}")


def _filled(present: Tensor, value: Tensor, key: str) -> Tensor:
    if value.is_meta:
        raise PlanError(
            f"initialize(model): {key!r} is a tensor of the base that is no parameter or buffer "
            "and has no values; build the base on a device that has memory, and apply again."
        )
    if not present.is_meta:
        with torch.no_grad():
            return present.copy_(value)
    if isinstance(value, nn.Parameter):
        value.requires_grad_(present.requires_grad)
    return value
