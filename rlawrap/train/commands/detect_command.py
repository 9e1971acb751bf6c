"""The command `rlawrap detect`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from rlawrap.errors import ConfigError, RLAError
from rlawrap.train.loop.detecting import Detector, Found, detect, open_detector

#: The file of all that was found, in the folder of the pictures.
RESULTS = "results.json"


def detect_command(
    images: Annotated[
        list[Path], typer.Argument(help="image files, and folders of them", metavar="IMAGES...")
    ],
    weights: Annotated[
        str, typer.Option(help="a run folder (its best network), or a checkpoint of a run")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="folder for the pictures and results.json")
    ] = Path("detections"),
    arch: Annotated[
        str | None, typer.Option(help="what makes the run's network now: FILE.py:NAME")
    ] = None,
    threshold: Annotated[
        float, typer.Option(help="the least score of what is taken", min=0, max=1)
    ] = 0.5,
    pictures: Annotated[bool, typer.Option(help="draw what was found")] = True,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps")] = "auto",
    average: Annotated[bool, typer.Option(help="the averaged weights, if any")] = True,
    on_bad_image: Annotated[
        Literal["fatal", "skip"], typer.Option(help="a damaged image: stop, or leave it out")
    ] = "fatal",
) -> None:
    """Boxes and masks that a trained detector finds: pictures, and COCO's results as JSON."""
    from rlawrap.train.data.scenes.results import write_results

    detector = open_detector(weights, arch=arch, device=device, average=average)

    def tell(error: RLAError) -> None:
        print(f"left out: {error}", file=sys.stderr, flush=True)

    if output.exists() and not output.is_dir():
        raise ConfigError(f"--output {output}: is a file; name a folder.")
    results: list[dict[str, Any]] = []
    taken: set[Path] = set()
    bad_image = tell if on_bad_image == "skip" else None
    try:
        output.mkdir(parents=True, exist_ok=True)
        found_in = detect(detector, images, threshold=threshold, bad_image=bad_image)
        for number, found in enumerate(found_in, 1):
            own = _results(detector, found, number)
            results += own
            picture = _free(output, found.file.stem, taken)
            if pictures:
                _draw(detector, found).save(picture)
            print(f"{found.file}: {_words(own)}{f', {picture}' if pictures else ''}")
        write_results(output / RESULTS, results)
    except OSError as error:
        raise RLAError(f"{output}: cannot be written ({error.strerror}).") from error
    print(output / RESULTS)


def _free(folder: Path, stem: str, taken: set[Path]) -> Path:
    """A file for a picture; images of one name in several folders get numbers."""
    path, number = folder / f"{stem}.png", 1
    while path in taken:
        number += 1
        path = folder / f"{stem}_{number}.png"
    taken.add(path)
    return path


def _results(detector: Detector, found: Found, number: int) -> list[dict[str, Any]]:
    """COCO's results of an image; of a segmentation the share of each class of its pixels."""
    from rlawrap.train.data.scenes.results import as_results

    if found.classes is None:
        return as_results(
            found.things,
            image_id=number,
            classes=detector.names,
            category_ids=detector.category_ids,
            file_name=str(found.file),
        )
    counts = found.classes.flatten().bincount(minlength=len(detector.names)).tolist()
    shares = {name: round(count / found.classes.numel(), 6)
              for name, count in zip(detector.names, counts, strict=True) if count}  # fmt: skip
    return [{"file_name": str(found.file), "image_id": number, "pixels": shares}]


def _draw(detector: Detector, found: Found) -> Any:
    """A picture, of Pillow."""
    from torchvision.transforms.v2.functional import to_pil_image

    from rlawrap.train.data.scenes.drawing import draw_classes, draw_things

    if found.classes is not None:
        return to_pil_image(draw_classes(found.image, found.classes, detector.names))
    return to_pil_image(draw_things(found.image, found.things, detector.names))


def _words(results: list[dict[str, Any]]) -> str:
    """What was found in an image, for people.

    >>> tree = {"category_name": "tree"}
    >>> _words([tree, tree, {"category_name": "car"}]), _words([])
    ('2 tree, 1 car', 'nothing')
    """
    if results and "pixels" in results[0]:
        return ", ".join(f"{name} {share:.1%}" for name, share in results[0]["pixels"].items())
    names = [result["category_name"] for result in results]
    return ", ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names)) or "nothing"
