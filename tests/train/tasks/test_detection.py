from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import rlawrap.detection
from rlawrap.errors import CheckpointError, ConfigError, DataError
from rlawrap.train import train
from rlawrap.train.data.loader import Batch
from rlawrap.train.data.shapes import Shapes
from rlawrap.train.tasks.find import make_task
from tests.train.scene_toys import SMALL, scene_config, write_coco
from tests.train.toys import Group, assert_same_run, metrics, run_group, wait_for


class Fixed(nn.Module):
    """A detector whose losses are the numbers of boxes and of images."""

    def forward(self, images: list[Any], targets: list[Any]) -> dict[str, torch.Tensor]:
        boxes = sum(len(target["boxes"]) for target in targets)
        return {"loss_classifier": torch.tensor(float(boxes)), "loss_box_reg": torch.tensor(0.5)}


def test_the_loss_is_the_sum_of_its_parts_times_the_images(tmp_path: Path) -> None:
    task = make_task(scene_config(tmp_path))
    task.logged = ("loss_classifier", "loss_box_reg", "loss_mask")
    targets = [{"boxes": torch.zeros(3, 4)}, {"boxes": torch.zeros(0, 4)}]
    batch = Batch([torch.zeros(3, 8, 8)] * 2, targets, torch.ones(2), 2, 4, True, [])
    losses = task.loss(Fixed(), batch)
    assert losses.total == 2 * 3.5 and losses.parts.tolist() == [6.0, 1.0, 0.0]
    assert task.means([7.0, 6.0, 1.0, 0.0], 2)["loss_classifier"] == 3.0
    nothing = batch._replace(counted=0)
    assert task.loss(Fixed(), nothing).total == 0


@pytest.mark.parametrize("world", [1, 2])
def test_a_run_on_coco_data_resumes_to_the_last_bit(tmp_path: Path, world: int) -> None:
    data = str(write_coco(tmp_path / "data", train=7, test=2))
    changes: dict[str, Any] = {
        "data": data, "batch_size": 3, "epochs": 2, "save_every": 1, "keep": 9, "subset": None,
    }  # fmt: skip
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run_group(world, scene_config(whole, **changes))
    group = Group(world, scene_config(killed, **changes))
    wait_for(lambda: len([*killed.glob("checkpoints/*.pt")]) > 1, 120)
    group.kill()
    assert len([*killed.glob("checkpoints/*.pt")]) < 6  # it was not done
    run_group(world, scene_config(killed, **changes, resume="auto"))
    assert_same_run(whole, killed)
    train_line, *_, judged = metrics(whole)
    assert train_line["loss"] == pytest.approx(
        sum(value for name, value in train_line.items() if name.startswith("loss_"))
    )
    assert set(judged) >= {"box_ap", "box_ap50", "train_loss_objectness"}
    config = json.loads((whole / "config.json").read_text())
    assert (config["task"], config["monitor"]) == ("detection", "box_ap")


def test_two_processes_train_and_judge_as_one(tmp_path: Path) -> None:
    data = str(write_coco(tmp_path / "data", test=5))
    # Norms of a half batch and of a whole one would not see the same.
    still = {**SMALL, "norm_eval": True, "box_detections_per_img": 20}
    changes: dict[str, Any] = {"data": data, "lr": 1e-12, "subset": None, "head_args": still}
    for world in (1, 2):
        run_group(world, scene_config(tmp_path / str(world), **changes))
    one, two = (metrics(tmp_path / str(world)) for world in (1, 2))
    for name in ("box_ap", "box_ap50", "box_ap_small"):
        assert one[-1][name] == pytest.approx(two[-1][name], abs=1e-6)
    for line, other in zip(one[:-1], two[:-1], strict=True):
        assert line["loss"] == pytest.approx(other["loss"], rel=0.2)  # places are drawn apart
    assert [line["images"] for line in one[:-1]] == [line["images"] for line in two[:-1]]


