"""A task by its name, or by the place of a class of the user's own."""

from __future__ import annotations

import difflib
import importlib
from pathlib import Path
from types import MappingProxyType

from rlawrap.errors import ConfigError
from rlawrap.train.config.train_config import TrainConfig
from rlawrap.train.tasks.task import Task
from rlawrap.user_code import find_code, is_place

#: The tasks by name: the module and the class there, which is imported when it is asked for.
TASKS = MappingProxyType(
    {
        "classification": ("rlawrap.train.tasks.classification", "Classification"),
        "detection": ("rlawrap.train.tasks.detection", "Detection"),
        "instance": ("rlawrap.train.tasks.detection", "InstanceSegmentation"),
        "segmentation": ("rlawrap.train.tasks.segmentation", "Segmentation"),
    }
)


def find_task(name: str) -> type[Task]:
    """The class of a task: of a name, or FILE.py:CLASS or MODULE:CLASS.

    Raises `ConfigError` for an unknown name, and for a place that holds no task.

    >>> find_task("classification").metric
    'top1'
    """
    if name in TASKS:
        module, kind = TASKS[name]
        found: type[Task] = getattr(importlib.import_module(module), kind)
        return found
    if not is_place(name):
        near = difflib.get_close_matches(name, TASKS, n=1) or list(TASKS)
        raise ConfigError(
            f"task {name!r}: there is none. Nearest: {', '.join(near)}. A task of your own is "
            "named by its file, as task.py:MyTask."
        )
    code = find_code(name)
    if not (isinstance(code.value, type) and issubclass(code.value, Task)):
        raise ConfigError(
            f"task {name}: is no class derived from rlawrap.train.Task, but {code.value!r}."
        )
    if getattr(code.value, "__abstractmethods__", None):
        lacks = ", ".join(sorted(code.value.__abstractmethods__))
        raise ConfigError(f"task {name}: does not say {lacks}; see rlawrap.train.Task.")
    return code.value


def make_task(config: TrainConfig) -> Task:
    """The task of a run. Raises `ConfigError` as `find_task` does."""
    return find_task(config.task)(config)


def resolved(config: TrainConfig) -> TrainConfig:
    """The configuration with what its task decides: the figure monitored, and its own file's place.

    Raises `ConfigError` for a figure that the task does not judge by, and for options of another
    task.

    >>> resolved(TrainConfig()).monitor
    'top1'
    """
    kind = find_task(config.task)
    if config.task == "classification":
        _check_no_scene_options(config)
    monitor = config.monitor or kind.metric
    if monitor not in (kind.metric, *kind.figures):
        raise ConfigError(
            f"monitor={monitor!r}: the task {kind.name} judges by "
            f"{', '.join(kind.figures or (kind.metric,))}."
        )
    return config.replace(monitor=monitor, task=_whole_place(config.task))


def _check_no_scene_options(config: TrainConfig) -> None:
    """Raise `ConfigError` for options of scenes, which classification would pass over."""
    from rlawrap.detection.segmenters import SEGMENTERS

    kinds = "--task segmentation" if config.head in SEGMENTERS else "--task detection"
    if config.head is None:
        kinds = "--task segmentation or --task detection"
    for name in ("head", "head_args", "scene_augment"):
        if value := getattr(config, name):
            raise ConfigError(
                f"{name}={value!r}: not for the task classification. Give {kinds} with it, or "
                "leave it out."
            )


def _whole_place(name: str) -> str:
    """The place of a task with the whole path of its file, so that it is found from anywhere."""
    home, colon, kind = name.rpartition(":")
    if not colon or not (home.endswith(".py") or "/" in home):
        return name
    return f"{Path(home).expanduser().resolve()}:{kind}"
