"""One network of somebody else's: the calls that a user makes of it, and what must hold after."""

from __future__ import annotations

import copy
import re
import time
import warnings
from typing import Any

import torch
from torch import nn

import rlawrap
from tests.wild.inputs import call, first_tensor, grown, in_precision, mapped, one_more, runs
from tests.wild.network import Wild
from tests.zoo.soundness import gradients, relative_error, same_buffers, same_keys, verdict

K = 4
#: Of an example of more values one other size is tried alone.
LARGE = 3 * 128 * 128
#: A verdict on a size that the rewritten network refuses by a message: its base's forward asks for
#: the size and goes another way.
REFUSED = "refused"
#: A refusal that names a part of the network to rewrite.
PART = re.compile(r"rlawrap\.apply\(model, at=\[?'([^']+)'")


def check(net: Wild) -> dict[str, Any]:
    """One row: how many calls it took, the blocks found and expected, and every check's verdict.

    `calls` tells with what it was accepted: "model" alone, its "example", or a "second" call that
    the refusal of the first names: a part of the network, or the options in the list.
    """
    row: dict[str, Any] = {"name": net.name}
    base = net.build()
    base.eval()
    torch.manual_seed(0)
    example = net.example()
    row["parameters"] = sum(p.numel() for p in base.parameters())
    with torch.no_grad():
        for training in (True, False) if net.trains else (False,):
            call(base.train(training), example)
    start = time.process_time()
    told: list[str] = []
    model, part = _accepted(net, base, example, row, told)
    row["apply_s"] = round(time.process_time() - start, 2)
    if model is None:
        return row
    if row["calls"] == "model":
        said = _same_output(base, model, example, training=False)
        if said.startswith(REFUSED):
            row["calls"], row["refusals"] = "second", [said]
            model = _apply(base, {"example_input": example}, told)
    plan = (model.get_submodule(part) if part else model).plan  # type: ignore[union-attr]
    row["warned"] = told
    row["notes"] = [note for note in plan.notes if "refuses" not in note]
    row["not_entered"] = [f"{b.path}: {b.note}" for b in plan.blocks if not b.entries]
    _compare_blocks(net, base, part, [b.path for b in plan.blocks], plan.left_out, row)
    row["checks"] = _checks(net, base, model, part, example)
    row["sound"] = all(v == "ok" or v.startswith(REFUSED) for v in row["checks"].values())
    return row


def _compare_blocks(
    net: Wild, base: nn.Module, part: str, found: list[str], left_out: Any, row: dict[str, Any]
) -> None:
    row["blocks"] = len(found)
    if net.family is None:
        return
    below = f"{part}." if part else ""
    expected = [p.removeprefix(below) for p in net.family.blocks(base) if p.startswith(below)]
    tokens = {path for path, reason in left_out if "token" in reason}
    row["expected"] = len(expected)
    row["missing"] = sorted(set(expected) - set(found) - tokens)
    row["extra"] = sorted(set(found) - set(expected))
    row["exact"] = not row["missing"] and not row["extra"]


def _accepted(
    net: Wild, base: nn.Module, example: Any, row: dict[str, Any], told: list[str]
) -> tuple[nn.Module | None, str]:
    """The rewritten network and the part that was, by the first call that is not refused."""
    refusals: list[str] = []
    tries = [("model", {}), ("example", {"example_input": example})]
    if net.second:
        tries.append(("second", {"example_input": example, **net.second}))
    for calls, options in tries:
        try:
            model = _apply(base, options, told)
        except rlawrap.RLAError as error:
            refusals.append(str(error))
        else:
            row["calls"], row["refusals"] = calls, refusals
            return model, ""
    row["refused"] = refusals[-1]
    part = next(filter(None, map(named_part, reversed(refusals))), "")
    if not part:
        return None, ""
    try:
        model = _with_part(base, part, example, told)
    except rlawrap.RLAError as error:
        row["refused_part"] = f"{part}: {error}"
        return None, ""
    row["calls"], row["refusals"] = "second", refusals
    row["part"] = part
    del row["refused"]
    return model, part


def named_part(message: str) -> str:
    """The path of the part that a message tells to rewrite alone, if it does."""
    named = PART.search(message)
    return named[1] if named else ""


def _apply(base: nn.Module, options: dict[str, Any], told: list[str]) -> nn.Module:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = rlawrap.apply(base, k=K, **options)
    told[:] = [str(w.message) for w in caught if issubclass(w.category, rlawrap.RLAWarning)]
    return model


def _with_part(base: nn.Module, part: str, example: Any, told: list[str]) -> nn.Module:
    """`rlawrap.apply(model, at=part)`; if refused, with what the part was called with."""
    model = copy.deepcopy(base)
    inner = model.get_submodule(part)
    try:
        return _apply(base, {"at": part}, told)
    except rlawrap.RLAError:
        given: list[Any] = []
        hook = inner.register_forward_pre_hook(
            lambda _, args, kwargs: given.append((args, kwargs)), with_kwargs=True
        )
        with torch.no_grad():
            call(model, example)
        hook.remove()
        args, kwargs = given[0] if given else ((), {})
        if not given or (args and kwargs):
            raise
        return _apply(base, {"at": part, "example_input": kwargs or args}, told)


def _checks(
    net: Wild, base: nn.Module, model: nn.Module, part: str, example: Any
) -> dict[str, str]:
    modes = (False, True) if net.trains else (False,)
    verdicts: dict[str, str] = {}
    own, its = (m.get_submodule(part) if part else m for m in (base, model))
    verdicts["keys"] = same_keys(own, its)
    verdicts["eval"] = _same_output(base, model, example, training=False)
    if net.trains:
        verdicts["train"] = _same_output(base, model, example, training=True)
    if net.trains and not part:
        verdicts["statistics"] = same_buffers(base, model)
    others = {"batch": one_more(example)}
    large = first_tensor(example)[0].numel() > LARGE
    for by in () if large else ((32,), (16,), (8,)):
        if runs(base, larger := grown(example, *by), modes):
            others["size"] = larger
            break
    others["odd size"] = grown(example, 13, 5)
    for what, other in others.items():
        if runs(base, other, modes):
            verdicts[what] = _same_output(base, model, other, training=False)
    if net.trains:
        verdicts["gradients"] = _gradients(model, part, example)
    return verdicts


def _same_output(base: nn.Module, model: nn.Module, example: Any, *, training: bool) -> str:
    outputs = []
    with torch.no_grad():
        for network in (base, model):
            network.train(training)
            torch.manual_seed(2)
            try:
                outputs.append(call(network, mapped(example, torch.clone)))
            except Exception as error:
                if network is base:
                    raise
                if "give apply an input like this one" in str(error):
                    return f"{REFUSED}: {error}"[:400]
                return f"does not run: {type(error).__name__}: {error}"[:400]
    if type(outputs[0]) is not type(outputs[1]):
        return f"returns {type(outputs[1]).__name__} for {type(outputs[0]).__name__}"
    return verdict(relative_error(outputs[1], outputs[0]))


def _gradients(model: nn.Module, part: str, example: Any) -> str:
    def run(network: nn.Module, dtype: torch.dtype) -> Any:
        return call(network, in_precision(mapped(example, _another), dtype))

    try:
        return gradients(model, run, under=f"{part}.rla." if part else "rla.")
    except Exception as error:
        return f"no gradients: {type(error).__name__}: {error}"[:400]


def _another(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor like it, drawn from the global random state."""
    if not tensor.is_floating_point():
        return tensor
    return torch.rand_like(tensor) if tensor.min() >= 0 else torch.randn_like(tensor)
