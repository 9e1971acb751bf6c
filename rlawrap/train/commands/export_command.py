"""The command `rlawrap export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from torch import nn

from rlawrap.deploy.folding import IMAGENET, Normalization
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
    parse_sides,
    spelled_out,
)


def export_command(
    name: Annotated[
        str,
        typer.Argument(
            help="a network, named as for `rlawrap inspect`, a run folder or checkpoint, or a "
            ".safetensors file of rlawrap.save",
            metavar="MODEL",
        ),
    ],
    to: Annotated[str, typer.Option("--to", help="onnx, pt2 (torch.export) or aoti (compiled)")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="the file to write: .onnx, or .pt2")
    ],
    batch: Annotated[
        int | None, typer.Option(min=1, help="fix the batch; default: any batch")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(help="fix the side of the image, or its sides as HxW; default: any size"),
    ] = None,
    shape: InputOption = None,
    normalize: Annotated[
        str | None,
        typer.Option(
            help="let the file normalise values from 0 to 1: 'imagenet', or MEAN/STD with a number "
            "for each channel, as 0.5,0.5,0.5/0.2,0.2,0.2"
        ),
    ] = None,
    arch: Annotated[
        str | None, typer.Option(help="of a run: what makes its network now, as FILE.py:NAME")
    ] = None,
    model_arg: ModelArgOption = None,
    pretrained: PretrainedOption = False,
    rla: RlaOption = False,
    k: KOption = None,
    rla_arg: RlaArgOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of text")] = False,
) -> None:
    """Write a network, folded, to a file that runs without rlawrap; it is compared first."""
    from rlawrap.deploy import export

    example = parse_inputs(shape)
    options = spelled_out(model_arg, pretrained, rla, k, rla_arg)
    model = saved_network(name, options, arch)
    if model is None:
        model = open_network(
            name,
            model_arg=model_arg,
            pretrained=pretrained,
            rla=rla,
            k=k,
            rla_arg=rla_arg,
            example_input=example,
        )
    done = export(
        model.eval(),
        output,
        to=to,
        example_input=example,
        batch=batch,
        size=parse_sides(size),
        normalize=None if normalize is None else parse_normalization(normalize),
    )
    print(json.dumps(done.to_dict(), indent=2) if as_json else done)


def saved_network(name: str, options: str, arch: str | None = None) -> nn.Module | None:
    """The network of a run, of a checkpoint of one, or of a file of `save`; None for other names.

    Raises `ConfigError` where options are given that only a network by name takes, or an arch where
    only a run does.
    """
    path = Path(name)
    saved = path.is_dir() or path.suffix in (".safetensors", ".pt", ".pth")
    if arch is not None and (not saved or path.suffix == ".safetensors"):
        raise ConfigError(
            f"export {name} --arch {arch}: --arch says what makes the network of a run now. Leave "
            "it out."
        )
    if not saved:
        return None
    if options:
        raise ConfigError(
            f"export {name}{options}: the file says which network it is of; leave out the options "
            "of networks by name."
        )
    if path.suffix == ".safetensors":
        from rlawrap.checkpoints import load

        return load(path)
    from rlawrap.train.loop.loading import load_model

    return load_model(path, arch=arch)


def parse_normalization(text: str) -> Normalization:
    """What --normalize says.

    >>> parse_normalization("0.5/0.25")
    ((0.5,), (0.25,))
    """
    if text == "imagenet":
        return IMAGENET
    try:
        mean, std = (tuple(float(n) for n in part.split(",")) for part in text.split("/"))
    except ValueError:
        raise ConfigError(
            f"--normalize {text!r}: write 'imagenet', or MEAN/STD with a number for each channel, "
            "as 0.5,0.5,0.5/0.2,0.2,0.2."
        ) from None
    return mean, std
