from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlawrap.errors import ConfigError
from rlawrap.train import TrainConfig, evaluate, train
from rlawrap.train.commands.options import config_from_options
from rlawrap.train.records.runs import read_run
from rlawrap.train.tasks.find import find_task, resolved
from tests.train.toys import metrics

OWN = str(Path(__file__).parents[3] / "examples" / "own_task.py") + ":Counting"


def test_a_task_of_ones_own_trains_judges_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_from_options({"task": OWN, "subset": 16, "epochs": 2}).replace(
        workers=0, device="cpu", progress="none", save_every=1, keep=9, log_every=1
    )
    assert (config.arch, config.image_size) == ("rla_cifar_resnet20", 32)
    result = train(config.replace(output=str(tmp_path / "whole")))
    assert result.best is not None and result.message.startswith("finished: best mean_error ")
    lines = metrics(tmp_path / "whole")
    errors = [line["mean_error"] for line in lines if line["kind"] == "eval"]
    assert (
        result.best["mean_error"]
        == min(errors)
        == pytest.approx(
            evaluate(tmp_path / "whole", workers=0, device="cpu").to_dict()["mean_error"]
        )
    )
    assert read_run(tmp_path / "whole").best == {
        "kind": "eval",
        "seconds": pytest.approx(read_run(tmp_path / "whole").best["seconds"]),
        **result.best,
    }
    (one,) = (tmp_path / "whole" / "checkpoints").glob("epoch0000-step000001*")
    again = config.replace(output=str(tmp_path / "again"), resume=str(one))
    train(again)
    for line in (second := metrics(tmp_path / "again")):
        assert line in lines
    assert second[-1] == lines[-1]


def test_tasks_that_are_none_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"task 'detect': there is none. Nearest: detection"):
        find_task("detect")
    code = tmp_path / "mine.py"
    code.write_text(
        "from rlawrap.train import Task\n\nclass Half(Task):\n    name = metric = 'half'\n"
        "class Other:\n    pass\n"
    )
    with pytest.raises(ConfigError, match=r"Half: does not say loss, open, scores"):
        find_task(f"{code}:Half")
    with pytest.raises(ConfigError, match=r"Other: is no class derived from rlawrap.train.Task"):
        find_task(f"{code}:Other")


def test_what_a_run_is_judged_by_is_checked_and_named() -> None:
    assert resolved(TrainConfig()).monitor == "top1"
    assert resolved(TrainConfig(task="segmentation")).monitor == "miou"
    with pytest.raises(ConfigError, match=r"monitor='top1': the task detection judges by box_ap"):
        resolved(TrainConfig(task="detection", monitor="top1"))
    # None is what the task says: no difference to a run that has it written down.
    assert TrainConfig(monitor="top1").differences(TrainConfig()) == {}
    assert set(TrainConfig(monitor="top1").differences(TrainConfig(monitor="loss"))) == {"monitor"}


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"head": "fcn"}, "head='fcn'.*--task segmentation"),
        ({"head": "retinanet"}, "head='retinanet'.*--task detection"),
        ({"head_args": {"aux": True}}, "head_args=.*--task segmentation or --task detection"),
        ({"scene_augment": {"crop": 32}}, "scene_augment=.*--task segmentation"),
    ],
)
def test_options_of_scenes_are_refused_in_classification(
    changes: dict[str, Any], advice: str
) -> None:
    with pytest.raises(ConfigError, match=advice):
        resolved(TrainConfig(**changes))
    kept = resolved(TrainConfig(task="segmentation", **changes))
    assert {name: getattr(kept, name) for name in changes} == changes
