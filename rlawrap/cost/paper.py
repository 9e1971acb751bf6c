"""The published ImageNet table of RLA-Net, recomputed beside what was printed.

Zhao, Fang, Li, "Recurrence along depth", NeurIPS 2021: parameters in units of 2**20, and as FLOPs
the count of `Count.paper_ops` in units of 2**30 (2**20 for MobileNetV2), at 224x224.
"""

from __future__ import annotations

from dataclasses import dataclass

from rlawrap.cost.measure import cost
from rlawrap.cost.report import GI, MI, Count, format_table

IMAGE_SIZE = 224


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """A row of the table as it was printed, and the preset that it belongs to."""

    model: str
    preset: str
    params: str
    flops: str


PUBLISHED = (
    PublishedRow(model="RLA-ResNet50", preset="rla_resnet50", params="24.67M", flops="4.17G"),
    PublishedRow(model="RLA-ECANet50", preset="rla_resnet50_eca", params="24.67M", flops="4.18G"),
    PublishedRow(model="RLA-ResNet101", preset="rla_resnet101", params="42.92M", flops="7.79G"),
    PublishedRow(model="RLA-ECANet101", preset="rla_resnet101_eca", params="42.92M", flops="7.80G"),
    PublishedRow(
        model="RLA-MobileNetV2", preset="dsrla_mobilenetv2", params="3.46M", flops="351.8M"
    ),
    PublishedRow(
        model="RLA-ECA-MobileNetV2", preset="dsrla_mobilenetv2_eca", params="3.46M", flops="352.4M"
    ),
)

# Variants of the module on ResNet-50; the paper's table has no row for them.
VARIANTS = (
    "rlav1_resnet50",
    "rlav2_resnet50",
    "rlav3_resnet50",
    "rlav4_resnet50",
    "rlav5_resnet50",
    "rlav6_resnet50",
    "rlav1p_resnet50",
    "rlaus_resnet50",
    "rlalstm_resnet50",
    "rlagru_resnet50",
    "rlarh_resnet50",
    "resnet50_k",
)


def printed_params(count: Count) -> str:
    """Parameters as the paper prints them.

    >>> printed_params(Count(params=25_870_696))
    '24.67M'
    """
    return f"{count.params / MI:.2f}M"


def printed_flops(count: Count, like: str = "G") -> str:
    """Operations as the paper prints them: in 2**30 with two decimals, or in 2**20 with one.

    >>> printed_flops(Count(macs=4_477_866_656))
    '4.17G'
    >>> printed_flops(Count(macs=368_908_576), like="351.8M")
    '351.8M'
    """
    if like.endswith("M"):
        return f"{count.paper_ops / MI:.1f}M"
    return f"{count.paper_ops / GI:.2f}G"


def paper_table() -> str:
    """The six published rows and the variants on ResNet-50, with exact integers."""
    rows = [
        ["model", "params", "/2^20", "printed", "MACs", "paper's count", "/2^30", "printed", "same"]
    ]
    for published in PUBLISHED:
        total = cost(published.preset, IMAGE_SIZE).total
        ours = (printed_params(total), printed_flops(total, published.flops))
        same = ours == (published.params, published.flops)
        rows.append(
            [
                f"{published.model} ({published.preset})",
                f"{total.params:,}",
                ours[0],
                published.params,
                f"{total.macs:,}",
                f"{total.paper_ops:,}",
                ours[1],
                published.flops,
                "yes" if same else "NO",
            ]
        )
    for name in VARIANTS:
        total = cost(name, IMAGE_SIZE).total
        rows.append(
            [
                name,
                f"{total.params:,}",
                printed_params(total),
                "",
                f"{total.macs:,}",
                f"{total.paper_ops:,}",
                printed_flops(total),
                "",
                "",
            ]
        )
    return "\n".join(format_table(rows))
