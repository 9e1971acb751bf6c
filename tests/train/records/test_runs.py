from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rlawrap.errors import TrainError
from rlawrap.train import TrainConfig, train
from rlawrap.train.commands.records_commands import best_command, runs_command
from rlawrap.train.data import open_data
from rlawrap.train.process.processes import Processes
from rlawrap.train.records.runs import find_runs, loading_line, read_run
from rlawrap.train.store import lock
from rlawrap.train.store.lock import hold_folder
from rlawrap.train.store.run_folder import RunFolder
from tests.train.made_up_runs import write_run


def test_best_is_the_first_highest_top1(tmp_path: Path) -> None:
    record = read_run(write_run(tmp_path / "run", [50, 70, 70, 60]))
    assert record.best is not None and record.best["epoch"] == 1
    assert record.finished and record.name == "run"
    assert record.images_per_s == 160


def test_best_by_loss_when_that_was_monitored(tmp_path: Path) -> None:
    record = read_run(write_run(tmp_path / "run", [50, 70, 60], monitor="loss"))
    assert record.best is not None and record.best["epoch"] == 1
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().replace('"loss": 1.6', '"loss": 9.6')
    (tmp_path / "run" / "metrics.jsonl").write_text(lines)
    best = read_run(tmp_path / "run").best
    assert best is not None and best["epoch"] == 2


def test_averaged_weights_decide_when_there_are_some(tmp_path: Path) -> None:
    record = read_run(write_run(tmp_path / "run", [50, 70], ema=True))
    assert record.judged == "ema_"


def test_a_run_that_is_going_on_may_be_read(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", [50, 70], state="running")
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "epo')
    record = read_run(path)
    assert len(record.train) == 4 and len(record.evaluations) == 2 and not record.finished
    (path / "metrics.jsonl").unlink()
    assert read_run(path).best is None and read_run(path).images_per_s is None


def test_a_run_is_running_only_while_a_process_holds_its_lock(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_run(tmp_path / "run", [50], state="running")
    with hold_folder(RunFolder(path), Processes(), print, 1):
        assert read_run(path).state == "running"
    assert read_run(path).state == "killed"
    (path / ".lock").touch()  # as SIGKILL leaves it
    assert (read_run(path).state, read_run(path).status) == ("killed", {"state": "running"})
    runs_command(tmp_path)
    assert " killed " in capsys.readouterr().out

    def no_locks(handle: int, *, shared: bool = False) -> bool:
        raise OSError

    monkeypatch.setattr(lock, "_lock", no_locks)
    assert read_run(path).state == "running"  # nothing else is known


def test_damaged_and_missing_folders(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="not a run folder"):
        read_run(tmp_path)
    path = write_run(tmp_path / "run", [50])
    (path / "metrics.jsonl").write_text('{"kind": "train"}\n{"kind"\n{"kind": "eval"}\n')
    with pytest.raises(TrainError, match=r"metrics\.jsonl: line 2 is damaged"):
        read_run(path)
    for content, line in ((b'{"kind": "train"}\n\xff\xfe\n', 2), (b"[1]\n", 1)):
        (path / "metrics.jsonl").write_bytes(content)
        with pytest.raises(TrainError, match=rf"metrics\.jsonl: line {line} is damaged"):
            read_run(path)
    (path / "config.json").write_text("{")
    with pytest.raises(TrainError, match=r"config\.json: cannot be read"):
        read_run(path)
    with pytest.raises(TrainError, match="no such folder"):
        find_runs(tmp_path / "no")


def test_runs_are_found_at_any_depth_and_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "b", [50, 62.5], seed=3, epochs=5, state="stopped")
    write_run(tmp_path / "a" / "deep", [40], arch="rla_cifar_resnet20", model_kwargs={"k": 4})
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "config.json").write_text("{}")
    assert [record.name for record in find_runs(tmp_path)] == ["deep", "b"]
    runs_command(tmp_path)
    header, deep, b = capsys.readouterr().out.splitlines()
    assert header.split()[0] == "run"
    assert deep.split()[:2] == ["a/deep", "rla_cifar_resnet20(k=4)"]
    assert b.split() == [
        "b", "cifar_resnet20", "builtin", "3", "stopped", "2/5", "62.50", "72.50", "2", "62.50",
        "160",
    ]  # fmt: skip
    with pytest.raises(TrainError, match="no runs"):
        runs_command(tmp_path / "c")


def test_a_damaged_run_is_left_out_of_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "a", [50])
    (write_run(tmp_path / "b", [60]) / "metrics.jsonl").write_bytes(b"\xff\n")
    (tmp_path / "c").mkdir()  # another program's
    (tmp_path / "c" / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "c" / "metrics.jsonl").write_text('{"kind": "eval", "accuracy": 0.5}\n')
    runs_command(tmp_path)
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == ["run", "a"]
    first, second = err.splitlines()
    assert first.startswith("left out: ") and "b/metrics.jsonl: line 1 is damaged" in first
    assert "c/config.json: not the configuration of a run, it has no arch" in second


def test_best_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_run(tmp_path / "run", [50, 70, 60], ema=True)
    (path / "best.pt").touch()
    best_command([path])
    out = capsys.readouterr().out
    assert "epoch 2" in out and "top-1 71.00 %" in out and "averaged weights" in out
    assert loading_line(path) in out
    with pytest.raises(TrainError, match="no epoch"):
        best_command([write_run(tmp_path / "new", [])])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run, the smallest: what the trainer writes is what is read here."""
    path = tmp_path_factory.mktemp("runs") / "run"
    options = {"arch": "cifar_resnet20", "model_kwargs": {"in_channels": 1}, "subset": 64}
    train(TrainConfig(output=str(path), epochs=1, workers=0, progress="none", **options))
    return path


def test_a_real_run_is_read(trained: Path) -> None:
    record = read_run(trained)
    assert record.finished
    assert record.best is not None and 0 <= record.best["top1"] <= 100
    assert record.train and record.train[-1]["images"] == 64
    assert record.images_per_s is not None and record.images_per_s > 0


def test_the_line_that_loads_a_run_gives_the_network_that_was_judged(trained: Path) -> None:
    names: dict[str, torch.nn.Module] = {}
    before = torch.get_rng_state()
    exec(loading_line(trained), names)
    assert torch.equal(torch.get_rng_state(), before)
    model = names["model"]
    assert not model.training
    data = open_data(split="test")
    with torch.no_grad():
        right = sum(
            int((model(torch.stack([data[j][0] for j in range(i, i + 250)])).argmax(1)
                 == torch.from_numpy(data.labels[i : i + 250])).sum())
            for i in range(0, 1000, 250)
        )  # fmt: skip
    best = read_run(trained).best
    assert best is not None and right / 10 == pytest.approx(best["top1"])
