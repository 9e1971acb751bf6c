from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.train.toys import Group, final_state, toy_config

SPARE = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 4)
        self.spare = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
        self.seen = 0

    def forward(self, x):
        self.seen = max(self.seen, len(x))
        assert self.seen < 20
        return self.fc(self.stem(x).mean((2, 3)))
"""


def test_parameters_without_a_part_in_the_loss_are_named_and_can_be_frozen(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(SPARE)

    def config(**changes: Any) -> Any:
        arch = f"{tmp_path}/net.py:Net"
        return toy_config(tmp_path / "run", arch=arch, epochs=1, timeout=60, **changes)

    group = Group(2, config())
    assert group.wait() == [2, 2]
    assert "spare: takes no part in the loss" in group.errors()
    assert "--freeze spare (from Python: freeze=('spare',))" in group.errors()
    assert not (tmp_path / "run" / "status.json").exists()
    # The batch is far larger than the data, and no process is shown more than its share of it.
    frozen = config(freeze=("spare",), batch_size=1000)
    assert Group(2, frozen, images={"length": 12}).wait() == [0, 0]
    assert "spare.0.weight" in final_state(tmp_path / "run")["model"]
