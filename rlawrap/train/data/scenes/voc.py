"""Pascal VOC's annotations: an XML file for each image."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlawrap.errors import DataError, few
from rlawrap.train.data.decode import unreadable
from rlawrap.train.data.scenes.files import image_size, images_in
from rlawrap.train.data.scenes.records import Box, Scene, SceneIndex, Thing
from rlawrap.train.data.scenes.things import Tally, numbers_of, sound_box

NO_XML = "images without an XML file, left out"
FROM_ZERO = "boxes starting at 0, so that pixels are counted from 0 here, not from 1 as in VOC"
_SIDES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, kw_only=True)
class _Object:
    name: str
    corners: Box
    difficult: bool


@dataclass(frozen=True, kw_only=True)
class _Annotation:
    path: Path
    image: str
    size: tuple[int, int]
    objects: tuple[_Object, ...]


def read_voc(
    root: Path,
    *,
    subset: str | None = None,
    classes: Sequence[str] | None = None,
    first_pixel: int | None = None,
) -> SceneIndex:
    """The scenes of a VOC folder, in the order of their names.

    root: with JPEGImages/ and Annotations/, or with images and XML files side by side. subset: a
    list in ImageSets/Main, such as "train". classes: those of the training split; without, the
    names in order. first_pixel: the number of the first pixel of a row, 1 in VOC, where `xmax` is
    the last pixel inside; None: 1, or 0 when some box starts at 0. Coordinates may have fractions.
    Things marked difficult are as COCO's crowds: not learned, and not counted when found. What is
    wrong with boxes is handled as `read_coco` does.

    Raises `DataError`, which names the file and the object, for XML that is none, what is missing
    in it, XML files without an image, and classes that `classes` does not have.
    """
    pictures, annotations = _folders(root)
    files = images_in(pictures)
    tally = Tally()
    read = [_read(path, pictures, files) for path in _xml_files(root, annotations, subset)]
    seen = {one.image: one.path for one in reversed(read)}
    if subset is None:
        for name in files:
            if name not in seen:
                tally.add(NO_XML, name)
    for one in read:
        if seen[one.image] != one.path:
            raise DataError(f"{one.path} and {seen[one.image]} are both for {one.image}.")
    if first_pixel is None:
        first_pixel = _first_pixel(read, tally)
    names = sorted({thing.name for one in read for thing in one.objects})
    if not names and classes is None:
        raise DataError(f"{annotations}: {len(read)} XML files, none of which has an object.")
    labels = numbers_of(names, classes, str(annotations))
    things = [_things(one, labels, first_pixel, tally) for one in read]
    return SceneIndex(
        root=pictures,
        source=str(root),
        scenes=tuple(
            Scene(
                file=one.image,
                id=number,
                width=one.size[0],
                height=one.size[1],
                size=files[one.image],
            )
            for number, one in enumerate(read, 1)
        ),
        things=tuple(things),
        classes=tuple(labels),
        category_ids=tuple(labels.values()),
        left_out=tally.entries(),
    )


def _folders(root: Path) -> tuple[Path, Path]:
    pictures, annotations = root / "JPEGImages", root / "Annotations"
    if pictures.is_dir() and annotations.is_dir():
        return pictures, annotations
    return root, root


def _xml_files(root: Path, folder: Path, subset: str | None) -> list[Path]:
    """The annotation files of a split, in order. Raises `DataError` when there is none."""
    if subset is None:
        paths = sorted(path for path in folder.glob("*.xml") if not path.name.startswith("."))
    else:
        listed = root / "ImageSets" / "Main" / f"{subset}.txt"
        try:
            lines = listed.read_text().split("\n")
        except OSError as error:
            raise unreadable(str(listed), error) from error
        names = [line.split()[0] for line in lines if line.strip()]
        paths = sorted({folder / f"{name}.xml" for name in names})
        absent = [path.stem for path in paths if not path.is_file()]
        if absent:
            raise DataError(
                f"{listed}: {len(absent)} of {len(paths)} names without an XML file in {folder}: "
                f"{few(absent, 3)}."
            )
    if not paths:
        raise DataError(f"{folder}: no XML files; VOC has one for each image.")
    return paths


def _read(path: Path, pictures: Path, files: dict[str, int]) -> _Annotation:
    """One file. Raises `DataError` for XML that is none, or that is not VOC's."""
    try:
        root = ET.fromstring(path.read_bytes())
    except OSError as error:
        raise unreadable(str(path), error) from error
    except ET.ParseError as error:
        line, column = error.position
        raise DataError(f"{path}, line {line}, column {column}: no XML ({error}).") from error
    if root.tag != "annotation":
        raise DataError(f"{path}: its outermost element is <{root.tag}>, not VOC's <annotation>.")
    image = _image(path, root, pictures, files)
    sides = [_number(root.findtext(f"size/{side}")) for side in ("width", "height")]
    if all(side is not None and side >= 1 for side in sides):
        size = int(sides[0] or 0), int(sides[1] or 0)
    else:  # some tools write none, or zeros
        size = image_size(pictures / image)
    objects = [_object(path, number, node) for number, node in enumerate(root.iter("object"))]
    return _Annotation(path=path, image=image, size=size, objects=tuple(objects))