def test_networks_that_are_no_detectors_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rla_cifar_resnet20: not a network for the task det"):
        train(scene_config(tmp_path, head=None, head_args={}))
    with pytest.raises(ConfigError, match="head='fcn': the task detection takes fasterrcnn"):
        train(scene_config(tmp_path, head="fcn"))
    with pytest.raises(ConfigError, match=r"cifar_resnet20 has none\. Give it one by --rla"):
        train(scene_config(tmp_path, arch="cifar_resnet20"))
    with pytest.raises(ConfigError, match="instance takes maskrcnn"):
        train(scene_config(tmp_path, task="instance"))
    with pytest.raises(ConfigError, match="mixup is for classification"):
        train(scene_config(tmp_path, augment={"mixup": 0.1}))
    assert not (tmp_path / "config.json").exists()


def test_a_run_of_another_task_is_not_resumed(tmp_path: Path) -> None:
    train(scene_config(tmp_path / "run", head_args={"out_channels": 8}))
    other = scene_config(tmp_path / "run", task="segmentation", head="fcn", head_args={})
    with pytest.raises(ConfigError, match=r"a run of the task detection.* as one of segmentation"):
        train(other.replace(resume="auto"))
    best = str(tmp_path / "run" / "best.pt")
    with pytest.raises(CheckpointError, match=r"a run of the task detection.* one of segmentation"):
        train(other.replace(resume=best, output=str(tmp_path / "other")))


def test_scenes_are_cut_as_asked_for_and_registered_detectors_train(tmp_path: Path) -> None:
    code = tmp_path / "nets.py"
    code.write_text(
        "import rlawrap\nfrom rlawrap.models import register_model\n\n"
        "@register_model('own_detector')\n"
        "def own(num_classes):\n"
        "    net = rlawrap.models.rla_cifar_resnet20(num_classes=2)\n"
        "    return rlawrap.detection.detector('fasterrcnn', net, num_classes=num_classes,\n"
        "        out_channels=8, min_size=24, box_detections_per_img=4)\n"
    )
    config = scene_config(
        tmp_path / "run",
        data=str(write_coco(tmp_path / "data", train=3, test=2)),
        arch="own_detector",
        imports=(str(code),),
        scene_augment={"crop": 20, "jitter": [0.8, 1.25]},
        head=None,
        head_args={},
    )
    images = make_task(config).open("train")
    assert {tuple(images.load(n, seed=0, epoch=0)[0].shape) for n in range(3)} == {(3, 20, 20)}
    assert train(config).best is not None
    state = torch.load(tmp_path / "run" / "best.pt", weights_only=True)
    assert state["memory"] == {"category_ids": [3, 6, 9]}
    with pytest.raises(ConfigError, match=r"scene_augment: there is no size; there are flip, "):
        make_task(config.replace(scene_augment={"size": 3})).open("train")


def test_scenes_without_objects(tmp_path: Path) -> None:
    data = write_coco(tmp_path / "data", train=3, test=2)
    for split, kept in (("train", 1), ("val", 2)):
        path = data / split / "annotations.json"
        content = json.loads(path.read_text())
        content["annotations"] = [a for a in content["annotations"] if a["image_id"] == kept]
        path.write_text(json.dumps(content))
    result = train(scene_config(tmp_path / "run", data=str(data), subset=None, batch_size=1))
    assert result.last is not None and result.last["box_ap"] is not None
    assert [line["images"] for line in metrics(tmp_path / "run")[:-1]] == [1]  # of the only scene
    content["annotations"] = []
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="none of the 2 test images has an object"):
        train(scene_config(tmp_path / "none", data=str(data), subset=None, batch_size=1))
    (data / "train" / "annotations.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="no scene has anything to learn in it"):
        train(scene_config(tmp_path / "none", data=str(data), subset=None, batch_size=1))


def test_a_detector_and_its_data_from_python(tmp_path: Path) -> None:
    model = rlawrap.detection.detector(
        "fasterrcnn",
        rlawrap.models.rla_cifar_resnet20(),
        num_classes=4,
        out_channels=8,
        min_size=32,
    )
    options: dict[str, Any] = {
        "task": "detection", "epochs": 1, "batch_size": 2, "lr": 0.01, "workers": 0,
        "device": "cpu", "progress": "none", "output": str(tmp_path),
    }  # fmt: skip
    sets = Shapes("train", "detection", 32, 4), Shapes("test", "detection", 32, 2)
    result = train(model, *sets, **options)
    assert result.best is not None and result.model is model
    with pytest.raises(ConfigError, match=r"the task detection takes .* list has no classes, in_c"):
        train(model, [1], sets[1], **options)  # type: ignore[arg-type]
