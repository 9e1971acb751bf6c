"""Class-activation maps (Grad-CAM), with the hidden state and without it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rlawrap.errors import ConfigError, PlanError, RLAError, few
from rlawrap.show.drawing import Pixels
from rlawrap.show.recording import parts_of, quiet_copy, shown_name
from rlawrap.splice import disabled
from rlawrap.splice.inside import added_in

Heat: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class ClassMap:
    """One network's map of a class, [height, width] from 0 to 1, and the class's probability.

    first: the class that the network itself takes the image for, with its probability.
    """

    heat: Heat
    score: float
    first: str
    first_score: float


@dataclass(frozen=True, kw_only=True)
class ClassMaps:
    """Where a class is seen: `plain` without the hidden state (`rlawrap.disabled`), `rla` with it.

    layer: whose output the maps are of. photo: what the network saw, uint8 [height, width, 3].
    """

    model: str
    source: str
    photo: Pixels
    label: str
    layer: str
    plain: ClassMap
    rla: ClassMap

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: classes and probabilities, no maps."""
        both = {
            name: {"score": m.score, "first": m.first, "first_score": m.first_score}
            for name, m in (("plain", self.plain), ("rla", self.rla))
        }
        return {
            "model": self.model, "source": self.source, "class": self.label, "layer": self.layer,
            **both,
        }  # fmt: skip

    def __str__(self) -> str:
        lines = [f"{self.model} on {self.source}: {self.label}, seen at {self.layer}"]
        for name, m in (("without h", self.plain), ("with h", self.rla)):
            lines.append(f"{name}: {m.score:.1%}; first: {m.first}, {m.first_score:.1%}")
        return "\n".join(lines)


def class_maps(
    model: nn.Module,
    x: Tensor,
    source: str,
    photo: Pixels,
    *,
    classes: Sequence[str] | None = None,
    target: int | str | None = None,
    layer: str | None = None,
) -> ClassMaps:
    """Grad-CAM of one class on a copy of the model, with h and without.

    target: the class, by number or name; else the one that the model takes the image for.
    layer: the path of the layer to look at; else the last whose output is an image.
    Raises `PlanError` for a model without hidden state or without classifier, `ConfigError` for a
    class or layer that there is not, `RLAError` without grad-cam.
    """
    call = 'show(model, image, what="cam")'
    parts_of(model, call)
    _require_cam()
    twin = quiet_copy(model).requires_grad_(True)
    scores, path = _scores(twin, x, call)
    if layer is not None and layer not in dict(twin.named_modules()):
        near = [name for name, _ in twin.named_modules() if name.startswith(layer[:4])]
        raise ConfigError(f"{call}: layer={layer!r} is no module of it. Near: {few(near, 4)}.")
    path = layer or path
    number = _number(target, classes, scores.shape[1], int(scores.argmax()), call)

    def name(i: int) -> str:
        return classes[i] if classes is not None and i < len(classes) else f"class {i}"

    def one() -> ClassMap:
        scores, _ = _scores(twin, x, call)
        first = int(scores.argmax())
        return ClassMap(
            heat=_cam(twin, x, path, number, call),
            score=float(scores[0, number]),
            first=name(first),
            first_score=float(scores[0, first]),
        )

    with disabled(twin):
        plain = one()
    return ClassMaps(
        model=shown_name(model),
        source=source,
        photo=photo,
        label=name(number),
        layer=path,
        plain=plain,
        rla=one(),
    )


def _require_cam() -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pytorch_grad_cam  # noqa: F401
    except ImportError as error:
        raise RLAError(
            "class-activation maps need grad-cam, which is not installed: "
            "pip install 'rlawrap[show]'."
        ) from error


def _scores(model: nn.Module, x: Tensor, call: str) -> tuple[Tensor, str]:
    """The classes' probabilities, and the last layer of the base whose output is an image."""
    is_added = added_in(model)
    images: list[str] = []

    def keep(path: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.dim() == 4 and min(output.shape[2:]) > 1:
                images.append(path)

        return hook

    hooks = [
        module.register_forward_hook(keep(path))
        for path, module in model.named_modules()
        if path and not is_added(path)
    ]
    try:
        with torch.no_grad():
            logits = model(x)
    finally:
        for handle in hooks:
            handle.remove()
    if not isinstance(logits, Tensor) or logits.dim() != 2 or logits.shape[1] < 2:
        what = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise PlanError(
            f"{call}: needs a network with a classifier, which returns [images, classes]; this one "
            f'returns {what}. `rlawrap.show(model, image, what="hidden")` needs none.'
        )
    if not images:
        raise PlanError(f"{call}: no layer of the network returns an image; name one with layer=.")
    return logits.float().softmax(1), images[-1]


def _number(
    target: int | str | None, classes: Sequence[str] | None, count: int, best: int, call: str
) -> int:
    """The number of the class that is looked for."""
    if target is None:
        return best
    named = list(classes or ())
    if str(target) in named:
        return named.index(str(target))
    if str(target).isdigit() and int(target) < count:
        return int(target)
    known = f"; it knows {few(named)}" if named else ""
    raise ConfigError(f"{call}: target={target!r} is no class of the {count}{known}.")


def _cam(model: nn.Module, x: Tensor, path: str, number: int, call: str) -> Heat:
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with GradCAM(model=model, target_layers=[model.get_submodule(path)]) as explain:
                found: Heat = explain(input_tensor=x, targets=[ClassifierOutputTarget(number)])[0]
    except (ValueError, IndexError, AttributeError, RuntimeError) as error:
        raise PlanError(
            f"{call}: no gradient was found at {path} ({error}); name another layer with layer=."
        ) from error
    return found
