from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from rlawrap.cli import main
from rlawrap.errors import ConfigError, DataError, TrainError
from rlawrap.train import TrainConfig, evaluate, train
from rlawrap.train.loop import detecting
from rlawrap.train.loop.detecting import detect, open_detector
from rlawrap.train.loop.predicting import predict
from rlawrap.train.records.plot import draw_runs
from rlawrap.train.records.runs import read_run, runs_table
from tests.train.made_up_runs import write_run
from tests.train.scene_toys import scene_config, write_coco


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("scenes"), train=4, test=3)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "detector"
    train(scene_config(output, data=str(data), subset=None, batch_size=2, epochs=2))
    return output


def test_what_is_found_is_drawn_and_written(run: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "found"
    images = str(data / "val")
    assert command("detect", images, "--weights", str(run), "-o", str(out), "--threshold", "0") == 0
    results = json.loads((out / "results.json").read_text())
    detector = open_detector(run, device="cpu")
    found = list(detect(detector, [images], threshold=0.0))
    assert len(results) == sum(len(each.things["scores"]) for each in found) > 0
    assert {result["category_id"] for result in results} <= {3, 6, 9}
    assert results[0].keys() >= {"image_id", "category_id", "bbox", "score", "category_name"}
    scores = [result["score"] for result in results if result["image_id"] == 1]
    assert scores == sorted(scores, reverse=True)
    pictures = sorted(out.glob("*.png"))
    assert [path.stem for path in pictures] == ["000", "001", "002"]
    with Image.open(pictures[0]) as picture:
        assert picture.size[0] >= 32
    assert next(detect(detector, [images], threshold=1.0)).things["boxes"].shape == (0, 4)


def test_a_run_is_judged_listed_and_drawn(run: Path, data: Path, tmp_path: Path) -> None:
    record = read_run(run)
    assert (record.task, record.monitor, len(record.evaluations)) == ("detection", "box_ap", 2)
    judged = evaluate(run, workers=0, device="cpu")
    assert record.best is not None
    assert judged.to_dict()["box_ap"] == pytest.approx(record.best["box_ap"])
    assert judged.images == 3 and len(judged.details["classes"]) == 3
    table = runs_table([record], run.parent)
    assert "judged by" in [column.header for column in table.columns]
    titles = [axes.get_title() for axes in draw_runs([record]).axes]
    assert titles[:3] == ["loss", "AP of boxes, %", "AP of boxes at IoU 0.5, %"]
    other = read_run(write_run(tmp_path / "classifier", [50.0]))
    with pytest.raises(ConfigError, match="detection and classification, have no figures"):
        draw_runs([record, other])


def test_each_command_names_the_other(
    run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"task detection.*`rlawrap detect IMAGE... --weights"):
        next(predict(run, [data / "val"]))
    monkeypatch.setattr(detecting, "load_checkpoint", lambda path: ({}, TrainConfig()))
    with pytest.raises(ConfigError, match=r"task classification.*`rlawrap predict IMAGES... --w"):
        open_detector(tmp_path / "run")


def test_damaged_scenes_are_left_out_or_end_the_run(data: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(data, tmp_path / "broken")
    (broken / "train" / "001.png").write_bytes(b"no picture")
    config = scene_config(tmp_path / "run", data=str(broken), subset=None, batch_size=1)
    with pytest.raises(DataError, match=r"001\.png"):
        train(config)
    result = train(config.replace(on_bad_image="skip", output=str(tmp_path / "skipping")))
    assert result.last is not None and result.last["skipped"] == 1


def test_a_loss_that_is_not_finite_ends_the_run(data: Path, tmp_path: Path) -> None:
    config = scene_config(tmp_path, data=str(data), lr=1e30, batch_size=2, epochs=3)
    with pytest.raises(TrainError, match=r"(absurd|not finite).* step 1 of epoch 1"):
        train(config)
