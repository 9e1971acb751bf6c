"""`RLAResNet`: the official detection backbones, in the place of MMDetection's `ResNet`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import nn

from rlawrap.attention import attend
from rlawrap.config import variant
from rlawrap.errors import ConfigError
from rlawrap.integrations.mmdet.base_module import as_base_module
from rlawrap.integrations.mmdet.options import choose, refuse_unknown
from rlawrap.integrations.mmdet.weights import Origin
from rlawrap.models.bases import build_base
from rlawrap.splice import RLAModel, apply, backbone

_STAGES = 4


def RLAResNet(
    depth: int = 50,
    *,
    rla_channel: int = 32,
    attention: Literal["eca", "se"] | None = None,
    num_stages: int = 4,
    strides: Sequence[int] = (1, 2, 2, 2),
    dilations: Sequence[int] = (1, 1, 1, 1),
    out_indices: Sequence[int] = (0, 1, 2, 3),
    style: Literal["pytorch", "caffe"] = "pytorch",
    frozen_stages: int = -1,
    norm_cfg: Mapping[str, Any] | None = None,
    norm_eval: bool = True,
    with_cp: bool = False,
    rla: Mapping[str, Any] | None = None,
    init_cfg: Any = None,
    **others: Any,
) -> nn.Module:
    """The paper's RLA-ResNet as a backbone: (B, 3, H, W) to a tuple of feature maps.

    Its options are those of MMDetection's `ResNet`, so that `type="RLAResNet"` alone changes a
    configuration of one, and: `depth` 50, 101 or 152; `rla_channel`, the channels of h;
    `attention`, ECA (kernels 5, 5, 5, 7) or SE at the end of every residual branch; `rla`, fields
    of `RLAConfig` that differ from the paper's. `frozen_stages=n` freezes the stem and n stages
    with h's layers of these stages, and `norm_eval` keeps every batch norm in evaluation mode.
    `style="caffe"` moves a stage's stride to its first convolution. `with_cp` recomputes blocks in
    the backward pass.

    The module's keys are those of `rlawrap.backbone`. `init_cfg=dict(type="Pretrained",
    checkpoint=...)` takes a path or URL of the official code's weights (a classifier's or a
    detector's), of ours, or of a ResNet's without h ("torchvision://resnet50").

    Raises `ConfigError` for an option that it does not have, or a value that cannot be built.

    >>> import torch
    >>> net = RLAResNet(50, out_indices=(1, 3))
    >>> [tuple(x.shape) for x in net(torch.zeros(1, 3, 64, 64))], net.out_channels
    ([(1, 512, 8, 8), (1, 2048, 2, 2)], [512, 2048])
    """
    refuse_unknown(RLAResNet, others)
    choose("RLAResNet", "depth", depth, (50, 101, 152))
    choose("RLAResNet", "attention", attention, (None, "eca", "se"))
    choose("RLAResNet", "style", style, ("pytorch", "caffe"))
    choose("RLAResNet", "num_stages", num_stages, (_STAGES,))
    _check_norm(norm_cfg)
    whole = build_whole(
        depth=depth,
        attention=attention,
        strides=_numbers("strides", strides),
        dilations=_numbers("dilations", dilations),
        style=style,
        options={"k": rla_channel, **(rla or {})},
    )
    net: Any = backbone(
        whole,
        out_indices=tuple(out_indices),
        output="tuple",
        frozen_stages=frozen_stages,
        norm_eval=norm_eval,
    )
    if with_cp:
        RLAModel.set_grad_checkpointing(net)
    return as_base_module(net, init_cfg, Origin(frozenset(whole.state_dict()), official=True))


def build_whole(
    *,
    depth: int,
    attention: Literal["eca", "se"] | None,
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    style: str,
    options: Mapping[str, Any],
) -> RLAModel:
    """The classifier that the backbone is cut from; its stages are layer1 to layer4 always."""
    base = build_base(f"resnet{depth}")
    layers = [base.get_submodule(f"layer{n}") for n in range(1, _STAGES + 1)]
    for layer, stride, dilation in zip(layers, strides, dilations, strict=True):
        for i, block in enumerate(layer.children()):
            _set_geometry(block, stride if i == 0 else 1, dilation, style)
    if attention is not None:
        base = attend(base, attention)
    # Said, since a stage that keeps its size would join the one before it.
    counts = [len(list(layer.children())) for layer in layers]
    return apply(base, config=variant("rla", **options), stages=counts)


def _set_geometry(block: Any, stride: int, dilation: int, style: str) -> None:
    """Give a bottleneck its stride and dilation; all convolutions of a stage dilate alike."""
    first, second = (stride, 1) if style == "caffe" else (1, stride)
    block.stride = stride
    block.conv1.stride = (first, first)
    block.conv2.stride = (second, second)
    block.conv2.dilation = block.conv2.padding = (dilation, dilation)
    if block.downsample is not None:
        block.downsample[0].stride = (stride, stride)


def _numbers(name: str, values: Any) -> tuple[int, ...]:
    listed = tuple(values) if isinstance(values, Sequence) else ()
    if len(listed) != _STAGES or not all(type(n) is int and n >= 1 for n in listed):
        raise ConfigError(
            f"RLAResNet({name}={values!r}): give a whole number of at least 1 for each of the "
            f"{_STAGES} stages."
        )
    return listed


def _check_norm(norm_cfg: Mapping[str, Any] | None) -> None:
    """MMDetection's default is what is built; anything else would be ignored in silence."""
    if norm_cfg is None or dict(norm_cfg) in (
        {"type": "BN"},
        {"type": "BN", "requires_grad": True},
    ):
        return
    raise ConfigError(
        f"RLAResNet(norm_cfg={dict(norm_cfg)!r}): its norms are batch norms, "
        "`dict(type='BN', requires_grad=True)`. For norms over all processes set "
        "`sync_bn='torch'` in the configuration; to keep them as they are, norm_eval=True."
    )
