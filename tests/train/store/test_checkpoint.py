from __future__ import annotations

import hashlib
import json
import resource
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from rlawrap.errors import CheckpointError, TrainError
from rlawrap.train.store import checkpoint


def state(value: float) -> dict[str, Any]:
    return {"model": {"weight": torch.full((1000,), value)}, "position": {"epoch": 0, "step": 0}}


def test_the_name_holds_position_and_checksum(tmp_path: Path) -> None:
    saved = checkpoint.write(tmp_path, state(1.0), epoch=3, step=120)
    digits = hashlib.sha256(saved.path.read_bytes()).hexdigest()[:12]
    assert saved.path.name == f"epoch0003-step000120-{digits}.pt"
    assert list(tmp_path.iterdir()) == [saved.path]
    assert torch.equal(checkpoint.read(saved.path)["model"]["weight"], torch.ones(1000))


def test_newest_first_and_only_the_last_are_kept(tmp_path: Path) -> None:
    places = [(0, 2), (0, 10), (1, 0), (10, 0), (9, 999999)]
    for epoch, step in places:
        checkpoint.write(tmp_path, state(epoch + step), epoch=epoch, step=step)
    (tmp_path / ".unfinished-1").touch()
    order = [(s.epoch, s.step) for s in checkpoint.saved(tmp_path)]
    assert order == sorted(places, reverse=True)
    checkpoint.prune(tmp_path, keep=2)
    assert [(s.epoch, s.step) for s in checkpoint.saved(tmp_path)] == [(10, 0), (9, 999999)]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_damage_is_found_and_the_one_before_is_given(tmp_path: Path, damage: str) -> None:
    first = checkpoint.write(tmp_path, state(1.0), epoch=0, step=1)
    second = checkpoint.write(tmp_path, state(2.0), epoch=0, step=2)
    content = bytearray(second.path.read_bytes())
    if damage == "flip":
        content[100] ^= 64
    content = content[: {"flip": len(content), "cut": 1000, "empty": 0}[damage]]
    second.path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.read(second.path)
    told: list[str] = []
    found = next(checkpoint.newest_whole(tmp_path, told.append))
    assert found[0] == first
    assert len(told) == 1 and str(second.path) in told[0]


@pytest.mark.skipif(sys.platform == "win32", reason="limits file sizes")
def test_a_full_disk_leaves_the_earlier_ones_alone(tmp_path: Path) -> None:
    first = checkpoint.write(tmp_path, state(1.0), epoch=0, step=1)
    before = first.path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (1024, hard)
    )  # further writes fail, as on a full disk
    try:
        with pytest.raises(TrainError, match=r"could not be written \(.*File too large"):
            checkpoint.write(tmp_path, state(2.0), epoch=0, step=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == [first.path]
    assert first.path.read_bytes() == before


def test_a_file_that_wants_more_than_tensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"model": torch.nn.Linear(1, 1)}, path)
    with pytest.raises(CheckpointError, match=r"more than weights.*names torch\.nn.*Linear"):
        checkpoint.read(path)


def test_what_is_no_training_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"fc.weight": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="--finetune"):
        checkpoint.read(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(CheckpointError):
        checkpoint.read(path)
    with pytest.raises(CheckpointError, match="No such file"):
        checkpoint.read(tmp_path / "missing.pt")


def flip(path: Path, value: float) -> None:
    """Turn a bit of a weight, in a file of its own."""
    content = bytearray(path.read_bytes())
    content[content.index(torch.full((3,), value).numpy().tobytes()) + 2] ^= 64
    path.unlink()
    path.write_bytes(content)


def test_a_flipped_bit_in_best_is_found(tmp_path: Path) -> None:
    best, told = tmp_path / "best.pt", tmp_path / "best.json"
    first = checkpoint.write(tmp_path / "checkpoints", state(1.0), epoch=1, step=0)
    second = checkpoint.write(tmp_path / "checkpoints", state(2.0), epoch=2, step=0)
    checkpoint.link_best(second, tmp_path)
    # The name of either: best.pt is replaced before best.json.
    for named in (first, second):
        told.write_text(json.dumps({"epoch": 1, "checkpoint": named.path.name}))
        checkpoint.read(best)
    second.path.unlink()
    checkpoint.read(best)
    padding = bytearray(best.read_bytes())
    padding[padding.index(b"ZZZZ")] ^= 1
    flip(best, 2.0)
    with pytest.raises(CheckpointError, match=r"not the one in best\.json"):
        checkpoint.read(best)
    best.write_bytes(padding)
    with pytest.raises(CheckpointError, match=r"not the one in best\.json"):
        checkpoint.read(best)


@pytest.mark.parametrize("told", [None, "{", "[]", '{"epoch": 1}'])
def test_a_flipped_bit_is_found_where_no_checksum_is_written(
    tmp_path: Path, told: str | None
) -> None:
    saved = checkpoint.write(tmp_path / "checkpoints", state(1.0), epoch=1, step=0)
    best = checkpoint.link_best(saved, tmp_path)
    if told is not None:
        (tmp_path / "best.json").write_text(told)
    checkpoint.read(best)
    flip(best, 1.0)
    with pytest.raises(CheckpointError, match=r"damaged, the checksum of archive/data/0"):
        checkpoint.read(best)
    best.write_bytes(best.read_bytes()[:-30])
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.read(best)


def test_best_is_the_same_file_and_outlives_pruning(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    first = checkpoint.write(folder, state(1.0), epoch=0, step=1)
    checkpoint.link_best(first, tmp_path)
    checkpoint.link_best(first, tmp_path)
    checkpoint.write(folder, state(2.0), epoch=0, step=2)
    checkpoint.prune(folder, keep=1)
    assert not first.path.exists()
    assert checkpoint.read(tmp_path / "best.pt")["model"]["weight"][0] == 1.0