def _image(path: Path, root: ET.Element, pictures: Path, files: dict[str, int]) -> str:
    """The image of an XML file: of the name in it, or of its own name."""
    named = (root.findtext("filename") or "").strip().replace("\\", "/").rpartition("/")[2]
    for name in (named, *(f"{path.stem}{ending}" for ending in (".jpg", ".jpeg", ".png"))):
        if name in files:
            return name
    same = [name for name in files if Path(name).stem == path.stem]
    if same:
        return same[0]
    raise DataError(
        f"{path}: no image for it in {pictures}: neither {named or 'a <filename>'!r} nor "
        f"{path.stem} with another ending. Put the image there, or take the XML file away."
    )


def _object(path: Path, number: int, node: ET.Element) -> _Object:
    where = f"{path}, object[{number}]"
    name = (node.findtext("name") or "").strip()
    if not name:
        raise DataError(f"{where}: has no <name>.")
    corners = []
    for side in _SIDES:
        text = node.findtext(f"bndbox/{side}")
        value = _number(text)
        if value is None:
            found = "is missing" if text is None else f"is {text!r}, no number"
            raise DataError(f"{where} ({name}): <{side}> of its <bndbox> {found}.")
        corners.append(value)
    left, top, right, bottom = corners
    difficult = (node.findtext("difficult") or "0").strip() == "1"
    return _Object(name=name, corners=(left, top, right, bottom), difficult=difficult)


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _first_pixel(read: Iterable[_Annotation], tally: Tally) -> int:
    """0 where a box starts at 0, which no pixel of VOC is, else 1."""
    first = 1
    for one in read:
        for number, thing in enumerate(one.objects):
            if 0 <= min(thing.corners[:2]) < 1:
                tally.add(FROM_ZERO, f"{one.path}, object[{number}]")
                first = 0
    return first


def _things(
    one: _Annotation, labels: dict[str, int], first_pixel: int, tally: Tally
) -> tuple[Thing, ...]:
    found = []
    for number, thing in enumerate(one.objects):
        left, top, right, bottom = thing.corners
        # The last pixel inside, counted from 1, is the first one outside, counted from 0.
        corners = (left - first_pixel, top - first_pixel, right, bottom)
        box = sound_box(corners, *one.size, f"{one.path}, object[{number}]", tally)
        if box is not None:
            area = (box[2] - box[0]) * (box[3] - box[1])
            found.append(Thing(box=box, label=labels[thing.name], area=area, crowd=thing.difficult))
    return tuple(found)
