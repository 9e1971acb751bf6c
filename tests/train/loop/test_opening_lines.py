from __future__ import annotations

import re
from pathlib import Path

import pytest

from rlawrap.errors import DataError
from rlawrap.train import train
from rlawrap.train.loop.log_file import LoggedDisplay
from rlawrap.train.loop.opening_lines import notes
from rlawrap.train.loop.progress import Silent
from tests.train.toys import ToyImages, toy_config, toy_models


def test_a_run_says_what_it_found_and_its_log_keeps_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = (ToyImages(40), ToyImages(10))
    config = toy_config(tmp_path, progress="plain", freeze=("0",), epochs=1, repeats=3)
    with toy_models():
        train(config, data=data)
        said = capsys.readouterr().out.splitlines()
        assert said[:3] == [
            "data: builtin, 40 training and 10 test images, 4 classes: a, b, c, d",
            "network: toy, 1,484 parameters, 1,268 trainable",
            "steps: 5 in each of 1 epochs, 5 in all, of 9 images in 3 versions each, on cpu",
        ]
        bad = (ToyImages(40, bad={7: 9}), ToyImages(10))
        with pytest.raises(DataError, match="label 9"):
            train(config.replace(output=str(tmp_path / "bad"), repeats=1), data=bad)
    logged = (tmp_path / "log.txt").read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ", line) for line in logged)
    assert [line[21:] for line in logged] == said
    assert said[-1].startswith("finished: best top1") and "epoch 1/1  step 2/5" in said[3]
    last = (tmp_path / "bad" / "log.txt").read_text().splitlines()[-1]
    assert "failed: image 7: label 9" in last


def test_files_passed_over_are_told_once() -> None:
    train_images, test_images = ToyImages(40), ToyImages(10)
    for images in (train_images, test_images):
        images.remarks = ("3 files ignored (.txt)",)  # type: ignore[attr-defined]
    assert notes(train_images, test_images) == ["note: 3 files ignored (.txt)"]
    assert notes(ToyImages(40), ToyImages(10)) == []


def test_a_log_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    display = LoggedDisplay(Silent())
    display.say("before")
    display.open(tmp_path)  # a folder
    display.say("after")
    display.close()
