"""The command `rlawrap evaluate`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rlawrap.train.commands.options import DataArgument, parse_assignments
from rlawrap.train.loop.loading import evaluate as judge
from rlawrap.train.store.json_files import json_text


def evaluate(
    run: Annotated[
        str,
        typer.Argument(help="a run folder (its best network), a checkpoint, or weights (--arch)"),
    ],
    data: DataArgument = None,
    arch: Annotated[
        str | None, typer.Option(help="the network that plain or official weights are of")
    ] = None,
    model_arg: Annotated[
        list[str] | None, typer.Option(help="with --arch: NAME=VALUE; may be repeated")
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(help="side of the images; default: the run's, or the data's", min=1),
    ] = None,
    data_root: Annotated[
        str | None, typer.Option(help="folder that named data sets are found in")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="test or train; default: test, and all of a folder without splits"),
    ] = None,
    exif_orientation: Annotated[
        bool | None,
        typer.Option(
            "--exif-orientation/--no-exif-orientation",
            help="turn photographs upright; default: as in training",
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="images at once", min=1)] = 128,
    workers: Annotated[int, typer.Option(help="loader processes; 0: none", min=0)] = 2,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    average: Annotated[bool, typer.Option(help="the averaged weights, if any")] = True,
    confusion: Annotated[bool, typer.Option(help="print the confusion matrix too")] = False,
) -> None:
    """Loss, top-1 and top-5 of a trained network, as one JSON object."""
    result = judge(
        run,
        arch=arch,
        model_kwargs=parse_assignments(model_arg or []),
        image_size=image_size,
        data=data,
        data_root=data_root,
        split=split,
        exif_orientation=exif_orientation,
        batch_size=batch_size,
        workers=workers,
        device=device,
        average=average,
    )
    figures: dict[str, Any] = {**result.to_dict(), "images": result.images}
    if result.skipped:
        figures["skipped"] = result.skipped
    if confusion:
        figures["confusion"] = result.confusion.tolist()
    print(json_text(figures))
