"""The command `rlawrap show`: pictures of a plan, of h, of class maps and of the gates."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from torch import nn

from rlawrap.errors import ConfigError
from rlawrap.network_options import (
    InputOption,
    KOption,
    ModelArgOption,
    PretrainedOption,
    RlaArgOption,
    RlaOption,
    open_network,
    parse_inputs,
    rla_options,
    spelled_out,
)
from rlawrap.show.images import Preparation, preparation_of, random_input
from rlawrap.show.picture import Picture, What, checked_ending, show

ModelArgument = Annotated[
    str,
    typer.Argument(
        help="a network, named as for `rlawrap inspect`; the folder or a checkpoint of a run; or a "
        ".safetensors file that `rlawrap.save` wrote"
    ),
]


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A model and, of a run, how its test images were made ready and its classes."""

    model: nn.Module
    preparation: Preparation | None = None
    classes: Sequence[str] | None = None


def show_command(
    model: ModelArgument,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="the .svg or .png; default: WHAT.svg, as plan.svg"),
    ] = None,
    hidden: Annotated[
        Path | None, typer.Option(help="draw h along the depth on this image")
    ] = None,
    cam: Annotated[
        Path | None, typer.Option(help="draw where a class is seen on this image (Grad-CAM)")
    ] = None,
    gates: Annotated[
        bool, typer.Option("--gates", help="draw what h adds at each layer that it enters")
    ] = False,
    images: Annotated[
        list[Path] | None,
        typer.Argument(help="with --gates: images to measure on; default: random numbers"),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="with --cam: the class, by name or number")
    ] = None,
    layer: Annotated[
        str | None, typer.Option(help="with --cam: the layer; default: the last with an image")
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=1, help="side of the images; default: the network's, or 224")
    ] = None,
    mean: Annotated[
        list[float] | None, typer.Option(help="of the pixels (0 to 1); once for each channel")
    ] = None,
    std: Annotated[
        list[float] | None, typer.Option(help="their deviation; once for each channel")
    ] = None,
    dark: Annotated[bool, typer.Option("--dark", help="on a dark background")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="print the figures as JSON, no table")
    ] = False,
    arch: Annotated[
        str | None, typer.Option(help="of a run: what makes its network now, as FILE.py:NAME")
    ] = None,
    model_arg: ModelArgOption = None,
    pretrained: PretrainedOption = False,
    rla: RlaOption = False,
    k: KOption = None,
    rla_arg: RlaArgOption = None,
    shape: InputOption = None,
) -> None:
    """Draw a network's plan; with an image what its hidden state holds, and what it does."""
    what, image = _asked(hidden, cam, gates, images)
    for option, value in (("--target", target), ("--layer", layer)):
        if value is not None and what != "cam":
            raise ConfigError(f"show: {option} goes with --cam IMAGE.")
    path = checked_ending(output or Path(f"{what}.svg"))
    network = spelled_out(model_arg, pretrained, rla, k, rla_arg)
    example = parse_inputs(shape)
    opened = _of_file(model, network, arch)
    if opened is None:
        made = open_network(
            model, model_arg=model_arg, pretrained=pretrained, example_input=example
        )
        if rla or k or rla_arg:
            made = _with_h(made, k, rla_arg, example)
        opened = Opened(model=made)
    if example is not None and what == "gates":
        example = random_input(opened.model, example)
    picture = show(
        opened.model,
        image,
        what,
        dark=dark,
        example_input=example if image is None else None,
        preparation=_preparation(opened, size, mean, std) if image is not None else None,
        classes=opened.classes,
        target=target,
        layer=layer,
    )
    _tell(picture, picture.save(path), as_json)


def _asked(
    hidden: Path | None, cam: Path | None, gates: bool, images: list[Path] | None
) -> tuple[What, Any]:
    """Which picture is asked for, and of which images."""
    asked = [n for n, on in (("--hidden", hidden), ("--cam", cam), ("--gates", gates)) if on]
    if len(asked) > 1:
        raise ConfigError(f"show: {' and '.join(asked)} are a picture each; give one of them.")
    if images and not gates:
        raise ConfigError("show: images go behind --gates; --hidden and --cam take one each.")
    if hidden is not None:
        return "hidden", hidden
    if cam is not None:
        return "cam", cam
    return ("gates", images or None) if gates else ("plan", None)


def _with_h(model: nn.Module, k: int | None, rla_arg: list[str] | None, example: Any) -> nn.Module:
    """A network with a hidden state as the options say; as it is, if it has one."""
    import rlawrap

    if isinstance(model, rlawrap.RLAModel):
        return model
    return rlawrap.apply(model, **(rla_options(True, k, rla_arg) or {}), example_input=example)


def _of_file(name: str, network_options: str, arch: str | None) -> Opened | None:
    """The model of a run or of a saved file; None for what is the name of a network."""
    path = Path(name)
    saved = path.exists() and ":" not in name
    if arch is not None and (not saved or path.suffix == ".safetensors"):
        raise ConfigError(
            f"show {name} --arch {arch}: --arch says what makes the network of a run now. Leave it "
            "out."
        )
    if not saved:
        return None
    if network_options:
        raise ConfigError(
            f"show {name}: a file knows its network;{network_options} is for one by its name."
        )
    if path.suffix == ".safetensors":
        import rlawrap

        return Opened(model=rlawrap.load(path))
    from rlawrap.train.loop.loading import filled, load_checkpoint

    state, config = load_checkpoint(path)
    model = filled(state, config, name, average=True, arch=arch, model=None)
    known: Mapping[str, Any] | None = state.get("preparation")
    preparation = None
    if known is not None:
        preparation = Preparation(
            size=(known["size"], known["size"]),
            mean=tuple(known["mean"]),
            std=tuple(known["std"]),
            resize=known["resize"],
        )
    return Opened(model=model, preparation=preparation, classes=state["classes"])


def _preparation(
    opened: Opened, size: int | None, mean: list[float] | None, std: list[float] | None
) -> Preparation:
    """As the run's images were made ready, but for what the options say; else as the network's."""
    known = opened.preparation
    if known is None:
        return preparation_of(opened.model, size=size, mean=mean, std=std)
    return preparation_of(
        opened.model,
        size=size or known.size,
        mean=mean or known.mean,
        std=std or known.std,
        resize=known.resize if size is None else None,
    )


def _tell(picture: Picture, path: Path, as_json: bool) -> None:
    if as_json:
        print(json.dumps({**picture.to_dict(), "file": str(path)}, indent=2))
        return
    print(picture)
    print(path)
