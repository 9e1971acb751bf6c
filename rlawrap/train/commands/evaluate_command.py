"""The command `rlawrap evaluate`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from rlawrap.errors import ConfigError
from rlawrap.network_options import (
    KOption,
    RlaArgOption,
    RlaOption,
    parse_assignments,
    rla_options,
)
from rlawrap.streams import results_on_screen
from rlawrap.train.commands.options import DataArgument, ImportsOption, ModelArgOption
from rlawrap.train.loop.loading import evaluate as judge
from rlawrap.train.loop.per_class import class_table, confusion_table, figures
from rlawrap.train.store.json_files import json_text
from rlawrap.train.tasks.accuracy import Evaluation
from rlawrap.train.tasks.task import Judged


def evaluate(
    run: Annotated[
        str,
        typer.Argument(help="a run folder (its best network), a checkpoint, or weights (--arch)"),
    ],
    data: DataArgument = None,
    arch: Annotated[
        str | None,
        typer.Option(help="the network that plain or official weights are of, or a run is of now"),
    ] = None,
    model_arg: ModelArgOption = None,
    imports: ImportsOption = None,
    rla: RlaOption = False,
    k: KOption = None,
    rla_arg: RlaArgOption = None,
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
    on_bad_image: Annotated[
        Literal["fatal", "skip"] | None,
        typer.Option(
            help="a damaged image: stop, or leave it out and count it; default: as in training"
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="images at once", min=1)] = 128,
    workers: Annotated[int, typer.Option(help="loader processes; 0: none", min=0)] = 2,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps")] = "auto",
    average: Annotated[bool, typer.Option(help="the averaged weights, if any")] = True,
    per_class: Annotated[
        bool, typer.Option("--per-class", help="accuracy and precision of each class, too")
    ] = False,
    confusion: Annotated[
        bool, typer.Option("--confusion", help="the confusion matrix with class names, too")
    ] = False,
    table: Annotated[
        bool, typer.Option("--table", help="tables of classes in place of JSON")
    ] = False,
) -> None:
    """Loss, top-1 and top-5 of a trained network, as one JSON object or as tables."""
    result = judge(
        run,
        arch=arch,
        model_kwargs=parse_assignments(model_arg or []),
        imports=imports or (),
        rla=rla_options(rla or None, k, rla_arg),
        image_size=image_size,
        data=data,
        data_root=data_root,
        split=split,
        exif_orientation=exif_orientation,
        on_bad_image=on_bad_image,
        batch_size=batch_size,
        workers=workers,
        device=device,
        average=average,
    )
    with results_on_screen():
        _show(run, result, per_class=per_class, confusion=confusion, table=table)


def _show(run: str, result: Judged, *, per_class: bool, confusion: bool, table: bool) -> None:
    if not isinstance(result, Evaluation):
        if table or confusion:
            raise ConfigError(f"{run}: --table and --confusion are for runs of classification.")
        values = {**result.to_dict(), "images": result.images}
        if result.skipped:
            values["skipped"] = result.skipped
        print(json_text({**values, **(result.details if per_class else {})}))
        return
    if not table:
        print(json_text(figures(result, classes=per_class, confusion=confusion)))
        return
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console.width = 200  # a log or a pipe has no width to keep to
    console.print(
        f"loss {result.loss:.4f}  top-1 {result.top1:.2f} %  top-5 {result.top5:.2f} %  "
        f"{result.images:,} images"
        + (f", {result.skipped:,} broken ones left out\n" if result.skipped else "\n"),
        highlight=False,
    )
    console.print(class_table(result))
    if confusion:
        print()
        console.print(confusion_table(result))
