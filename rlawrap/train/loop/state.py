"""The state of a run beside its weights, and how it goes into checkpoints and comes back."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from rlawrap.errors import CheckpointError, TrainError
from rlawrap.train.config.going_on import CHANGES_STEPS
from rlawrap.train.config.train_config import TrainConfig
from rlawrap.train.data.opening import place_of
from rlawrap.train.loop.run_state import Position, Standing, State, Sums
from rlawrap.train.loop.setup import Equipment
from rlawrap.train.network.build import misfits
from rlawrap.train.network.optim import lacking_state
from rlawrap.train.network.origin import changed_file, has_changed
from rlawrap.train.process.processes import Processes
from rlawrap.train.store import best as best_files
from rlawrap.train.store import checkpoint
from rlawrap.train.store.resuming import (
    Source,
    advice,
    changed_splits,
    class_changes,
    listing,
    other_task,
)
from rlawrap.train.store.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Resumed:
    """The checkpoint that a run goes on from.

    own: it is of this run. best: it was the best one when it was written. anew: its epoch begins
    anew, as the training images changed or what a step holds of them. changes: of the
    configuration, as asked for.
    """

    path: Path
    position: Position
    digits: str
    own: bool
    best: bool
    anew: bool
    changes: dict[str, tuple[Any, Any]]


class Keeper:
    """Saves a run and brings it back. All processes call its methods together."""

    def __init__(
        self,
        config: TrainConfig,
        processes: Processes,
        folder: RunFolder,
        equipment: Equipment,
        say: Callable[[str], None],
    ) -> None:
        self.config = config
        self.processes = processes
        self.folder = folder
        self.equipment = equipment
        self.say = say
        self.newest: Path | None = None
        self.resumed: Resumed | None = None
        self.data = {
            "place": place_of(config.data, config.data_root),
            "images": len(equipment.train_images),
            "fingerprint": equipment.train_images.fingerprint(),
            "test_images": len(equipment.test_images),
            "test_fingerprint": equipment.test_images.fingerprint(),
        }
        preparation = getattr(equipment.test_images, "preparation", None)
        self.preparation = None if preparation is None else preparation.to_dict()
        memory = equipment.task.remember(equipment.train_images)
        self.memory = {"memory": memory} if memory else {}
        self.environment = {
            "world": processes.world,
            "threads": torch.get_num_threads(),
            "device": processes.device.type,
            "torch": str(torch.__version__),
        }

    def save(
        self,
        state: State,
        *,
        metrics_size: Callable[[], int],
        best: bool = False,
        newest: bool = False,
    ) -> None:
        """Write a checkpoint, link it as the best if it is, and delete old ones.

        newest: set those aside that are farther on than it.
        """
        position = state.position
        stepper = self.equipment.stepper
        content = {
            **stepper.state_dict(),
            "position": asdict(position),
            "standing": asdict(state.standing),
            # Sums in floating point depend on their order, so each process gets its own back.
            "sums": self.processes.gather({**asdict(state.sums), "pending": stepper.sums_so_far()}),
            "config": self.config.to_dict(),
            "network": self.equipment.origin,
            "classes": list(self.equipment.classes),
            "data": self.data,
            "preparation": self.preparation,
            **self.memory,
            "environment": self.environment,
            "best": best,
        }

        def write() -> Path:
            try:
                content["metrics_size"] = metrics_size()
                written = checkpoint.write(self.folder.checkpoints, content, **asdict(position))
                if newest:
                    self._set_newer_aside(written.path)
                if best and state.standing.best is not None:
                    best_files.publish(written, self.folder, state.standing.best)
                checkpoint.prune(self.folder.checkpoints, self.config.keep)
            except OSError as error:
                raise TrainError(f"{self.folder.path}: cannot be written to ({error}).") from error
            return written.path

        self.newest = self.processes.first_does(write)

    def resume(self, found: Source) -> tuple[State, int]:
        """Load a checkpoint; returns the run's state and the size of its metrics file.

        Raises `CheckpointError` for a checkpoint of another run or other data.
        """
        source = str(found.path)
        loaded = checkpoint.parse(self.processes.share_bytes(found.content), source)
        checkpoint.check_format(loaded, source)
        self._check_network(loaded, source)
        changes = self._check_config(loaded, source)
        self._check_classes(loaded, source)
        self._check_data(loaded, source)
        self._tell_environment(loaded)
        self._load(loaded, source, changed=bool(changes))
        state = State(
            position=Position(**loaded["position"]),
            standing=Standing(**loaded["standing"]),
            sums=self._own_sums(loaded["sums"]),
        )
        if "monitor" in changes and state.standing.best is not None:
            state.standing.anew, state.standing.stale = True, 0
            self.say(
                f"the best epoch is chosen anew, by {self.config.monitor}: "
                f"{self.folder.best_checkpoint.name} is replaced after the next epoch"
            )
        self.newest = found.path
        place = Position(**loaded["position"])
        changed = loaded["data"]["fingerprint"] != self.data["fingerprint"]
        self.resumed = Resumed(
            path=found.path,
            position=place,
            digits=found.digits,
            own=found.path.resolve().is_relative_to(self.folder.path.resolve()),
            best=best_files.is_best(loaded),
            anew=(changed or bool(CHANGES_STEPS & set(changes))) and place.step > 0,
            changes=changes,
        )
        size = int(loaded["metrics_size"]) if self.resumed.own else 0
        if self.resumed.anew:
            # Which images the epoch has seen cannot be told any more.
            state.position.step = 0
            state.sums = Sums.zero(self.equipment.stepper)
            self.equipment.stepper.take_sums()
            size = self.folder.size_of_whole_epochs(size)
            other = "the changed training images" if changed else "batches of another size"
            self.say(
                f"resumed from {source}: epoch {place.epoch + 1}, of which {place.step} steps were "
                f"done, begins anew with {other}"
            )
        else:
            self.say(
                f"resumed from {source}: epoch {place.epoch + 1}, "
                f"step {place.step} of {self.equipment.steps}"
            )
        return state, size

    def _load(self, loaded: dict[str, Any], source: str, *, changed: bool) -> None:
        try:
            self.equipment.stepper.load_state_dict(loaded, changed=changed)
        except RuntimeError as error:
            problems = misfits(self.equipment.model, loaded["model"])
            if not problems:
                raise
            raise CheckpointError(
                f"{source}: its weights do not fit what {self.config.arch} makes now. "
                f"{'; '.join(problems)}. Put the code that makes it back as it was, or start a new "
                "run with another --output."
            ) from error

    def put_in_order(self, state: State) -> None:
        """Make the run folder fit the state resumed; process 0 alone, once the folder is there."""
        resumed, folder = self.resumed, self.folder
        if resumed is None:
            return
        try:
            if resumed.own:
                kept = checkpoint.adopt(
                    resumed.path,
                    folder.checkpoints,
                    digits=resumed.digits,
                    **asdict(resumed.position),
                )
                self._set_newer_aside(kept)
            best_files.repair(folder, state.standing.best, resumed.path, self.say)
        except OSError as error:
            raise TrainError(f"{folder.path}: cannot be written to ({error}).") from error

    def _set_newer_aside(self, kept: Path) -> None:
        for path in checkpoint.set_newer_aside(self.folder.checkpoints, kept):
            self.say(f"{path.name}: newer than {kept.name}, so it was set aside under this name")

    def settle(self, state: State, metrics_size: Callable[[], int]) -> None:
        """Save at once where the checkpoint resumed cannot serve this run a second time."""
        resumed = self.resumed
        if resumed is not None and (resumed.anew or resumed.changes or not resumed.own):
            best = resumed.best and not resumed.anew
            self.save(state, metrics_size=metrics_size, best=best, newest=True)

    def _check_config(self, loaded: dict[str, Any], source: str) -> dict[str, tuple[Any, Any]]:
        """What changes as asked for. Raises `CheckpointError` for what differs besides."""
        before = TrainConfig.from_dict(loaded["config"])
        if before.task != self.config.task:
            raise CheckpointError(other_task(source, before.task, self.config.task))
        differences = before.differences(self.config)
        if differences:
            raise CheckpointError(
                f"{source}: of another configuration.\n  {listing(differences)}\n"
                f"{advice(differences)} Or take only its weights with --finetune."
            )
        changes = before.changes(self.config)
        if lacking := lacking_state(before, self.config, changes):
            raise CheckpointError(f"{source}: {lacking}")
        if changes:
            self.say(f"changed as asked for: {listing(changes, '; ')}")
        return changes

    def _check_network(self, loaded: dict[str, Any], source: str) -> None:
        # Checkpoints of earlier versions do not say how their network is made.
        before, now = loaded.get("network", {}), self.equipment.origin
        asked = "arch" in self.config.change
        problems = misfits(self.equipment.model, loaded["model"]) if asked else []
        if problems:
            raise CheckpointError(
                f"{source}: its weights do not fit what {self.config.arch} makes. "
                f"{'; '.join(problems)}."
            )
        if "sha256" in before and has_changed(before, now) and not asked:
            raise CheckpointError(changed_file(source, before))

    def _check_classes(self, loaded: dict[str, Any], source: str) -> None:
        before, now = loaded["classes"], list(self.equipment.classes)
        if before != now:
            raise CheckpointError(
                f"{self.config.data}: other classes than those that {source} was trained on: "
                f"{class_changes(before, now)}. The run cannot go on with them; start a new one "
                "from its weights with --finetune and another --output."
            )

    def _check_data(self, loaded: dict[str, Any], source: str) -> None:
        changes = changed_splits(loaded["data"], self.data)
        if not changes:
            return
        message = f"{self.config.data}: changed since {source}: {'; '.join(changes)}."
        if not self.config.allow_changed_data:
            raise CheckpointError(
                message + " Go on all the same with --allow-changed-data, or start a new run from "
                "its weights with --finetune."
            )
        self.say("warning: " + message)

    def _tell_environment(self, loaded: dict[str, Any]) -> None:
        there, here = loaded["environment"], self.environment
        changed = [f"{n} {there[n]} then, {here[n]} now" for n in here if there[n] != here[n]]
        if changed:
            self.say(
                f"note: {'; '.join(changed)}. Every image is still seen once per epoch, but the "
                "results will not be equal to the last bit."
            )

    def _own_sums(self, saved: list[dict[str, list[float]]]) -> Sums:
        """This process's sums; when the number of processes changed, process 0 gets them all."""
        names = ("epoch", "interval", "pending")
        if len(saved) != self.processes.world:
            total = {
                n: [math.fsum(c) for c in zip(*(s[n] for s in saved), strict=True)] for n in names
            }
            nothing = {n: [0.0] * len(total[n]) for n in names}
            saved = [total] + [nothing] * (self.processes.world - 1)
        own = saved[self.processes.rank]
        self.equipment.stepper.restore_sums(own["pending"])
        return Sums(epoch=list(own["epoch"]), interval=list(own["interval"]))
