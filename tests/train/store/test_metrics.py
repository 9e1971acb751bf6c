from __future__ import annotations

import json
from pathlib import Path

from rlawrap.train.store.metrics import MetricsLog
from rlawrap.train.store.run_folder import RunFolder


def test_lines_after_the_checkpoint_are_cut_off(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with MetricsLog(folder) as log:
        log.write("train", {"global_step": 1, "loss": 0.1})
        size = log.sync()
        log.write("train", {"global_step": 2, "loss": 0.2})
    with folder.metrics_file.open("a") as file:
        file.write('{"torn')
    with MetricsLog(folder, size=size) as log:
        log.write("train", {"global_step": 2, "loss": 0.3})
    lines = [json.loads(line) for line in folder.metrics_file.read_text().splitlines()]
    assert [line["loss"] for line in lines] == [0.1, 0.3]
    with MetricsLog(folder):
        pass
    assert folder.metrics_file.read_bytes() == b""


def test_other_processes_write_nothing(tmp_path: Path) -> None:
    with MetricsLog(None) as log:
        log.write("train", {"global_step": 1})
        assert log.sync() == 0
