"""`RLABackbone`: any network by name, with a hidden state, as a backbone of a detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from rlawrap.errors import ConfigError
from rlawrap.integrations.mmdet.base_module import as_base_module
from rlawrap.integrations.mmdet.options import refuse_unknown
from rlawrap.integrations.mmdet.weights import Origin
from rlawrap.networks import build_network
from rlawrap.splice import RLAModel, apply, backbone


def RLABackbone(
    model: str,
    *,
    model_args: Mapping[str, Any] | None = None,
    pretrained: bool = False,
    k: int | None = None,
    rla: Mapping[str, Any] | None = None,
    out_indices: Sequence[int] | None = None,
    frozen_stages: int = -1,
    norm_eval: bool = False,
    with_cp: bool = False,
    init_cfg: Any = None,
    **others: Any,
) -> nn.Module:
    """Any convolutional network as a backbone: an image batch to a tuple of feature maps.

    `model` is a name of rlawrap's, torchvision's or timm's ("torchvision:convnext_tiny",
    "timm:regnety_008"), or a function of your own ("nets.py:small"); `model_args` go to what
    builds it, and `pretrained` takes the weights that torchvision or timm have. `k` (32) and `rla`
    are options of `rlawrap.apply`. `out_indices` are stages of the plan, all by default; a neck's
    `in_channels` are this module's `out_channels`. `frozen_stages`, `norm_eval`, `with_cp` and
    `init_cfg` are as for `RLAResNet`.

    Raises `ConfigError` for an unknown name or option, and what `rlawrap.apply` and
    `rlawrap.backbone` raise.

    >>> net = RLABackbone("torchvision:resnet18", k=8, out_indices=(1, 2, 3))
    >>> net.out_channels
    [128, 256, 512]
    """
    refuse_unknown(RLABackbone, others)
    network = build_network(model, pretrained=pretrained, **(model_args or {}))
    if not isinstance(network, RLAModel):
        # The classifier is cut off, so h need not join it.
        options: dict[str, Any] = {"head": "none", **(rla or {})}
        if k is not None:
            options["k"] = k
        network = apply(network, **options)
    elif k is not None or rla:
        raise ConfigError(
            f"RLABackbone(model={model!r}): has a hidden state already; leave k and rla out. Its "
            "k is an argument of its builder: `model_args=dict(k=16)`."
        )
    net: Any = backbone(
        network,
        out_indices=None if out_indices is None else tuple(out_indices),
        output="tuple",
        frozen_stages=frozen_stages,
        norm_eval=norm_eval,
    )
    if with_cp:
        RLAModel.set_grad_checkpointing(net)
    return as_base_module(net, init_cfg, Origin(frozenset(network.state_dict())))
