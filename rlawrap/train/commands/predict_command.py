"""The command `rlawrap predict`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from rlawrap.errors import ConfigError, RLAError, printable
from rlawrap.files import replacing
from rlawrap.network_options import (
    KOption,
    RlaArgOption,
    RlaOption,
    parse_assignments,
    rla_options,
)
from rlawrap.streams import results_on_screen
from rlawrap.train.commands.options import ImportsOption, ModelArgOption
from rlawrap.train.loop.predicting import predict, write_csv, write_json


def predict_command(
    images: Annotated[
        list[Path], typer.Argument(help="image files, and folders of them", metavar="IMAGES...")
    ],
    weights: Annotated[
        str,
        typer.Option(help="a run folder (its best network), a checkpoint, or weights (--arch)"),
    ],
    arch: Annotated[
        str | None, typer.Option(help="the network that plain or official weights are of")
    ] = None,
    model_arg: ModelArgOption = None,
    imports: ImportsOption = None,
    rla: RlaOption = False,
    k: KOption = None,
    rla_arg: RlaArgOption = None,
    image_size: Annotated[
        int | None, typer.Option(help="side of the images; default: the run's, or 224", min=1)
    ] = None,
    top: Annotated[int, typer.Option(help="classes to name for each image", min=1)] = 5,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="file to write: .csv or .json; default: the screen"),
    ] = None,
    as_format: Annotated[
        Literal["csv", "json"] | None,
        typer.Option("--format", help="default: by the file's ending, otherwise csv"),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="images at once", min=1)] = 64,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps")] = "auto",
    average: Annotated[bool, typer.Option(help="the averaged weights, if any")] = True,
    on_bad_image: Annotated[
        Literal["fatal", "skip"], typer.Option(help="a damaged image: stop, or leave it out")
    ] = "fatal",
) -> None:
    """What a trained network takes images for: a row for each, the likeliest classes first."""
    ending = output.suffix.lower() if output is not None else ".csv"
    if as_format is None and ending not in (".csv", ".json"):
        raise ConfigError(f"--output {output}: end it in .csv or .json, or choose a --format.")
    write = write_json if (as_format or ending[1:]) == "json" else write_csv

    def tell(error: RLAError) -> None:
        print(f"left out: {error}", file=sys.stderr, flush=True)

    found = predict(
        weights,
        images,
        arch=arch,
        model_kwargs=parse_assignments(model_arg or []),
        imports=imports or (),
        rla=rla_options(rla or None, k, rla_arg),
        image_size=image_size,
        top=top,
        batch_size=batch_size,
        device=device,
        average=average,
        bad_image=tell if on_bad_image == "skip" else None,
    )
    if output is None:
        with results_on_screen():
            write(found, sys.stdout)
        return
    try:
        with replacing(output) as file:
            write(found, file)
    except OSError as error:
        raise RLAError(f"{output}: cannot be written ({error.strerror}).") from error
    print(printable(str(output)))
