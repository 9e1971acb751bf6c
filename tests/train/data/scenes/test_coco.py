from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlawrap.errors import DataError
from rlawrap.train.data.scenes.coco import read_coco
from rlawrap.train.data.scenes.records import Rle
from tests.train.data.scenes.making import coco, write_coco, write_image


def test_ids_with_gaps_become_labels_in_their_order(tmp_path: Path) -> None:
    index = read_coco(tmp_path, write_coco(tmp_path, coco()))
    assert index.classes == ("car", "cow", "tree") and index.category_ids == (3, 17, 90)
    assert [(scene.id, scene.file) for scene in index.scenes] == [(4, "a.png"), (9, "b.png")]
    tree, car, crowd = index.things[0]
    assert (tree.label, tree.box, tree.area, tree.crowd) == (3, (2, 2, 6, 6), 16, False)
    assert tree.shape == ((2, 2, 6, 2, 6, 6, 2, 6),) and car.shape is None
    assert (car.label, car.box) == (1, (10, 1, 15, 9))
    assert (crowd.label, crowd.crowd) == (2, True)
    assert index.things[1] == () and index.remarks == ()


def test_labels_are_those_of_the_training_split(tmp_path: Path) -> None:
    path = write_coco(tmp_path, coco())
    index = read_coco(tmp_path, path, classes=["tree", "dog", "cow", "car"])
    assert [thing.label for thing in index.things[0]] == [1, 4, 3]
    assert index.classes == ("tree", "dog", "cow", "car")
    assert index.category_ids == (90, -1, 17, 3)
    with pytest.raises(DataError, match=r"1 classes that the training split does not have: cow"):
        read_coco(tmp_path, path, classes=["tree", "car"])


def changed(kind: str, place: int, **changes: Any) -> dict[str, Any]:
    """The usual content with a record changed; a value of `...` takes the key away."""
    content = coco()
    record = {**content[kind][place], **changes}
    content[kind][place] = {key: value for key, value in record.items() if value is not ...}
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [\n  {"id": 1,]}', r"line 2, column 12: no JSON"),
        ("[1]", "holds a list"),
        ({"images": []}, "no list 'annotations'; it has images"),
        (coco(images=[]), "list of images is empty"),
        (coco(categories=[]), "list of categories is empty"),
        (changed("images", 1, width=...), r"images\[1\] \(id 4\): has no 'width'"),
        (changed("images", 1, height=0), r"images\[1\] \(id 4\): a.png has 20 x 0"),
        (changed("images", 1, id="4"), r"images\[1\]: id is '4'; expected a whole number"),
        (changed("images", 0, id=4), r"images\[1\] \(id 4\): another record has that id"),
        (changed("images", 0, file_name="a.png"), r"a.png is listed as id 9, too"),
        (changed("images", 0, file_name="c.png"), r"1 of the 2 images .* not in .*: c.png"),
        (changed("categories", 0, id=3), r"categories\[1\] \(id 3\): another record"),
        (changed("annotations", 1, id=1), r"annotations\[1\] \(id 1\): another record"),
        (changed("annotations", 2, bbox=...), r"annotations\[2\] \(id 3\): has no 'bbox'"),
        (changed("annotations", 2, bbox=[1, 2, 3]), "expected 4 finite numbers"),
        (changed("annotations", 2, bbox=[1, 2, 3, float("nan")]), "expected 4 finite numbers"),
        (changed("annotations", 0, image_id=5), r"\(id 1\): image_id 5 is no image of the file"),
        (changed("annotations", 0, category_id=1), r"category_id 1 is none of 3, 17, 90"),
        (changed("annotations", 0, segmentation=[[1, 2, 3, 4, 5, 6, 7]]), "7 numbers"),
        (changed("annotations", 0, segmentation={"size": [10]}), "expected 2 finite"),
        (changed("annotations", 0, segmentation={"size": [9, 9]}), "counts of the segm"),
    ],
)
def test_what_is_wrong_is_named_with_its_record(tmp_path: Path, content: Any, message: str) -> None:
    path = write_coco(tmp_path, content)
    with pytest.raises(DataError, match=message) as error:
        read_coco(tmp_path, path)
    assert str(path) in str(error.value)


def test_boxes_outside_or_of_no_area_are_left_out_and_counted(tmp_path: Path) -> None:
    content = coco()
    for record, box in zip(
        content["annotations"], ([18, 2, 4, 4], [20, 0, 5, 5], [3, 3, 0, 4]), strict=True
    ):
        record["bbox"] = box
    index = read_coco(tmp_path, write_coco(tmp_path, content))
    assert [thing.box for thing in index.things[0]] == [(18, 2, 20, 6)]
    words = " ".join(index.remarks)
    for reason, number in (("reaching out", 0), ("outside", 1), ("without an area", 2)):
        assert reason in words and f"annotations[{number}] (id {number + 1}) in a.png" in words


def test_images_that_are_not_listed_are_left_out(tmp_path: Path) -> None:
    write_image(tmp_path / "more" / "c.png")
    path = write_coco(tmp_path, coco())
    (remark,) = read_coco(tmp_path, path).remarks
    assert "1 images that the annotations do not list, left out (first: more/c.png)" in remark


def test_run_lengths_short_polygons_and_windows_paths(tmp_path: Path) -> None:
    content = changed("annotations", 0, segmentation=[[1, 2, 3, 4]])
    content["annotations"][2]["segmentation"] = {"size": [10, 20], "counts": [0, 200]}
    content["images"][0]["file_name"] = "images\\b.png"
    index = read_coco(tmp_path, write_coco(tmp_path, content))
    short, _, crowd = index.things[0]
    assert short.shape is None and "1 polygons of fewer than three" in index.remarks[0]
    assert crowd.shape == Rle(height=10, width=20, counts=(0, 200))
    assert index.scenes[1].file == "b.png"


def test_names_that_occur_twice_get_their_id(tmp_path: Path) -> None:
    content = coco()
    content["categories"][1]["name"] = "tree"
    index = read_coco(tmp_path, write_coco(tmp_path, content))
    assert index.classes == ("tree (3)", "cow", "tree (90)")


def test_the_fingerprint_tells_things_apart_but_not_places(tmp_path: Path) -> None:
    first, second, third = tmp_path / "x", tmp_path / "y", tmp_path / "z"
    same = [read_coco(place, write_coco(place, coco())) for place in (first, second)]
    assert same[0].fingerprint() == same[1].fingerprint()
    for place, change in enumerate(({"bbox": [2, 2, 4, 5]}, {"iscrowd": 1}, {"segmentation": []})):
        other = third / str(place)
        path = write_coco(other, changed("annotations", 0, **change))
        assert read_coco(other, path).fingerprint() != same[0].fingerprint()


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.json: cannot be read"):
        read_coco(tmp_path, tmp_path / "none.json")
    path = tmp_path / "latin.json"
    path.write_bytes(json.dumps({"a": "é"}, ensure_ascii=False).encode("latin-1"))
    with pytest.raises(DataError, match=r"latin.json, byte 7: no text in UTF-8"):
        read_coco(tmp_path, path)
