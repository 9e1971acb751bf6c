"""A few steps of a run under torch.profiler: where its time goes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from rlawrap.train.store.run_folder import writing

#: Steps that are left out as the first are slow, that warm the profiler up, and that are traced.
WAIT, WARM_UP, ACTIVE = 3, 2, 5
#: Lines of the table.
ROWS = 40


class StepProfile:
    """Traces the steps after the first few into a folder; `step` is called after each of them.

    trace.json opens in Perfetto or chrome://tracing; operations.txt holds the costliest operations.
    """

    def __init__(self, folder: Path, device: torch.device, say: Callable[[str], None]) -> None:
        self.folder = folder
        self.say = say
        self.sort_by = "self_cpu_time_total"
        activities = [ProfilerActivity.CPU]
        if device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
            self.sort_by = "self_cuda_time_total"
        self.profile: profile | None = profile(
            activities=activities,
            schedule=schedule(wait=WAIT, warmup=WARM_UP, active=ACTIVE, repeat=1),
            on_trace_ready=self._write,
            record_shapes=True,
            acc_events=True,
        )
        self.taken = 0

    def __enter__(self) -> StepProfile:
        if self.profile is not None:
            self.profile.start()
        return self

    def step(self) -> None:
        """A step of the run is done."""
        self.taken += 1
        if self.profile is not None:
            self.profile.step()
            if self.taken == WAIT + WARM_UP + ACTIVE:
                self.profile.stop()
                self.profile = None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.profile is None:
            return
        self.profile.stop()
        if self.taken <= WAIT + WARM_UP:
            self.say(f"no profile: it takes more than {WAIT + WARM_UP} steps")

    def _write(self, traced: profile) -> None:
        with writing(self.folder):
            self.folder.mkdir(exist_ok=True)
            traced.export_chrome_trace(str(self.folder / "trace.json"))
            table = traced.key_averages().table(sort_by=self.sort_by, row_limit=ROWS)
            (self.folder / "operations.txt").write_text(table + "\n")
        self.say(f"profile: {self.folder / 'trace.json'}, {self.folder / 'operations.txt'}")
