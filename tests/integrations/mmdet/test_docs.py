"""The Python in docs/mmdet.md: configurations are read and their backbones built, the rest runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "mmdet.md").read_text("utf-8")
FENCES = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)
CONFIGS = [text for text in FENCES if text.startswith("_base_")]


def test_all_fences_are_found() -> None:
    assert (len(FENCES), len(CONFIGS)) == (3, 2)


@pytest.mark.parametrize("text", CONFIGS, ids=["resnet", "generic"])
def test_configurations(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.py").write_text(text)
    model: Any = MODELS.build(Config.fromfile(tmp_path / "config.py").model)
    maps = model.extract_feat(torch.zeros(1, 3, 64, 64))
    assert [m.shape[2] for m in maps] == [8, 4, 2, 1, 1]
    assert model.backbone.rla.splice.config.init == "identity"


def test_other_code() -> None:
    for text in set(FENCES) - set(CONFIGS):
        exec(compile(text, "mmdet.md", "exec"), {})


def test_the_table_names_the_configurations() -> None:
    named = re.findall(r"`((?:faster-rcnn|retinanet|mask-rcnn)_rla[^`]*)`", PAGE)
    files = {path.stem for path in (ROOT / "configs" / "mmdet").glob("*.py")}
    assert {f"{name}_fpn_1x_coco" for name in named} == files
