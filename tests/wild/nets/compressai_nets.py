"""compressai: learned image compression."""

from __future__ import annotations

from tests.wild.network import Wild, made, net, positive


def _net(name: str, *widths: int, blocks: tuple[str, ...] = ()) -> Wild:
    maker = made(f"compressai.models.{name}", *widths)
    return net(f"compressai/{name}", maker, positive(1, 3, 64, 64), *blocks)


_CHENG = ("ResidualBlock", "ResidualBlockWithStride", "ResidualBlockUpsample")

NETS = (
    _net("FactorizedPrior", 8, 12),
    _net("FactorizedPriorReLU", 8, 12),
    _net("ScaleHyperprior", 8, 12),
    _net("MeanScaleHyperprior", 8, 12),
    _net("JointAutoregressiveHierarchicalPriors", 8, 12),
    _net("Cheng2020Anchor", 8, blocks=_CHENG),
    # With 8, whose units have four channels inside, ReLUs let nothing through at 4x4 by chance.
    _net("Cheng2020Attention", 16),
    _net("Cheng2020AnchorCheckerboard", 8, blocks=_CHENG),
)
