from __future__ import annotations

import builtins
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rlawrap
from rlawrap.show.drawing import overlapping
from tests.nets import BlockNet

PLAN = rlawrap.Plan.of(
    "Net<x>",
    [[rlawrap.Block(path="a.b", entries=("a.b.conv",), output="a.b", class_name="B & C")]],
    head=["fc"],
)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = BlockNet(), BlockNet()

    def forward(self, x: Tensor) -> Tensor:
        return self.left(x) + self.right(x)


def test_a_plan_a_base_and_a_rewritten_network_are_drawn() -> None:
    base = BlockNet().eval()
    plans = [
        rlawrap.show(rlawrap.inspect(base)),
        rlawrap.show(base),
        rlawrap.show(rlawrap.apply(base, k=4)),
    ]
    for picture in plans:
        assert "body.2" in picture.svg()
        assert picture.data[""].digest == plans[0].data[""].digest
        assert picture.to_dict()["what"] == "plan"
        assert str(picture).startswith("BlockNet at ")
    assert "h: 4 channels, cell conv" in plans[2].svg()


def test_rewritten_parts_are_drawn_one_below_the_other() -> None:
    model = rlawrap.apply(Two().eval(), k=4, at=["left", "right"])
    picture = rlawrap.show(model)
    assert list(picture.data) == ["left", "right"]
    titles = [t.text for t in picture.drawing.texts if t.bold and t.size == 14]
    assert [title.split(":")[0] for title in titles] == ["left", "right"]
    assert overlapping(picture.drawing) == []


def test_save_writes_what_the_ending_says(tmp_path: Path) -> None:
    picture = rlawrap.show(PLAN, dark=True)
    svg = picture.save(tmp_path / "plan.svg")
    ET.fromstring(svg.read_text(encoding="utf-8"))
    assert svg.read_text(encoding="utf-8") == picture._repr_svg_()
    assert "#14181f" in picture.svg()
    png = picture.save(str(tmp_path / "plan.PNG"))
    assert png.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plan.PNG", "plan.svg"]


def test_notebooks_get_escaped_html() -> None:
    picture = rlawrap.show(PLAN)
    html = picture._repr_html_()
    assert html.startswith("<div") and "<svg" in html
    assert "Net&lt;x&gt;" in html and "B &amp; C" in html and "Net<x>" not in html
    table = PLAN._repr_html_()
    assert "Net&lt;x&gt; at any size: 1 blocks in 1 stages" in table
    assert "<td" in table and "B &amp; C" in table and "head: h joins at fc" in table
    both = rlawrap.Plans({"<left>": PLAN})._repr_html_()
    assert "<h4>&lt;left&gt;</h4>" in both


def test_without_matplotlib_svg_works_and_png_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    picture = rlawrap.show(PLAN)
    picture.save(tmp_path / "a.svg")
    assert picture._repr_png_() is None
    with pytest.raises(rlawrap.RLAError, match=r"pip install 'rlawrap\[show\]'"):
        picture.save(tmp_path / "a.png")
    assert [p.name for p in tmp_path.iterdir()] == ["a.svg"]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m, x: rlawrap.show(m, what="maps"), "ConfigError", "what='maps'; one of 'plan'"),
        (lambda m, x: rlawrap.show(m, x), "ConfigError", "a plan needs no image"),
        (lambda m, x: rlawrap.show(m, what="hidden"), "ConfigError", "needs an image"),
        (lambda m, x: rlawrap.show(m, [x, x], "cam"), "ConfigError", "takes one image, got 2"),
        (lambda m, x: rlawrap.show(m, [], "gates"), "ConfigError", "is an empty list"),
        (lambda m, x: rlawrap.show(m, x, "gates", example_input=x), "ConfigError", "not both"),
        (lambda m, x: rlawrap.show(m, [x, x[:, 1:]], "gates"), "ConfigError", "several sizes"),
        (lambda m, x: rlawrap.show(m.rla.plan, x, "cam"), "PlanError", "a plan does not run"),
        (lambda m, x: rlawrap.show(m.fc, what="gates"), "PlanError", "rlawrap.apply.model.` gives"),
        (lambda m, x: rlawrap.show("resnet18"), "PlanError", "a Plan, got str"),
        (lambda m, x: rlawrap.show("net", x, "hidden"), "PlanError", "expected a torch.nn.Module"),
        (lambda m, x: rlawrap.show(nn.DataParallel(m), what="gates"), "PlanError", "model.module"),
        (lambda m, x: rlawrap.show(m).save("a.jpg"), "ConfigError", "written as .svg or .png"),
        (lambda m, x: rlawrap.show(m).save("none/a.svg"), "RLAError", "cannot be written"),
    ],
)
def test_bad_input_is_told(call: Any, error: str, message: str) -> None:
    model = rlawrap.apply(BlockNet().eval(), k=4)
    with pytest.raises(getattr(rlawrap, error), match=message):
        call(model, torch.randn(3, 16, 16))
