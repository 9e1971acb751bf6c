"""Whether every parameter of h learns, those beside dead layers of the base apart."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import rlawrap
from tests.fuzz.build import build, inputs_of
from tests.fuzz.inert import inert, per_channel
from tests.fuzz.running import Broken, demand, loss_of, run
from tests.fuzz.spec import Case, NetSpec


def randomise_rla(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("rla."):
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                fan = max(1, parameter[0].numel()) ** 0.5 if parameter.dim() > 1 else 2.0
                shift = 1.0 if parameter.dim() == 1 and name.endswith("weight") else 0.0
                parameter.copy_(noise / fan + shift)


def one_pixel(model: rlawrap.RLAModel, spec: NetSpec) -> bool:
    """Whether some h is a single pixel, of which a norm of each channel leaves nothing."""
    sizes: list[int] = []
    handles = [
        tap.register_forward_hook(
            lambda module, args, out: sizes.append(out[0].numel() // out.shape[1])
        )
        for tap in model.rla.out.values()
    ]
    run(model, spec)
    for handle in handles:
        handle.remove()
    return min(sizes) == 1


def beside_dead_layers(case: Case, model: rlawrap.RLAModel) -> tuple[str, ...]:
    """Prefixes of what belongs to entries and blocks that get no gradient in the base either.

    An injection does not say which entry of its block it is of: one dead entry excuses them all.
    """
    base = build(case.net).train().requires_grad_(True)
    alive: set[str] = set()
    for seed in range(30, 36):
        base.zero_grad()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            loss_of(base(**inputs_of(case.net, seed=seed))).backward()
        for name, parameter in base.named_parameters():
            if parameter.grad is not None and parameter.grad.any():
                path = name.partition(".parametrizations.")[0]
                alive.add(path if path != name else name.rpartition(".")[0])
    dead = []
    for i, block in enumerate(model.plan.blocks):
        entries = {entry.partition("#")[0] for entry in block.entries}
        if not entries <= alive:
            dead += [f"rla.inject.{i}.", f"rla.inject.{i}_"]
        if not entries & alive:
            dead += [f"rla.block.{i}."]
    return (*dead, *_goes_nowhere(model.plan, alive))


def _goes_nowhere(plan: rlawrap.Plan, alive: set[str]) -> list[str]:
    """Prefixes of what makes an h that only dead layers read; `alive` are the base's others."""

    def dead(references: tuple[str, ...]) -> bool:
        return not {r.partition("#")[0] for r in references} & alive

    nowhere = dead(plan.head)
    prefixes = ["rla.head."] if plan.head and nowhere else []
    made: set[int] = set()
    for i, block in reversed(list(enumerate(plan.blocks))):
        if nowhere:
            prefixes.append(f"rla.block.{i}.")
            made.add(i)
        nowhere = nowhere and dead(block.entries)
    first = 0
    for stage in plan.stages:
        blocks = set(range(first, first + len(stage.blocks)))
        first += len(stage.blocks)
        if blocks <= made:
            prefixes += [f"rla.cell.{stage.index}.", f"rla.input.{stage.index}_"]
    return prefixes


def every_parameter_learns(case: Case, model: rlawrap.RLAModel, first: dict[str, Tensor]) -> None:
    """Finite gradients, not zero by the second step; three tries, as a ReLU may be dead in one."""
    names = {n for n, p in model.named_parameters() if n.startswith("rla.")}
    missing = names - inert(model)
    if per_channel(model.config) and one_pixel(model, case.net):
        missing = set()
    for attempt in range(3):
        model.load_state_dict(first)
        if attempt:
            randomise_rla(model, seed=20 + attempt)
        model.train()
        trainable = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(trainable, lr=1e-2)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(attempt)
            for step in range(2):
                optimizer.zero_grad()
                loss_of(model(**inputs_of(case.net, seed=30 + 2 * attempt + step))).backward()
                if step == 0:
                    optimizer.step()
        for name, parameter in model.named_parameters():
            if name.startswith("rla."):
                demand(parameter.grad is not None, f"{name} gets no gradient")
                demand(bool(parameter.grad.isfinite().all()), f"{name}: gradient not finite")
                if parameter.grad.abs().max() > 0:
                    missing.discard(name)
        if not missing:
            return
    missing = {n for n in missing if not n.startswith(beside_dead_layers(case, model))}
    if missing:
        raise Broken(f"gradient always zero: {sorted(missing)}")
