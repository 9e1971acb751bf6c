"""A damaged image in a whole run: skipped and counted, or fatal with its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlawrap.errors import DataError, UnreadableError
from rlawrap.train import TrainConfig, evaluate, train
from rlawrap.train.records.runs import read_run
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


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_cannot_be_read_is_never_skipped(config: TrainConfig, workers: int) -> None:
    (Path(config.data) / "train" / "cat" / "1.png").unlink()
    (Path(config.data) / "train" / "cat" / "1.png").symlink_to("gone.png")
    with pytest.raises(UnreadableError, match=r"cat/1\.png: cannot be read \(No such file"):
        train(config.replace(on_bad_image="skip", workers=workers))
    assert read_run(config.output).status["state"] == "failed"


@pytest.mark.parametrize(
    ("split", "batch_size", "message"),
    [
        ("train", 6, r"no image could be used up to step 4 of epoch 1"),
        ("train", 2, r"no image could be used up to step 10 of epoch 1"),
        ("val", 4, r"no test image could be used"),
    ],
)
def test_a_run_without_any_usable_image_stops(
    config: TrainConfig, split: str, batch_size: int, message: str
) -> None:
    folder = Path(config.data) / split
    more = [folder / "cat" / f"{number}.png" for number in range(10, 20)]
    for image in [*folder.glob("*/*.png"), *more]:
        image.write_bytes(b"broken")
    with pytest.raises(DataError, match=message):
        train(config.replace(on_bad_image="skip", batch_size=batch_size, log_every=10, workers=0))
    assert read_run(config.output).status["state"] == "failed"


def test_skipped_test_images_are_counted(
    config: TrainConfig, capfd: pytest.CaptureFixture[str]
) -> None:
    (Path(config.data) / "val" / "cat" / "0.png").write_bytes(b"broken")
    train(config.replace(on_bad_image="skip", epochs=1))
    assert [line["test_skipped"] for line in read_run(config.output).evaluations] == [1]
    assert "1 test images skipped" in capfd.readouterr().out
    assert evaluate(config.output, workers=0).skipped == 1


def test_the_advice_for_a_broken_image_can_be_followed(config: TrainConfig) -> None:
    with pytest.raises(DataError, match="--on-bad-image skip"):
        train(config.replace(save_every=1, batch_size=2))
    result = train(config.replace(save_every=1, batch_size=2, on_bad_image="skip", resume="auto"))
    assert result.status == "finished"


def test_a_fatal_image_is_named(config: TrainConfig) -> None:
    with pytest.raises(DataError, match=r"dog/3\.png: a broken image") as raised:
        train(config)
    assert "Traceback" not in str(raised.value)
    assert read_run(config.output).status["state"] == "failed"
