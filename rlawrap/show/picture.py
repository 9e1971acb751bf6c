"""`show`: what a plan, a hidden state, a class map or the gates look like."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from rlawrap.capture.shadow import device_and_dtype
from rlawrap.config import RLAConfig
from rlawrap.errors import ConfigError, PlanError, RLAError
from rlawrap.files import put_in_place
from rlawrap.plan import Plan, Plans
from rlawrap.show.cam import ClassMaps, class_maps
from rlawrap.show.charts import draw_cam, draw_gates, draw_hidden
from rlawrap.show.drawing import Drawing, stacked
from rlawrap.show.gates import Gates, measure_gates
from rlawrap.show.hidden import HiddenStates, record_hidden
from rlawrap.show.images import (
    Photo,
    Preparation,
    call_with,
    open_photo,
    preparation_of,
    random_input,
)
from rlawrap.show.plan_map import draw_plan
from rlawrap.show.raster import to_png
from rlawrap.show.recording import parts_of
from rlawrap.show.svg import to_svg
from rlawrap.splice import inspect
from rlawrap.splice.inside import rewritten_in

What: TypeAlias = Literal["plan", "hidden", "cam", "gates"]
WHATS: tuple[What, ...] = ("plan", "hidden", "cam", "gates")
ENDINGS = (".svg", ".png")


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What `show` found (`data`, plain arrays and numbers) and how it is drawn.

    A notebook shows it; `save` writes an SVG or a PNG; `print` shows the figures as a table.
    """

    what: What
    data: Plans | HiddenStates | ClassMaps | Gates
    drawing: Drawing
    dark: bool = False

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the picture: .svg needs nothing, .png needs matplotlib. The file appears whole.

        Raises `ConfigError` for another ending, `RLAError` if it cannot be drawn or written.
        """
        target = checked_ending(Path(path))
        svg = target.suffix.lower() == ".svg"
        content = self.svg().encode() if svg else to_png(self.drawing, dark=self.dark)
        new = target.with_name(f".{target.name}.new")
        try:
            new.write_bytes(content)
            put_in_place(new, target)
        except OSError as error:
            with suppress(OSError):
                new.unlink()
            raise RLAError(f"{target}: cannot be written ({error.strerror}).") from error
        return target

    def svg(self) -> str:
        """The picture as SVG."""
        return to_svg(self.drawing, dark=self.dark)

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain values for JSON."""
        return {"what": self.what, **json.loads(json.dumps(self.data.to_dict()))}

    def __str__(self) -> str:
        plans = self.data if isinstance(self.data, Plans) else None
        return str(plans[""]) if plans is not None and "" in plans else str(self.data)

    def _repr_svg_(self) -> str:
        return self.svg()

    def _repr_html_(self) -> str:
        return f'<div style="overflow-x:auto">{self.svg()}</div>'

    def _repr_png_(self) -> bytes | None:
        try:
            return to_png(self.drawing, dark=self.dark)
        except RLAError:
            return None  # without matplotlib a notebook has the SVG


def checked_ending(path: Path) -> Path:
    """A path, if a picture can be written there. Raises `ConfigError` for another ending."""
    if path.suffix.lower() not in ENDINGS:
        raise ConfigError(f"{path}: a picture is written as {' or '.join(ENDINGS)}.")
    return path


