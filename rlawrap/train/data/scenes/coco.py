"""COCO's annotations of instances: one JSON file for all images of a split."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlawrap.errors import DataError, few
from rlawrap.train.data.decode import unreadable
from rlawrap.train.data.scenes.files import images_in
from rlawrap.train.data.scenes.records import LeftOut, Polygons, Rle, Scene, SceneIndex, Thing
from rlawrap.train.data.scenes.things import Tally, numbers_of, sound_box

NOT_LISTED = "images that the annotations do not list, left out"
SHORT = "polygons of fewer than three points, left out"


def read_coco(
    images: Path, annotations: Path, *, classes: Sequence[str] | None = None
) -> SceneIndex:
    """The scenes of a COCO file, in the order of their ids.

    images: the folder that `file_name` is below. classes: those of the training split, by whose
    names the labels go; without, labels are 1 and on in the order of the category ids, which may
    have gaps. Boxes are cut at the edge of their image; those outside it or without an area, and
    images that the file does not list, are left out and counted in `left_out`. Images without
    annotations stay, as scenes with nothing in them.

    Raises `DataError`, which names file and record, for JSON that is none, missing keys, values of
    another kind, ids that occur twice, annotations of an image or a category that is not there,
    images that are not in the folder, and classes that `classes` does not have.
    """
    content = read_json(annotations)
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise DataError(
                f"{annotations}: no list {key!r}; it has {few(sorted(map(str, content)), 6)}. "
                "Expected COCO's annotations of instances."
            )
    records = _Records(annotations)
    names = records.categories(content["categories"])
    labels = numbers_of(list(names.values()), classes, str(annotations))
    tally = Tally()
    scenes = records.scenes(content["images"], images, tally)
    things: dict[int, list[Thing]] = {number: [] for number in scenes}
    for category in content["annotations"]:
        records.annotation(category, scenes, names, labels, things, tally)
    ordered = tuple(labels)
    ids = {name: number for number, name in names.items()}
    return SceneIndex(
        root=images,
        source=str(annotations),
        scenes=tuple(scenes[number] for number in sorted(scenes)),
        things=tuple(tuple(things[number]) for number in sorted(scenes)),
        classes=ordered,
        category_ids=tuple(ids.get(name, -1) for name in ordered),
        left_out=tally.entries(),
    )


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises `DataError` with file, line and column."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise unreadable(str(path), error) from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}, line {error.lineno}, column {error.colno}: no JSON ({error.msg}). The file "
            "is torn or was edited by hand; get it again."
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, byte {error.start}: no text in UTF-8, so no JSON.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}; expected COCO's object.")
    return content


class _Records:
    """Takes the records of a file one by one, and names each in its errors."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.place = ""
        self.seen: set[int] = set()
        self.count = 0

    def fail(self, what: str) -> DataError:
        return DataError(f"{self.path}, {self.place}: {what}")

    def get(self, record: Any, key: str, kind: type = int) -> Any:
        if not isinstance(record, dict):
            raise self.fail(f"a {type(record).__name__}; expected an object.")
        if key not in record:
            raise self.fail(f"has no {key!r}; it has {few(sorted(map(str, record)), 8)}.")
        value = record[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self.fail(f"{key} is {value!r:.60}; expected {_KINDS[kind]}.")
        return value

    def number(self, record: Any, kind: str, place: int, seen: Mapping[int, Any]) -> int:
        """The id of a record, which is named by it from now on."""
        self.place = f"{kind}[{place}]"
        found: int = self.get(record, "id")
        self.place += f" (id {found})"
        if found in seen:
            raise self.fail("another record has that id, too. Number them anew.")
        return found

    def categories(self, records: list[Any]) -> dict[int, str]:
        """Names by id, in the order of the ids; a name that occurs twice gets its id."""
        found: dict[int, str] = {}
        for place, record in enumerate(records):
            number = self.number(record, "categories", place, found)
            found[number] = self.get(record, "name", str)
        if not found:
            raise DataError(f"{self.path}: its list of categories is empty.")
        names = list(found.values())
        return {
            number: name if names.count(name) == 1 else f"{name} ({number})"
            for number, name in sorted(found.items())
        }

    def scenes(self, records: list[Any], folder: Path, tally: Tally) -> dict[int, Scene]:
        """Scenes by id, with what of the folder is not listed counted."""
        files = images_in(folder)
        found: dict[int, Scene] = {}
        missing: list[str] = []
        used: dict[str, int] = {}
        for place, record in enumerate(records):
            number = self.number(record, "images", place, found)
            name = self.get(record, "file_name", str)
            width, height = self.get(record, "width"), self.get(record, "height")
            if width < 1 or height < 1:
                raise self.fail(f"{name} has {width} x {height} pixels.")
            file = _file(name, files)
            if file is None:
                missing.append(name)
                file = name
            elif file in used:
                raise self.fail(f"{file} is listed as id {used[file]}, too.")
            used[file] = number
            found[number] = Scene(
                file=file, id=number, width=width, height=height, size=files.get(file, 0)
            )
        if missing:
            raise DataError(
                f"{self.path}: {len(missing)} of the {len(found)} images that it lists are not in "
                f"{folder}: {few(missing, 3)}. Put them there, or take them out of the file."
            )
        if not found:
            raise DataError(f"{self.path}: its list of images is empty.")
        rest = [name for name in files if name not in used]
        if rest:
            entry = LeftOut(reason=NOT_LISTED, count=len(rest), first=rest[0])
            tally.found[NOT_LISTED] = entry
        return found

    def annotation(
        self,
        record: Any,
        scenes: Mapping[int, Scene],
        names: Mapping[int, str],
        labels: Mapping[str, int],
        things: Mapping[int, list[Thing]],
        tally: Tally,
    ) -> None:
        """Put the thing of a record into `things`, where it is sound."""
        self.place = f"annotations[{self.count}]"
        self.count += 1
        if isinstance(record, dict) and "id" in record:
            number = self.number(record, "annotations", self.count - 1, {})
            if number in self.seen:
                raise self.fail("another record has that id, too. Number them anew.")
            self.seen.add(number)
        image, category = self.get(record, "image_id"), self.get(record, "category_id")
        if image not in scenes:
            raise self.fail(f"image_id {image} is no image of the file.")
        if category not in names:
            raise self.fail(f"category_id {category} is none of {few(list(map(str, names)), 8)}.")
        scene = scenes[image]
        left, top, width, height = self.numbers(self.get(record, "bbox", list), "bbox", 4)
        where = f"{self.place} in {scene.file}"
        corners = (left, top, left + width, top + height)
        box = sound_box(corners, scene.width, scene.height, where, tally)
        if box is None:
            return
        area = record.get("area", (box[2] - box[0]) * (box[3] - box[1]))
        shape = record.get("segmentation")
        things[image].append(
            Thing(
                box=box,
                label=labels[names[category]],
                area=self.numbers([area], "area", 1)[0],
                crowd=bool(record.get("iscrowd", 0)),
                shape=None if not shape else self.shape(shape, tally),
            )
        )

    def numbers(self, values: Any, what: str, count: int) -> list[float]:
        """So many finite numbers."""
        good = isinstance(values, list) and all(
            isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            for value in values
        )
        if not good or len(values) != count:
            raise self.fail(f"{what} is {values!r:.80}; expected {count} finite numbers.")
        return [float(value) for value in values]

    def shape(self, value: Any, tally: Tally) -> Polygons | Rle | None:
        """A mask: polygons, or run lengths as numbers or packed; None when no polygon is one."""
        if isinstance(value, dict):
            size = self.numbers(value.get("size"), "size of the segmentation", 2)
            counts = value.get("counts")
            if isinstance(counts, list) and all(isinstance(count, int) for count in counts):
                counts = tuple(counts)
            if not isinstance(counts, (tuple, str)):
                raise self.fail("counts of the segmentation are neither whole numbers nor text.")
            return Rle(height=int(size[0]), width=int(size[1]), counts=counts)
        if not isinstance(value, list):
            raise self.fail(f"segmentation is {value!r:.60}; expected polygons or run lengths.")
        polygons = []
        for polygon in value:
            points = self.numbers(polygon, "a polygon", _length(polygon))
            if len(points) % 2:
                raise self.fail(f"a polygon of {len(points)} numbers; expected x, y pairs.")
            if len(points) < 6:
                tally.add(SHORT, self.place)
                continue
            polygons.append(tuple(points))
        return tuple(polygons) or None


_KINDS = {int: "a whole number", str: "text", list: "a list"}


def _length(value: Any) -> int:
    return len(value) if isinstance(value, list) else -1


def _file(name: str, files: Mapping[str, int]) -> str | None:
    """A listed file as it is in the folder; some tools write folders above it, or Windows' way."""
    slashed = name.replace("\\", "/")
    for candidate in (name, slashed, slashed.rpartition("/")[2]):
        if candidate in files:
            return candidate
    return None
