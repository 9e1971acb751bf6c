"""What a random network is: plain data, which Hypothesis shrinks and a failure prints whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class LayerSpec:
    """How every layer of a network is written."""

    dims: int = 2
    norm: str = "batch"  # batch, group, instance, none
    act: str = "relu"
    inplace: bool = False
    functional_act: bool = False
    #: How a residual join is written: x + y, y += x, torch.add, y.add_(x), the sum of a stack, a
    #: weighted sum (`lerp`, `addcmul`), result dropped, written into a new tensor part by part.
    join: str = "plus"
    bias: bool = False
    weight_norm: str = "none"  # none, parametrized, hook, spectral
    padding_mode: str = "zeros"
    #: Where a convolution's padding stands: own, or what comes before it (paddings.PADDINGS).
    padding: str = "own"


@dataclass(frozen=True, kw_only=True)
class StageSpec:
    """Blocks of one kind; the first changes the channels and the resolution."""

    kind: str = "basic"
    #: sequential; loop: a ModuleList in the network's forward; module: a loop in a stage's own;
    #: joining: a Sequential subclass whose forward adds; inline: residual steps over lists of
    #: layers; gathering: a list of features, concatenated; shared: one block called again; halved:
    #: again, on half the size; steps: Sequentials whose results the network's forward adds; units:
    #: plain Sequentials; layers: layers in a list.
    style: str = "sequential"
    depth: int = 2
    channels: int = 8
    stride: int = 1
    kernel: int = 3
    dilation: int = 1
    groups: int = 1
    gate: str = "none"  # none, se, spatial
    drop: str = "none"  # none, dropout, functional, path, noise, stochastic_depth
    act_after: bool = True
    scaled: bool = False


@dataclass(frozen=True, kw_only=True)
class NetSpec:
    """A whole network, its input and how it answers."""

    layers: LayerSpec = LayerSpec()
    stages: tuple[StageSpec, ...] = (StageSpec(),)
    #: Written as functions of parameters at the root (stage styles and gates then mean nothing).
    functional: bool = False
    size: tuple[int, ...] = (32, 32)
    stem: str = "conv"  # conv, stride, pool, ceil, patch, valid
    decoder: str = "none"  # a U-Net's way up, by how it enlarges (decoders.ENLARGING)
    skips: str = "cat"  # what it does with the stages' outputs: cat, add, none
    head: str = "pool"
    output: str = "tensor"
    arguments: str = "image"
    dtype: str = "float32"
    training: bool = False
    frozen: bool = False
    hooked: bool = False
    alias: bool = False
    give_example: bool = False
    #: Why `apply` refuses it: none, value, drawn, untold, parallel, linear.
    refused: str = "none"
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network and the options to rewrite it with."""

    net: NetSpec
    options: dict[str, Any]
