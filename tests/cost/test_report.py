from __future__ import annotations

import json

from rlawrap.cost.report import Cost, Count, PartCost, format_table


def small() -> Cost:
    stem = PartCost(name="stem", base=Count(params=10, macs=1000), rla=Count())
    stage = PartCost(
        name="stage 0",
        base=Count(params=200, macs=30_000, norm_elements=400, pool_elements=7),
        rla=Count(params=3, macs=50, norm_elements=6),
    )
    return Cost(name="net", input_shape=(1, 3, 8, 8), parts=(stem, stage), thop=31_000)


def test_sums_and_units() -> None:
    result = small()
    assert result.base == Count(params=210, macs=31_000, norm_elements=400, pool_elements=7)
    assert result.total.params == 213
    assert result.total.flops == 62_100
    assert result.total.paper_ops == 31_050 + 2 * 406 + 7


def test_table() -> None:
    lines = str(small()).splitlines()
    assert lines[0] == "net, input 1x3x8x8"
    assert lines[2].split() == (
        "part base params base MACs RLA params RLA MACs sum params sum MACs".split()
    )
    assert lines[4].split() == "stage 0 200 30,000 3 50 203 30,050".split()
    assert lines[6].split() == "total 210 31,000 3 50 213 31,050".split()
    assert [line.split()[0] for line in lines[8:]] == [
        "parameters",
        "MACs",
        "FLOPs",
        "paper's",
        "thop",
    ]


def test_plain_network_has_no_rla_columns() -> None:
    part = PartCost(name="all", base=Count(params=1, macs=2), rla=Count())
    assert "RLA" not in str(Cost(name="net", input_shape=(1, 1, 4), parts=(part,), thop=2))


def test_to_dict_is_json() -> None:
    data = json.loads(json.dumps(small().to_dict()))
    assert data["total"]["paper_ops"] == small().total.paper_ops
    assert [part["name"] for part in data["parts"]] == ["stem", "stage 0"]


def test_format_table_aligns() -> None:
    assert format_table([["a", "10"], ["bcd", "5"]]) == ["a    10", "bcd   5"]