def show(
    model: nn.Module | Plan | Plans,
    image: Any = None,
    what: What = "plan",
    *,
    dark: bool = False,
    example_input: Any = None,
    preparation: Preparation | None = None,
    size: int | Sequence[int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    classes: Sequence[str] | None = None,
    target: int | str | None = None,
    layer: str | None = None,
) -> Picture:
    """A picture of a network's plan, of what its hidden state holds, or of what it does.

    what="plan": stages, blocks, where h enters and leaves; of any network, or of a plan.
    what="hidden": h after each block, on `image`. what="cam": where a class is seen (Grad-CAM,
    extra `show`), without h and with it; `target` names the class, `layer` the layer to look at.
    what="gates": the norms of `Conv_h(h)` and `Conv_x(x)` at each layer that h enters, averaged
    over `image` (one or a list), or over random numbers without one.

    image: a file, a Pillow image, or a tensor: pixels if uint8, else what the network takes. Files
    are resized, cut (`size`) and normalised (`mean`, `std`) as the network's `default_cfg` says, or
    as for ImageNet; `preparation` says it all at once. example_input: what the network takes, where
    that is no image. classes: their names. dark: a dark background.

    The model is left as it is: a copy is run, in evaluation mode. Raises `PlanError` for a model
    without hidden state (but for its plan), `DataError` for an image that is not there or damaged,
    `ConfigError` for other arguments.

    >>> import rlawrap, torchvision
    >>> model = rlawrap.apply(torchvision.models.resnet18(weights=None), k=8)
    >>> picture = show(model)
    >>> "layer4.1" in picture.svg()
    True
    """
    if what not in WHATS:
        raise ConfigError(f"show: what={what!r}; one of {', '.join(map(repr, WHATS))}.")
    if what == "plan":
        if image is not None:
            raise ConfigError('show: a plan needs no image; what="hidden", "cam" or "gates" do.')
        return _plan_picture(model, example_input, dark)
    call = f'show(model, {"" if what == "gates" else "image, "}what="{what}")'
    if isinstance(model, (Plan, Plans)):
        raise PlanError(f"{call}: a plan does not run; pass the model, from rlawrap.apply.")
    parts_of(model, call)
    how = preparation
    if image is not None and how is None:
        how = preparation_of(model, size=size, mean=mean, std=std)
    if what == "gates":
        gates = _gates(model, image, how, example_input)
        return Picture(what=what, data=gates, drawing=draw_gates(gates), dark=dark)
    photo = _one_photo(image, how, call)
    args, kwargs = call_with(photo.tensor, device_and_dtype(model))
    if what == "hidden":
        hidden = record_hidden(model, args, kwargs, photo.name, photo.pixels)
        return Picture(what=what, data=hidden, drawing=draw_hidden(hidden), dark=dark)
    maps = class_maps(
        model, args[0], photo.name, photo.pixels, classes=classes, target=target, layer=layer
    )
    return Picture(what=what, data=maps, drawing=draw_cam(maps), dark=dark)


def _plan_picture(model: Any, example: Any, dark: bool) -> Picture:
    plans, configs = _plans(model, example)
    drawings = [draw_plan(plan, configs.get(path), where=path) for path, plan in plans.items()]
    drawing = drawings[0] if len(drawings) == 1 else stacked(drawings, title="several plans")
    return Picture(what="plan", data=plans, drawing=drawing, dark=dark)


def _plans(model: Any, example: Any) -> tuple[Plans, Mapping[str, RLAConfig]]:
    """The plans by path, and the configurations of networks that are rewritten."""
    if isinstance(model, Plans):
        return model, {}
    if isinstance(model, Plan):
        return Plans({"": model}), {}
    if not isinstance(model, nn.Module):
        raise PlanError(f"show: expected a torch.nn.Module or a Plan, got {type(model).__name__}.")
    parts = rewritten_in(model)
    if not parts:
        return Plans({"": inspect(model, example_input=example)}), {}
    plans = {path: part.rla.plan for path, part in parts.items()}
    return Plans(plans), {path: part.rla.config for path, part in parts.items()}


def _one_photo(image: Any, how: Preparation | None, call: str) -> Photo:
    if image is None or how is None:
        raise ConfigError(f"{call}: needs an image, a file or a tensor.")
    if isinstance(image, (list, tuple)):
        if len(image) != 1:
            raise ConfigError(f"{call}: takes one image, got {len(image)}.")
        image = image[0]
    return open_photo(image, how)


def _gates(model: nn.Module, image: Any, how: Preparation | None, example: Any) -> Gates:
    """The gates on images, on the input given, or on random numbers."""
    if image is not None and example is not None:
        raise ConfigError("show: give image= or example_input=, not both.")
    given: Any
    if image is not None and how is not None:
        given, source = _batch(image, how)
    elif example is not None:
        given, source = example, "the input given"
    else:
        remembered = parts_of(model, "show(model)").get("")
        known = None if remembered is None else remembered.rla.splice.settings.example_input
        given, source = random_input(model, known), "random numbers (no image was given)"
    args, kwargs = call_with(given, device_and_dtype(model))
    return measure_gates(model, args, kwargs, source)


def _batch(image: Any, how: Preparation) -> tuple[Tensor, str]:
    """One image or several as a batch, and what they are called."""
    if isinstance(image, Tensor) and image.dim() == 4:
        image = list(image)
    photos = [open_photo(i, how) for i in (image if isinstance(image, (list, tuple)) else [image])]
    if not photos:
        raise ConfigError("show: image= is an empty list; leave it out for random numbers.")
    if len({photo.tensor.shape for photo in photos}) > 1:
        raise ConfigError("show: the images are tensors of several sizes; give them one size.")
    name = photos[0].name if len(photos) == 1 else f"{len(photos)} images"
    return torch.cat([photo.tensor for photo in photos]), name
