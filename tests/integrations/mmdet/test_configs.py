"""The twelve configurations in configs/mmdet: the official recipe, and detectors that are built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config

import rlawrap

FOLDER = Path(__file__).parents[3] / "configs" / "mmdet"
DETECTORS = {"faster-rcnn": "FasterRCNN", "retinanet": "RetinaNet", "mask-rcnn": "MaskRCNN"}
NAMES = [
    f"{detector}_rla{eca}-r{depth}_fpn_1x_coco"
    for detector in DETECTORS
    for depth in (50, 101)
    for eca in ("", "-eca")
]
#: Parameters of the official backbones; ours leave out the norm of an update that nothing reads.
PARAMETERS = {
    (50, None): 23789632,
    (50, "eca"): 23789718,
    (101, None): 42922112,
    (101, "eca"): 42922283,
}


def load(name: str) -> Config:
    return Config.fromfile(FOLDER / f"{name}.py")


def test_there_are_twelve() -> None:
    assert sorted(NAMES) == sorted(path.stem for path in FOLDER.glob("*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_the_recipe_is_the_official_one(name: str) -> None:
    cfg = load(name)
    rate = 0.01 if name.startswith("retinanet") else 0.02
    wanted = {"type": "SGD", "lr": rate, "momentum": 0.9, "weight_decay": 1e-4}
    assert dict(cfg.optim_wrapper.optimizer) == wanted
    assert cfg.train_cfg.max_epochs == 12
    warm_up, steps = cfg.param_scheduler
    assert (warm_up.type, warm_up.start_factor, warm_up.begin, warm_up.end, warm_up.by_epoch) == (
        "LinearLR", 0.001, 0, 500, False,
    )  # fmt: skip
    assert (steps.type, steps.milestones, steps.gamma, steps.by_epoch) == (
        "MultiStepLR", [8, 11], 0.1, True,
    )  # fmt: skip
    assert cfg.auto_scale_lr.base_batch_size == 16 and cfg.train_dataloader.batch_size == 2
    train = {step.type: step for step in cfg.train_dataloader.dataset.pipeline}
    assert train["Resize"].scale == (1333, 800) and train["Resize"].keep_ratio
    assert train["RandomFlip"].prob == 0.5
    assert cfg.val_evaluator.metric == (["bbox", "segm"] if "mask" in name else "bbox")
    backbone = cfg.model.backbone
    eca = "-eca" in name
    assert (backbone.frozen_stages, backbone.norm_eval, backbone.style) == (1, True, "pytorch")
    assert backbone.out_indices == (0, 1, 2, 3) and backbone.rla_channel == 32
    file = f"rla_resnet{backbone.depth}{'_eca' if eca else ''}"
    assert backbone.init_cfg == {"type": "Pretrained", "checkpoint": f"checkpoints/{file}.pth"}
    assert file in rlawrap.models.list_models()


@pytest.mark.parametrize("name", NAMES)
def test_its_detector_is_built(name: str) -> None:
    model: Any = MODELS.build(load(name).model)
    assert type(model).__name__ == DETECTORS[name.partition("_")[0]]
    net = model.backbone
    depth, attention = (101 if "r101" in name else 50), ("eca" if "-eca" in name else None)
    assert sum(p.numel() for p in net.parameters()) == PARAMETERS[depth, attention] - 64
    kernels = [net.get_submodule(f"layer{n}.0.eca.conv").kernel_size for n in (1, 2, 3, 4)
               if attention]  # fmt: skip
    assert kernels == ([(5,), (5,), (5,), (7,)] if attention else [])
    keys = set(model.state_dict())
    assert {"backbone.conv1.weight", "backbone.rla.cell.3.conv.weight"} < keys
    assert not any(p.requires_grad for p in net.layer1.parameters())
    with torch.no_grad():
        shapes = [tuple(m.shape[1:]) for m in model.extract_feat(torch.zeros(1, 3, 64, 64))]
    finest = 8 if name.startswith("retinanet") else 16
    assert shapes == [(256, max(1, finest >> i), max(1, finest >> i)) for i in range(5)]


def test_an_unknown_key_is_refused() -> None:
    cfg = load(NAMES[0])
    cfg.merge_from_dict({"model.backbone.rla_channels": 16})
    with pytest.raises(
        rlawrap.ConfigError, match=r"no rla_channels=16. Did you mean rla_channel\?"
    ):
        MODELS.build(cfg.model)


def test_the_checkpoint_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = MODELS.build(load("retinanet_rla-r50_fpn_1x_coco").model)
    with pytest.raises(rlawrap.CheckpointError, match=r"rla_resnet50.pth: no such file.*FILE`"):
        model.init_weights()
