"""The command `rlawrap lr-find`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlawrap.errors import RLAError
from rlawrap.train.commands.options import (
    DataArgument,
    OptionsCommand,
    config_from_options,
    with_config_options,
)
from rlawrap.train.loop.lr_range import Point, lr_range, suggest
from rlawrap.train.records.plot import plotting, save_figure, stem_of
from rlawrap.train.store.json_files import write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

lr_find_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@lr_find_app.command(cls=OptionsCommand)
@with_config_options
def lr_find(
    *,
    data: DataArgument = None,
    start: Annotated[float, typer.Option(help="the first learning rate")] = 1e-5,
    end: Annotated[float, typer.Option(help="the last one, if the loss allows")] = 10.0,
    steps: Annotated[int, typer.Option(help="optimiser steps")] = 100,
    recipe: Annotated[str | None, typer.Option(help="start from this recipe")] = None,
    config: Annotated[
        str | None, typer.Option(help="start from this config: JSON, YAML or TOML; or JSON text")
    ] = None,
    **options: Any,
) -> None:
    """Try growing learning rates for a few steps; draw the loss over them and suggest one.

    --output names the files: STEM.png, STEM.svg and STEM.json; default: lr-find.
    """
    stem = stem_of(Path(options["output"] or "lr-find"), "lr-find")
    chosen = config_from_options({**options, "data": data}, recipe=recipe, base=config)
    shown = max(1, steps // 10)
    count = 0

    def show(point: Point) -> None:
        nonlocal count
        count += 1
        if count % shown == 0 and chosen.progress != "none":
            print(f"step {count}/{steps}  lr {point.lr:.2g}  loss {point.smoothed:.4f}", flush=True)

    with plotting():  # says what is missing before anything is computed
        points = lr_range(chosen, start=start, end=end, steps=steps, after_step=show)
        best = suggest(points)
        files = save_figure(draw_range(points, best), stem)
    results = stem.with_name(stem.name + ".json")
    try:
        write_json(results, {"suggestion": best, "points": [asdict(each) for each in points]})
    except OSError as error:
        raise RLAError(f"{results}: cannot be written ({error.strerror}).") from error
    print("\n".join(map(str, [*files, results])))
    print(verdict(points, best))


def verdict(points: Sequence[Point], best: float | None) -> str:
    """What came out, in a sentence.

    >>> verdict([], None)
    'no step had a finite loss; begin with a smaller --start'
    """
    if not points:
        return "no step had a finite loss; begin with a smaller --start"
    until = f"up to {points[-1].lr:.2g}, in {len(points)} steps"
    if best is None:
        return f"no suggestion: the loss did not fall {until}; try more --steps or another range"
    return f"--lr {best:.2g}: there the loss falls the fastest; tried {until}"


def draw_range(points: Sequence[Point], best: float | None) -> Figure:
    """The loss over the learning rate, and the suggestion."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    rates = [each.lr for each in points]
    axes.plot(rates, [each.loss for each in points], color="C0", alpha=0.3, label="each step")
    axes.plot(rates, [each.smoothed for each in points], color="C0", label="smoothed")
    if best is not None:
        axes.axvline(best, color="C1", linestyle="--", label=f"suggestion: {best:.2g}")
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure
