"""A feature pyramid over a rewritten network, as torchvision's detectors take it."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool

from rlawrap.errors import ConfigError, PlanError
from rlawrap.splice import RLAModel, backbone
from rlawrap.splice.backbone import Backbone


class Pyramid(nn.Module):
    """The maps of a backbone, brought to one width by a feature pyramid network.

    As in torchvision's `BackboneWithFPN` the parts are `body` and `fpn`, and `out_channels` is the
    width. `strides` are those of the maps of `body`; the blocks behind them halve further.
    """

    def __init__(
        self, body: Backbone, out_channels: int = 256, extra_blocks: ExtraFPNBlock | None = None
    ) -> None:
        super().__init__()
        self.body = body
        infos = body.rla.feature_info
        self.fpn = FeaturePyramidNetwork(
            infos.channels(), out_channels, extra_blocks or LastLevelMaxPool()
        )
        self.out_channels = out_channels
        self.strides = infos.reduction()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (N, C, H, W) to maps of `out_channels` by name, the finest first."""
        maps: dict[str, Tensor] = self.fpn(self.body(x))
        return maps


def pyramid(
    model: nn.Module,
    *,
    finest: int = 4,
    trainable_layers: int | None = None,
    norm_eval: bool = False,
    out_channels: int = 256,
    extra_blocks: ExtraFPNBlock | None = None,
) -> Pyramid:
    """A feature pyramid over the stages of a rewritten network whose stride is `finest` or more.

    trainable_layers: as in torchvision, how many stages learn, counted from the last, and one more
    for the stem; None: all. A frozen stage's path of h is frozen, too. norm_eval: all norms of
    the network keep their statistics.

    Raises `PlanError` where no stage is that coarse or one has no stride, `ConfigError` for
    `trainable_layers` out of range.

    >>> import rlawrap, torch, torchvision
    >>> model = rlawrap.apply(torchvision.models.resnet18(), k=4)
    >>> maps = pyramid(model, out_channels=64)(torch.randn(1, 3, 64, 64))
    >>> {name: tuple(m.shape[1:]) for name, m in maps.items()}  # doctest: +NORMALIZE_WHITESPACE
    {'0': (64, 16, 16), '1': (64, 8, 8), '2': (64, 4, 4), '3': (64, 2, 2), 'pool': (64, 1, 1)}
    """
    body = coarse_maps(model, finest=finest, trainable_layers=trainable_layers, norm_eval=norm_eval)
    return Pyramid(body, out_channels, extra_blocks)


def coarse_maps(
    model: nn.Module, *, finest: int, trainable_layers: int | None, norm_eval: bool
) -> Backbone:
    """The backbone of a pyramid: the maps whose stride is `finest` or more."""
    whole = cast(Backbone, backbone(model))
    infos = whole.rla.feature_info
    wanted = [i for i, stride in enumerate(infos.reduction()) if stride >= finest]
    if not wanted:
        raise PlanError(
            f"a pyramid of strides from {finest} on: the stages of {_name(model)} have strides "
            f"{infos.reduction()}. Take a network that halves its image more often."
        )
    if len(infos[0].size) != 2:
        raise PlanError(
            f"a pyramid takes maps of images, {_name(model)} has {len(infos[0].size)} axes."
        )
    frozen = _frozen_stages(trainable_layers, len(infos))
    if len(wanted) == len(infos) and frozen == -1 and not norm_eval:
        return whole
    body = backbone(model, out_indices=wanted, frozen_stages=frozen, norm_eval=norm_eval)
    return cast(Backbone, body)


def _frozen_stages(trainable_layers: int | None, stages: int) -> int:
    """torchvision counts what learns, from the last stage on; `backbone` what is frozen."""
    if trainable_layers is None:
        return -1
    if not isinstance(trainable_layers, int) or not 0 <= trainable_layers <= stages + 1:
        raise ConfigError(
            f"trainable_layers={trainable_layers!r}: the network has {stages} stages and a stem; "
            f"give 0 to {stages + 1}."
        )
    return stages - trainable_layers


def _name(model: nn.Module) -> str:
    return model.rla.plan.model if isinstance(model, RLAModel) else type(model).__name__
