"""The weights of rlawrap's networks for the concatenation networks, which hold them joined."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from benchmarks.speed.concatenation import (
    MOBILENET_ROWS,
    RESNET_STAGES,
    RLAMobileNetV2,
    RLAResNet,
)

State = Mapping[str, Tensor]
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def concatenation(name: str, ours: nn.Module) -> nn.Module | None:
    """The concatenation network that computes what `ours`, of `nets.NETS[name]`, computes.

    None where there is none of that name. It is in the mode that `ours` is in.
    """
    state = ours.state_dict()
    model: nn.Module
    if name in RESNET_STAGES:
        model = RLAResNet(name, _k(state))
        mapped = _resnet(name, state)
    elif name == "mobilenet_v2":
        model = RLAMobileNetV2(_k(state))
        mapped = _mobilenet(state)
    else:
        return None
    model.load_state_dict(mapped)
    return model.train(ours.training)


def _k(state: State) -> int:
    return len(state["rla.head.norm.weight"])


def _renamed(state: State, old: str, new: str) -> dict[str, Tensor]:
    """What lies under `old`, under `new`."""
    size = len(old)
    return {new + name[size:]: value for name, value in state.items() if name.startswith(old + ".")}


def _joined(state: State, *names: str, dim: int = 0) -> Tensor:
    """x's and h's shares of one weight."""
    return torch.cat([state[name] for name in names], dim)


def _update(state: State, index: int, channels: int, cell: int) -> dict[str, Tensor]:
    reduce = next(n for n in state if n.startswith("rla.input.") and f"_{channels}." in n)
    return {
        f"updates.{index}.reduce.weight": state[reduce],
        f"updates.{index}.spread.weight": state[f"rla.cell.{cell}.conv.weight"],
        **_renamed(state, f"rla.block.{index}.norm", f"updates.{index}.norm"),
    }


def _resnet(name: str, state: State) -> dict[str, Tensor]:
    mapped = _renamed(state, "conv1", "conv1") | _renamed(state, "bn1", "bn1")
    index = 0
    for stage, (count, planes, _) in enumerate(RESNET_STAGES[name]):
        for position in range(count):
            block = f"layer{stage + 1}.{position}"
            mapped |= _renamed(state, block, f"blocks.{index}")
            mapped[f"blocks.{index}.conv1.weight"] = _joined(
                state, f"{block}.conv1.weight", f"rla.inject.{index}.conv.weight", dim=1
            )
            mapped |= _update(state, index, 4 * planes, stage)
            index += 1
    mapped |= _renamed(state, "rla.head.norm", "norm")
    mapped["fc.weight"] = _joined(state, "fc.weight", "rla.head.join.0.linear.weight", dim=1)
    mapped["fc.bias"] = state["fc.bias"]
    return mapped


def _mobilenet(state: State) -> dict[str, Tensor]:
    mapped: dict[str, Tensor] = {}
    for at in (0, 1):
        mapped |= _renamed(state, f"features.0.{at}", f"stem.{at}")
    index = 0
    for expansion, out, count, _ in MOBILENET_ROWS:
        for _ in range(count):
            mapped |= _inverted(state, index, expansion) | _update(state, index, out, 0)
            index += 1
    mapped |= _renamed(state, "rla.head.norm", "norm")
    mapped["last.0.weight"] = _joined(
        state, "features.18.0.weight", "rla.head.join.0.conv.weight", dim=1
    )
    mapped |= _renamed(state, "features.18.1", "last.1")
    return mapped | _renamed(state, "classifier.1", "fc")


def _inverted(state: State, index: int, expansion: int) -> dict[str, Tensor]:
    """Of one block; torchvision numbers its layers, one more where there is an expansion."""
    block, inject = f"features.{index + 1}.conv", f"rla.inject.{index}"
    own, at = f"blocks.{index}", 0
    mapped: dict[str, Tensor] = {}
    if expansion != 1:
        mapped |= _renamed(state, f"{block}.0.0", f"{own}.expand.0")
        mapped |= _renamed(state, f"{block}.0.1", f"{own}.expand.1")
        at = 1
    mapped[f"{own}.depthwise.weight"] = _joined(
        state, f"{block}.{at}.0.weight", f"{inject}.depthwise.weight"
    )
    for name in NORM:
        beside, share = state[f"{block}.{at}.1.{name}"], state[f"{inject}.norm.{name}"]
        mapped[f"{own}.bn.{name}"] = torch.cat([beside, share]) if beside.dim() else beside
    mapped[f"{own}.project.weight"] = _joined(
        state, f"{block}.{at + 1}.weight", f"{inject}.conv.weight", dim=1
    )
    return mapped | _renamed(state, f"{block}.{at + 2}", f"{own}.project_bn")
