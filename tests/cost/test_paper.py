from __future__ import annotations

import pytest

from rlawrap.cost import cost, measure, paper
from rlawrap.cost.paper import PUBLISHED, VARIANTS, PublishedRow, printed_flops, printed_params
from rlawrap.cost.report import Count
from tests.nets import without_init
from tests.official.golden import FACTS

# Parameters, MACs of convolutions and linear layers, elements out of batch norms, at 224x224.
EXACT = {
    "rla_resnet50": (25_870_696, 4_454_648_064, 11_559_296),
    "rla_resnet50_eca": (25_870_782, 4_454_735_872, 11_559_296),
    "rla_resnet101": (45_003_176, 8_334_055_680, 16_783_872),
    "rla_resnet101_eca": (45_003_347, 8_334_230_528, 16_783_872),
    "dsrla_mobilenetv2": (3_624_168, 352_505_728, 8_134_784),
    "dsrla_mobilenetv2_eca": (3_624_199, 352_509_408, 8_134_784),
}

# The variants on ResNet-50: exact counts, and what the released code gives in the paper's units.
EXACT_VARIANTS = {
    "rlav1p_resnet50": (25_870_632, 4_454_648_064, 11_557_728, "24.67M", "4.17G"),
    "rlav2_resnet50": (25_870_696, 4_454_648_064, 11_559_296, "24.67M", "4.17G"),
    "rlaus_resnet50": (26_341_736, 4_454_648_064, 11_559_296, "25.12M", "4.17G"),
    "rlalstm_resnet50": (26_128_680, 5_349_235_968, 11_557_728, "24.92M", "5.00G"),
    "rlagru_resnet50": (26_056_104, 5_093_639_424, 11_557_728, "24.85M", "4.77G"),
    "rlarh_resnet50": (25_749_864, 4_393_634_048, 11_559_296, "24.56M", "4.11G"),
    "resnet50_k": (26_794_280, 4_532_041_408, 11_937_576, "25.55M", "4.24G"),
}


@pytest.fixture(autouse=True)
def no_second_opinion(monkeypatch: pytest.MonkeyPatch) -> None:
    """The count of thop is not looked at here, and takes as long as ours."""
    monkeypatch.setattr(measure, "thop_available", lambda: False)


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row.preset)
def test_published_rows_agree_to_the_last_digit(row: PublishedRow) -> None:
    with without_init():
        total = cost(row.preset, 224).total
    assert (total.params, total.macs, total.norm_elements) == EXACT[row.preset]
    assert printed_params(total) == row.params
    assert printed_flops(total, row.flops) == row.flops


@pytest.mark.parametrize("name", EXACT_VARIANTS)
def test_variants(name: str) -> None:
    with without_init():
        total = cost(name, 224).total
    *exact, params, flops = EXACT_VARIANTS[name]
    assert [total.params, total.macs, total.norm_elements] == exact
    assert (printed_params(total), printed_flops(total)) == (params, flops)
    assert name in VARIANTS


def test_the_exact_counts_are_those_of_the_released_code() -> None:
    for name, (params, macs, norms, *_) in {**EXACT, **EXACT_VARIANTS}.items():
        fact = FACTS[name]
        assert (fact["params"], fact["macs"], fact["norm_elements"]) == (params, macs, norms), name


def test_the_table_says_where_it_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fixed:
        total = Count(params=25_870_696, macs=4_477_799_584)

    monkeypatch.setattr(paper, "cost", lambda name, size: Fixed)
    lines = paper.paper_table().splitlines()
    assert len(lines) == 1 + len(PUBLISHED) + len(VARIANTS)
    assert lines[1].split()[-2:] == ["4.17G", "yes"]
    assert lines[3].split()[-2:] == ["7.79G", "NO"]
