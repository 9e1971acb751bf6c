"""A grid of runs over k, cell, source and any other field of `RLAConfig`.

Each is a normal run that can be stopped and resumed.

k = 0 is the network without a hidden state; it is trained once per seed, whatever the cells. All
runs of a seed share initial weights of the base, order of the images and augmentation as far as
their networks allow, so that differences between them may be taken seed by seed.
"""

from __future__ import annotations

import itertools
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from rlawrap import _torch
from rlawrap.config import RLAConfig
from rlawrap.errors import ConfigError, did_you_mean
from rlawrap.models import list_models
from rlawrap.networks import find_network
from rlawrap.train.config.train_config import TrainConfig
from rlawrap.train.network.build import build_model
from rlawrap.train.network.origin import import_all, imports_of
from rlawrap.train.store.resuming import advice, listing
from rlawrap.train.store.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A point of the grid: k = 0 is the plain network, which has neither cell nor source.

    options: values of other fields of `RLAConfig`, in the order of the grid.
    """

    k: int
    cell: str = ""
    source: str = ""
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """For folders and tables.

        >>> Variant(k=8, cell="conv", source="output").name, Variant(k=0).name
        ('conv-output-k8', 'plain')
        """
        return f"{self.family}-k{self.k}" if self.k else "plain"

    @property
    def family(self) -> str:
        """What all variants of a curve over k share.

        >>> Variant(k=8, cell="conv", source="output", options=(("share", "none"),)).family
        'conv-output-share=none'
        """
        return "-".join([self.cell, self.source, *(f"{n}={v}" for n, v in self.options)])

    def changes(self) -> dict[str, Any]:
        """The fields of `RLAConfig` that it sets."""
        return {"k": self.k, "cell": self.cell, "source": self.source, **dict(self.options)}


@dataclass(frozen=True, kw_only=True)
class GridRun:
    """One run of the grid."""

    variant: Variant
    seed: int
    config: TrainConfig

    @property
    def folder(self) -> RunFolder:
        """Where the run writes."""
        return RunFolder(self.config.output)

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.folder.status().get("state") == "finished"

    def arguments(self) -> list[str]:
        """The run as arguments of `rlawrap train`: what differs from the defaults, as JSON."""
        default, own = TrainConfig().to_dict(), self.config.to_dict()
        changes = {name: value for name, value in own.items() if value != default[name]}
        # A name that a script registered is registered in that script's process alone.
        changes["imports"] = list(imports_of(self.config))
        if not changes["imports"]:
            del changes["imports"]
        return ["--config", json.dumps(changes)]


def network_pair(arch: str) -> tuple[str, str]:
    """Names of a plain network and of its RLA form, from either of them.

    Raises `ConfigError` when one of them is not registered.

    >>> network_pair("rla_resnet50"), network_pair("cifar_resnet20")
    (('resnet50', 'rla_resnet50'), ('cifar_resnet20', 'rla_cifar_resnet20'))
    >>> network_pair("mobilenet_v2")
    ('mobilenet_v2', 'rla_mobilenetv2')
    """
    known = set(list_models())
    stem = arch.removeprefix("rla_").replace("mobilenet_v2", "mobilenetv2")
    plain = next((n for n in (stem, stem.replace("mobilenetv2", "mobilenet_v2")) if n in known), "")
    rla = f"rla_{stem}"
    if not plain or rla not in known:
        raise ConfigError(
            f"--arch {arch}: no plain network {stem} with an RLA form {rla} is registered. "
            "`rlawrap models 'rla_*'` lists the RLA forms."
        )
    return plain, rla


def make_grid(
    config: TrainConfig,
    *,
    ks: Sequence[int],
    cells: Sequence[str] = ("conv",),
    sources: Sequence[str] = ("output",),
    options: Mapping[str, Sequence[Any]] = MappingProxyType({}),
    seeds: int = 3,
) -> list[GridRun]:
    """All runs: seeds innermost, plain first.

    config: what the runs share. `config.arch` is a plain network, any that `rlawrap train` takes,
    or one of the library's with its RLA form beside it, by either name; `config.seed` is the first
    seed, `config.output` the folder that receives a folder per run.
    options: values of any other field of `RLAConfig`, by its name.
    Raises `ConfigError` for an empty or impossible grid.

    >>> runs = make_grid(TrainConfig(output="x"), ks=[0, 8], cells=["conv", "convgru"], seeds=1)
    >>> [run.config.output for run in runs]
    ['x/plain/seed0', 'x/conv-output-k8/seed0', 'x/convgru-output-k8/seed0']
    """
    if seeds < 1:
        raise ConfigError(f"--seeds {seeds}: at least one.")
    known = {field.name for field in fields(RLAConfig)} - {"k", "cell", "source"}
    for name in options:
        if name not in known:
            hint = did_you_mean(name, known)
            raise ConfigError(f"--grid {name}=...: no such field of RLAConfig.{hint}")
    for name, values in (("k", ks), ("cell", cells), ("source", sources), *options.items()):
        if not values:
            raise ConfigError(f"--{name}: give at least one value.")
        if len(set(values)) != len(values):
            raise ConfigError(f"--{name}: a value is there twice: {', '.join(map(str, values))}.")
    if min(ks) < 0:
        raise ConfigError(f"--k {min(ks)}: k is 0 (the plain network) or a number of channels.")
    swept = {"k", "cell", "source", *options}
    if clash := swept & set(config.model_kwargs):
        raise ConfigError(f"--model-arg {min(clash)}=...: the grid sets it; use --{min(clash)}.")
    if clash := swept & set(config.rla or {}):
        raise ConfigError(f"--rla-arg {min(clash)}=...: the grid sets it; use --{min(clash)}.")
    variants = [Variant(k=0)] if 0 in ks else []
    variants += [
        Variant(k=k, cell=cell, source=source, options=tuple(zip(options, values, strict=True)))
        for cell in cells
        for source in sources
        for values in itertools.product(*options.values())
        for k in sorted(ks)
        if k
    ]
    return [
        GridRun(variant=variant, seed=seed, config=_run_config(config, variant, seed))
        for variant in variants
        for seed in range(config.seed, config.seed + seeds)
    ]


def _run_config(config: TrainConfig, variant: Variant, seed: int) -> TrainConfig:
    config = config.replace(
        seed=seed,
        output=(Path(config.output) / variant.name / f"seed{seed}").as_posix(),
        resume="auto",
    )
    import_all(config)
    if config.rla is not None or not has_pair(config.arch):
        # Any network: apply gives it the hidden state.
        rla = {**(config.rla or {}), **variant.changes()} if variant.k else None
        return config.replace(rla=rla)
    plain, with_h = network_pair(config.arch)
    arguments = dict(config.model_kwargs)
    if not variant.k:
        # The plain network has no hidden state for the options of one to go to.
        of_rla = {field.name for field in fields(RLAConfig)}
        arguments = {name: value for name, value in arguments.items() if name not in of_rla}
    else:
        arguments |= variant.changes()
    return config.replace(arch=with_h if variant.k else plain, model_kwargs=arguments)


def has_pair(arch: str) -> bool:
    """Whether a name is one of the library's own, with an RLA form (or is one).

    Raises `ConfigError` for a name that is no network's.

    >>> has_pair("cifar_resnet20"), has_pair("torchvision:resnet50")
    (True, False)
    """
    try:
        network_pair(arch)
    except ConfigError:
        # A preset without a plain form is refused by name; other networks are wrapped.
        if arch.startswith("rla_"):
            raise
        find_network(arch)
        return False
    return True


def check_grid(runs: Sequence[GridRun]) -> None:
    """See that every network of the grid can be built, and no folder holds another run.

    Raises `ConfigError`; nothing has been written then.
    """
    for run in runs:
        before = run.folder.config()
        differences = before.differences(run.config) if before else {}
        if differences:
            raise ConfigError(
                f"{run.config.output} holds a run of another configuration "
                f"({listing(differences, '; ')}). "
                f"{advice(differences)}"
            )
    with torch.random.fork_rng(devices=[]):
        for first in {run.variant: run for run in reversed(runs)}.values():
            config = first.config
            if config.pretrained_conv1 == "default":
                config = config.replace(pretrained_conv1=None)  # not downloaded for a look
            try:
                build_model(config, 10)
            except (RuntimeError, MemoryError) as error:
                reason = _torch.first_line(error) if str(error) else "not enough memory"
                raise ConfigError(
                    f"{first.variant.name}: {config.arch} cannot be built from "
                    f"{config.model_kwargs}: {reason}. Try a smaller --k."
                ) from error


def dry_run(runs: Sequence[GridRun]) -> list[str]:
    """A shell command for each run that is not finished."""
    return [shlex.join(["rlawrap", "train", *run.arguments()]) for run in runs if not run.finished]
