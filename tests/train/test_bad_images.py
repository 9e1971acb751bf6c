"""A damaged image in a whole run: skipped and counted, or fatal with its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlawrap.errors import DataError
from rlawrap.train import TrainConfig, train
from rlawrap.train.runs import read_run
from tests.train.data.trees import write_image


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    monkeypatch.setenv("RLAWRAP_CACHE", str(tmp_path / "cache"))
    for split, count in (("train", 7), ("val", 2)):
        for name in ("cat", "dog"):
            for number in range(count):
                write_image(tmp_path / "data" / split / name / f"{number}.png", 20 * number)
    (tmp_path / "data" / "train" / "dog" / "3.png").write_bytes(b"\x89PNG, but not really")
    return TrainConfig(
        arch="cifar_resnet20",
        data=str(tmp_path / "data"),
        image_size=16,
        epochs=2,
        batch_size=4,
        workers=1,
        output=str(tmp_path / "run"),
    )


def test_skipped_images_are_counted(config: TrainConfig, capfd: pytest.CaptureFixture[str]) -> None:
    train(config.replace(on_bad_image="skip"))
    record = read_run(config.output)
    assert [line["skipped"] for line in record.evaluations] == [1, 1]
    assert sum(line["images"] for line in record.train) == 2 * 13
    assert capfd.readouterr().out.count("1 images skipped") == 2


def test_a_fatal_image_is_named(config: TrainConfig) -> None:
    with pytest.raises(DataError, match=r"dog/3\.png: a broken image") as raised:
        train(config)
    assert "Traceback" not in str(raised.value)
    assert read_run(config.output).status["state"] == "failed"
