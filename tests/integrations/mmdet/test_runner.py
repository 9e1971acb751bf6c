"""mmengine's Runner: two steps, an evaluation, and going on from its checkpoint."""

from __future__ import annotations

import json
import math
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from rlawrap.integrations.mmdet import allow_mmengine_checkpoints
from tests.integrations.mmdet import coco
from tests.integrations.mmdet.test_configs import load

SIDE = 96


def small(name: str, folder: Path, checkpoint: Path) -> Config:
    """A configuration on the tiny data set, for a CPU: four images, two a step."""
    cfg = load(name)
    changes: dict[str, Any] = {
        "work_dir": str(folder / "work"),
        "model.backbone.init_cfg.checkpoint": str(checkpoint),
        "train_cfg.max_epochs": 1,
        "default_hooks.logger.interval": 1,
        "val_evaluator.ann_file": str(folder / "instances.json"),
        "randomness": {"seed": 0},
        # mmengine keeps one drawer a name and process.
        "visualizer.name": folder.name,
    }
    heads = {"retinanet": ("bbox_head",), "faster-rcnn": ("roi_head.bbox_head",)}
    two = ("roi_head.bbox_head", "roi_head.mask_head")
    for head in heads.get(name.partition("_")[0], two):
        changes[f"model.{head}.num_classes"] = 2
    if "rcnn" in name:
        # Fewer regions and a narrow head: seconds a step otherwise.
        changes |= {
            "model.roi_head.bbox_head.fc_out_channels": 32,
            "model.train_cfg.rcnn.sampler.num": 32,
            "model.train_cfg.rpn_proposal.max_per_img": 50,
            "model.test_cfg.rpn.max_per_img": 50,
            "model.test_cfg.rcnn.max_per_img": 10,
        }
    else:
        # As it starts no score reaches the usual one, and there would be nothing to judge.
        changes |= {"model.test_cfg.score_thr": 0.0, "model.test_cfg.max_per_img": 10}
    for loader in ("train_dataloader", "val_dataloader"):
        data = {
            "data_root": str(folder),
            "ann_file": "instances.json",
            "data_prefix": {"img": "images/"},
            "metainfo": {"classes": coco.CLASSES},
        }
        for key, value in data.items():
            changes[f"{loader}.dataset.{key}"] = value
        changes |= {f"{loader}.num_workers": 0, f"{loader}.persistent_workers": False}
    cfg.merge_from_dict(changes)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        for step in loader.dataset.pipeline:
            if step.type == "Resize":
                step.scale = (SIDE, SIDE)
    # Left alone, the test loop would look for COCO itself.
    cfg.test_dataloader = cfg.test_evaluator = cfg.test_cfg = None
    return cfg


def logged(folder: Path) -> list[dict[str, Any]]:
    """What the Runner wrote, a line a step and one an evaluation, of its last start."""
    newest = max((folder / "work").glob("*/vis_data/scalars.json"), key=lambda p: p.stat().st_mtime)
    return [json.loads(line) for line in newest.read_text().splitlines()]


class Began(Hook):
    """Where a Runner starts to train, and with which weights."""

    def before_train(self, runner: Runner) -> None:
        self.at = (runner.epoch, runner.iter)
        self.state = {key: value.clone() for key, value in runner.model.state_dict().items()}


@pytest.mark.parametrize(
    ("name", "metrics"),
    [
        ("faster-rcnn_rla-r50_fpn_1x_coco", ["bbox"]),
        ("retinanet_rla-eca-r50_fpn_1x_coco", ["bbox"]),
        ("mask-rcnn_rla-r50_fpn_1x_coco", ["bbox", "segm"]),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_two_steps_an_evaluation_and_on(
    name: str, metrics: list[str], tmp_path: Path, classifier: Any, official_file: Path
) -> None:
    coco.write(tmp_path)
    checkpoint = official_file
    if "-eca" in name:
        checkpoint = tmp_path / "eca.pth"
        torch.save({"state_dict": eca_state(official_file)}, checkpoint)
    cfg = small(name, tmp_path, checkpoint)
    runner = Runner.from_cfg(cfg)
    runner.train()
    *steps, judged = logged(tmp_path)
    print(f"\n{name}\n  " + "\n  ".join(map(json.dumps, (*steps, judged))))
    assert [line["iter"] for line in steps] == [1, 2]
    assert all(math.isfinite(line["loss"]) and line["loss"] > 0 for line in steps)
    for metric in metrics:
        assert -1 <= judged[f"coco/{metric}_mAP"] <= 1
    net, started = runner.model.backbone, classifier.state_dict()
    moved = {n for n, p in net.named_parameters() if n in started
             and not torch.equal(p.detach(), started[n])}  # fmt: skip
    frozen = {n for n, p in net.named_parameters() if not p.requires_grad}
    assert {"layer2.0.conv1.weight", "rla.inject.5.conv.weight", "rla.cell.1.conv.weight"} <= moved
    assert not moved & frozen and len(frozen) > 30
    assert torch.equal(net.bn1.running_mean, started["bn1.running_mean"])

    cfg.train_cfg.max_epochs, cfg.resume = 2, True
    cfg.experiment_name = cfg.visualizer.name = f"{tmp_path.name}_on"
    resumed, began = Runner.from_cfg(cfg), Began()
    resumed.register_hook(began)
    resumed.train()
    assert began.at == (1, 2)
    for key, value in runner.model.state_dict().items():
        assert torch.equal(began.state[key], value), key
    further = [line for line in logged(tmp_path) if "loss" in line]
    assert [line["iter"] for line in further] == [3, 4]
    # The warm-up goes on: from a thousandth to the whole in 499 steps.
    rate = cfg.optim_wrapper.optimizer.lr
    wanted = [rate * (0.001 + 0.999 * step / 499) for step in range(4)]
    assert [line["lr"] for line in (*steps, *further)] == pytest.approx(wanted)
    assert (tmp_path / "work" / "epoch_2.pth").is_file()
    shutil.rmtree(tmp_path / "work")  # hundreds of MB, and pytest keeps the folders of three runs


def eca_state(official_file: Path) -> dict[str, Any]:
    """The official weights with gates that are all alike."""
    state = torch.load(official_file)["state_dict"]
    blocks = {name.rpartition(".bn3.")[0] for name in state if ".bn3.weight" in name}
    gates = {
        f"{block}.eca.conv.weight": torch.ones(1, 1, 7 if ".stages.3." in block else 5)
        for block in blocks
    }
    return {**state, **gates}


def test_checkpoints_of_the_runner_are_read_and_no_others(tmp_path: Path) -> None:
    from mmengine.logging import HistoryBuffer, MessageHub

    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    class Reaching:
        def __reduce__(self) -> Any:
            return getattr, (HistoryBuffer, "__init__")

    hub = MessageHub("rlawrap-test")
    hub.update_scalar("train/loss", 0.5)
    hub.update_info("iter", 3)
    torch.save({"message_hub": hub.state_dict()}, tmp_path / "run.pth")
    torch.serialization.clear_safe_globals()
    with pytest.raises(pickle.UnpicklingError, match="HistoryBuffer"):
        torch.load(tmp_path / "run.pth")
    allow_mmengine_checkpoints()
    found = torch.load(tmp_path / "run.pth")["message_hub"]["log_scalars"]["train/loss"]
    assert found.current() == 0.5
    torch.save({"meta": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "evil.pth")
    # Of getattr there is as much as the buffers need.
    torch.save({"meta": Reaching()}, tmp_path / "evil.pth")
    with pytest.raises(pickle.UnpicklingError, match="asks for the attribute '__init__'"):
        torch.load(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()
