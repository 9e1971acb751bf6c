"""What network an official state dict is of, read off its names and shapes.

For messages, so that a checkpoint of another depth is told by its depth and not by the hundreds of
tensors that do not fit; and for conversions, which build the network that a file is of.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Shapes = Mapping[str, Sequence[int]]

#: Blocks a stage of the ResNets that have a name.
DEPTHS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3), "resnet152": (3, 8, 36, 3)}

_BLOCK = re.compile(r"(?:stages\.|layer)(\d+)\.(\d+)\.")
_FIRST = "stages.0.0."


@dataclass(frozen=True, kw_only=True)
class Structure:
    """A network by its official tensors.

    blocks: of each stage (of a MobileNetV2, of each row). k: channels of h, None without one.
    kernels: size of the ECA convolution by the channels of a block. groups, width: of conv2 in the
    first block. classes: of the classifier, None without one.
    """

    family: Literal["ResNet", "MobileNetV2"]
    blocks: tuple[int, ...]
    k: int | None = None
    attention: Literal["eca", "se"] | None = None
    kernels: tuple[tuple[int, int], ...] = ()
    groups: int = 1
    width: int = 64
    classes: int | None = None


def structure_of(shapes: Shapes) -> Structure | None:
    """The network that official (or torchvision's) names and shapes are of; None for any other.

    >>> structure_of({"stages.0.0.conv1.weight": [64, 72, 1, 1], "conv_outs.0.weight": [8, 256]}).k
    8
    """
    counts: dict[int, set[int]] = {}
    for key in shapes:
        found = _BLOCK.match(key)
        if found:
            counts.setdefault(int(found[1]), set()).add(int(found[2]))
    if not counts:
        return None
    mobile = f"{_FIRST}conv.0.0.weight" in shapes
    k = shapes.get("conv_outs.0.weight") or shapes.get(f"{_FIRST}conv_out.weight")
    kernels = {
        int(shapes[key.replace("eca.conv", "conv3")][0]): int(shape[-1])
        for key, shape in shapes.items()
        if key.endswith("eca.conv.weight") and key.replace("eca.conv", "conv3") in shapes
    }
    has_se = any(".se." in key for key in shapes)
    conv2 = shapes.get(f"{_FIRST}conv2.weight", (64, 64))
    return Structure(
        family="MobileNetV2" if mobile else "ResNet",
        blocks=tuple(len(counts[n]) for n in sorted(counts)),
        k=int(k[0]) if k else None,
        attention="eca" if kernels else "se" if has_se else None,
        kernels=tuple(sorted(kernels.items())),
        groups=int(conv2[0] // conv2[1]),
        width=int(conv2[1]),
        classes=int(shapes["fc.weight"][0]) if "fc.weight" in shapes else None,
    )


def difference(found: Structure | None, wanted: Structure | None) -> str:
    """In what two networks differ, as a sentence about the first; empty where in nothing.

    >>> difference(Structure(family="ResNet", blocks=(3, 4, 23, 3), k=32),
    ...            Structure(family="ResNet", blocks=(3, 4, 6, 3), k=32))
    'it has stages of 3, 4, 23, 3 blocks, the model of 3, 4, 6, 3'
    """
    if found is None or wanted is None:
        return ""
    if found.family != wanted.family:
        return f"it is of a {found.family}, the model is a {wanted.family}"
    told = []
    if found.blocks != wanted.blocks:
        told.append(f"has stages of {_listed(found.blocks)} blocks, the model of "
                    f"{_listed(wanted.blocks)}")  # fmt: skip
    if found.k != wanted.k:
        told.append(f"has {_hidden(found.k)}, the model {_hidden(wanted.k)}")
    if found.attention != wanted.attention:
        told.append(f"has {_gate(found.attention)}, the model {_gate(wanted.attention)}")
    return "it " + " and ".join(told) if told else ""


def build_call(found: Structure, *, backbone: bool) -> str:
    """The call that builds an RLA-ResNet of this structure, as the official default has it.

    >>> build_call(Structure(family="ResNet", blocks=(3, 4, 23, 3), k=32), backbone=True)
    'rlawrap.backbone(rlawrap.models.rla_resnet101())'
    """
    depth = next((name for name, blocks in DEPTHS.items() if blocks == found.blocks), None)
    options = [] if found.k == 32 else [f"k={found.k}"]
    counted = [] if backbone or found.classes in (None, 1000) else [f"num_classes={found.classes}"]
    plain = (found.groups, found.width) == (1, 64)
    if depth and plain and found.attention != "se":
        suffix = "_eca" if found.attention else ""
        call = f"rlawrap.models.rla_{depth}{suffix}({', '.join(options + counted)})"
    else:
        wide = [] if plain else [f"groups={found.groups}", f"width_per_group={found.width}"]
        given = ["torchvision.models.resnet.Bottleneck", str(list(found.blocks)), *wide, *counted]
        base = f"torchvision.models.ResNet({', '.join(given)})"
        if found.attention:
            base = f'rlawrap.attend({base}, "{found.attention}")'
        config = ", ".join(['"rla"', *options])
        call = f"rlawrap.apply({base}, config=rlawrap.variant({config}))"
    return f"rlawrap.backbone({call})" if backbone else call


def _listed(blocks: Sequence[int]) -> str:
    return ", ".join(map(str, blocks))


def _hidden(k: int | None) -> str:
    return "no hidden state" if k is None else f"k = {k}"


def _gate(attention: str | None) -> str:
    return attention.upper() if attention else "no attention"
