"""The lists, the calls that the sweep makes, and the page; no package of the lists is needed."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from tests.nets import Residual, Small
from tests.wild.inputs import grown, one_more
from tests.wild.network import Wild, found, image, made, net, several
from tests.wild.report import other_output, state, write_report
from tests.wild.soundness import check, named_part
from tests.wild.sweep import all_nets


def small(**options: object) -> Wild:
    return net("own/small", lambda: Small(Residual(8, 8), Residual(8, 8)), image(2, 3, 16, 16),
               "Residual", **options)  # fmt: skip


def test_each_network_of_the_lists_has_a_name_of_its_own_and_a_package() -> None:
    nets = all_nets()
    assert len({n.name for n in nets}) == len(nets) > 180
    assert {n.package for n in nets} >= {
        "segmentation_models_pytorch", "monai", "transformers", "diffusers", "ultralytics",
        "pytorchcv", "pretrainedmodels", "kornia", "braindecode", "doctr", "compressai",
        "torchaudio", "speechbrain", "pytorchvideo", "lightly", "super-image", "spandrel",
    }  # fmt: skip


def test_makers_are_called_when_the_network_is_built() -> None:
    maker = made("collections.OrderedDict", a=made("torch.nn.ReLU"), b=3)
    assert isinstance(maker()["a"], nn.ReLU)
    assert maker()["b"] == 3
    assert found("torch.nn.Conv2d") is nn.Conv2d
    assert [t.shape for t in several(image(1, 2), image(3))()] == [(1, 2), (3,)]


def test_a_larger_batch_and_size_change_images_alone() -> None:
    example = {"x": torch.randn(2, 3, 8, 8), "t": torch.tensor([1, 2]), "flag": True}
    more = one_more(example)
    assert (more["x"].shape, more["t"].tolist(), more["flag"]) == ((3, 3, 8, 8), [1, 2, 1], True)
    larger = grown(example, 13, 5)
    assert (larger["x"].shape, larger["t"].shape) == ((2, 3, 21, 13), (2,))


def test_the_part_that_a_message_names_is_read_as_a_path() -> None:
    for at in ("'features.11.b'", "['features.11.b']"):
        assert named_part(f"Rewrite the part: `rlawrap.apply(model, at={at})`.") == "features.11.b"
    assert named_part("`blocks=['0', '1']`") == ""


def test_a_sound_network_is_told_with_its_blocks() -> None:
    row = check(small())
    assert row["checks"] == dict.fromkeys(row["checks"], "ok")
    assert {"keys", "eval", "train", "batch", "size", "odd size", "gradients"} <= set(row["checks"])
    assert (row["blocks"], row["expected"], row["exact"], row["calls"]) == (2, 2, True, "model")
    assert state(row) == "at once"


def test_the_page_tells_refusals_second_calls_and_other_outputs(tmp_path: Path) -> None:
    sound = {"name": "a/x", "calls": "second", "sound": True, "part": "encoder", "blocks": 2,
             "refusals": ["no blocks"], "checks": {"eval": "ok"}}  # fmt: skip
    wrong = {**sound, "name": "a/y", "calls": "model", "sound": False,
             "checks": {"eval": "relative error 1.0e+00"}}  # fmt: skip
    refused = {"name": "b/z", "refused": "/home/me/site-packages/b/z.py:3\nno blocks"}
    assert [state(row) for row in (sound, wrong, refused)] == ["second call", "no", "refused"]
    assert [other_output(row) for row in (sound, wrong, refused)] == [False, True, False]
    write_report(tmp_path / "wild.md", [sound, wrong, refused], 4)
    page = (tmp_path / "wild.md").read_text()
    assert "3 networks of 4, of 2 packages" in page
    assert "| all | 0 / 3 (0.0%) | 1 / 3 (33.3%) | 1 | 1 | - | 4 |" in page
    assert "- `b/z`: refused: b/z.py:3 no blocks" in page
    assert "- `a/x`: encoder, after: no blocks" in page
    assert "- `a/y`: no: eval: relative error 1.0e+00" in page
