"""Inputs to try a network with: the shapes, and fake tensors of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from rlawrap._torch import ConvNd
from rlawrap.capture.shadow import device_and_dtype
from rlawrap.capture.trace import Trace
from rlawrap.errors import PlanError

Shape = tuple[int, ...]


def first_input_channels(model: nn.Module) -> tuple[int, int]:
    """(channels, spatial dimensions) that the first convolution of a network reads.

    Without convolution modules, the first parameter of a kernel's shape is taken for its weight.
    """
    for module in model.modules():
        if isinstance(module, ConvNd):
            return module.in_channels, len(module.kernel_size)
    for parameter in model.parameters():
        if 3 <= parameter.dim() <= 5:
            return parameter.shape[1], parameter.dim() - 2
    raise PlanError(
        f"{type(model).__name__} holds no convolution: no such module, and no parameter of a "
        "kernel's shape. Pass example_input= if its forward makes its kernels otherwise."
    )


def candidate_inputs(model: nn.Module) -> list[Shape]:
    """Input shapes to try in turn: the network's own first, then sizes in common use."""
    config = getattr(model, "default_cfg", None) or getattr(model, "pretrained_cfg", None)
    own = config.get("input_size") if isinstance(config, Mapping) else None
    shapes: list[Shape] = [(2, *map(int, own))] if own else []
    channels, dims = first_input_channels(model)
    sizes = {
        1: (1024, 256, 128, 4096, 16000, 64),
        2: (224, 32, 64, 28, 96, 128, 299, 256, 331, 384, 16, 48, 512),
        3: (112, 224, 32, 64, 16),
    }[dims]
    for size in sizes:
        depth = (16,) if dims == 3 else ()
        shapes.append((2, channels, *depth, *(size,) * (dims - len(depth))))
    return list(dict.fromkeys(shapes))


def probes_of(shape: Shape) -> list[Shape]:
    """The shape itself, one larger with unlike sides, and two odd ones."""
    spatial = shape[2:]
    step = 32 if min(spatial) >= 64 or len(spatial) == 1 else 8
    larger = tuple(n + step * (i + 1) for i, n in enumerate(spatial))
    odd = tuple(n + step + 5 + 2 * i if n % 2 == 0 else n + step + 4 for i, n in enumerate(spatial))
    odder = tuple(n + step // 2 + 3 + 4 * i for i, n in enumerate(spatial))
    return [shape, *((*shape[:2], *s) for s in (larger, odd, odder))]


def fake_inputs(trace: Trace, example: Any, shape: Shape | None) -> dict[str, Any]:
    """Values for the graph's placeholders, by name, as fake tensors."""
    names = [n.target for n in trace.graph.nodes if n.op == "placeholder"]
    device, dtype = device_and_dtype(trace.root)
    values: dict[str, Any] = {}
    if example is None:
        if not names or shape is None:
            raise PlanError(
                "the network takes no input that could be an image; pass example_input=."
            )
        with trace.fake_mode:
            values[str(names[0])] = torch.empty(shape, device=device, dtype=dtype)
        return values
    if isinstance(example, Mapping):
        given = dict(example)
    else:
        items = example if isinstance(example, (tuple, list)) else (example,)
        if len(items) > len(names):
            raise PlanError(f"example_input= has {len(items)} values, the network takes {names}.")
        given = dict(zip(map(str, names), items, strict=False))
    unknown = sorted(set(given) - set(map(str, names)))
    if unknown:
        raise PlanError(f"example_input= has no place for {unknown}; the network takes {names}.")
    for name, value in given.items():
        if isinstance(value, torch.Tensor):
            if shape is not None and value.dim() == len(shape) and value.dim() > 2:
                with trace.fake_mode:
                    new = (value.shape[0], value.shape[1], *shape[2:])
                    values[name] = torch.empty(new, device=value.device, dtype=value.dtype)
            else:
                values[name] = trace.fake_mode.from_tensor(value.detach())
        else:
            values[name] = value
    return values


def image_of(example: Any) -> torch.Tensor:
    """The tensor of an example input that is taken for the image."""
    items: Sequence[Any]
    items = list(example.values()) if isinstance(example, Mapping) else example
    items = items if isinstance(items, (tuple, list)) else [items]
    tensors = [t for t in items if isinstance(t, torch.Tensor) and t.dim() >= 3]
    if not tensors:
        raise PlanError(
            "example_input= holds no tensor of (batch, channels, length) or more dimensions. Where "
            "the network adds the channels itself, rewrite the part behind that alone, like "
            "model.backbone = rlawrap.apply(model.backbone)."
        )
    return tensors[0]
