"""What a run goes on from when files of its folder are damaged, gone or older than others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rlawrap.errors import CheckpointError, ConfigError
from rlawrap.train import checkpoint, train
from tests.train.toys import ToyImages, assert_same_run, toy_config, toy_models

DATA = (ToyImages(), ToyImages(10))


@pytest.fixture(autouse=True)
def models() -> Iterator[None]:
    with toy_models():
        yield


def damage(path: Path) -> None:
    """Replace a file by a cut one; what is linked to it stays."""
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:1000])


def contents(run: Path) -> dict[str, bytes]:
    """The files of a run, but not the names that damaged ones got."""
    files = [path for path in run.rglob("*") if path.is_file()]
    return {p.name.removesuffix(".damaged"): p.read_bytes() for p in files}


def test_best_is_gone_on_from_when_no_checkpoint_is_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(toy_config(tmp_path / "whole"), data=DATA)
    train(toy_config(tmp_path / "run"), data=DATA)
    for saved in checkpoint.saved(tmp_path / "run" / "checkpoints"):
        damage(saved.path)
    train(toy_config(tmp_path / "run", resume="auto", progress="plain"), data=DATA)
    told = capsys.readouterr().out
    assert f"resumed from {tmp_path / 'run' / 'best.pt'}" in told
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_a_run_without_any_whole_checkpoint_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    train(toy_config(tmp_path), data=DATA)
    for path in [
        tmp_path / "best.pt",
        *(s.path for s in checkpoint.saved(tmp_path / "checkpoints")),
    ]:
        damage(path)
    before = contents(tmp_path)
    for _ in range(2):  # the second time they are set aside already
        with pytest.raises(CheckpointError, match=r"none of its checkpoints is whole.*--output"):
            train(toy_config(tmp_path, resume="auto"), data=DATA)
    with pytest.raises(ConfigError, match="already holds a run"):
        train(toy_config(tmp_path), data=DATA)
    (tmp_path / "best.pt").unlink()
    del before["best.pt"]
    with pytest.raises(CheckpointError, match=r"there is no best\.pt"):
        train(toy_config(tmp_path, resume="auto"), data=DATA)
    assert contents(tmp_path) == before


def test_a_run_whose_checkpoints_were_deleted_is_refused(tmp_path: Path) -> None:
    train(toy_config(tmp_path, save_every=None), data=DATA)
    for path in tmp_path.rglob("*.pt"):
        path.unlink()
    before = contents(tmp_path)
    with pytest.raises(CheckpointError, match="holds a run"):
        train(toy_config(tmp_path, resume="auto"), data=DATA)
    assert contents(tmp_path) == before


def test_a_run_killed_before_its_first_checkpoint_starts_anew(tmp_path: Path) -> None:
    train(toy_config(tmp_path / "whole"), data=DATA)
    train(toy_config(tmp_path / "run", epochs=1, save_every=None), data=DATA)
    for path in (tmp_path / "run").rglob("*.pt"):
        path.unlink()
    (tmp_path / "run" / "config.json").unlink()
    train(toy_config(tmp_path / "run", resume="auto"), data=DATA)
    assert_same_run(tmp_path / "whole", tmp_path / "run")
