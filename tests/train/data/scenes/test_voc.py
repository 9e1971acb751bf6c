from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from rlawrap.errors import DataError
from rlawrap.train.data.scenes.voc import read_voc
from tests.train.data.scenes.making import voc_xml, write_image, write_voc


def test_pixels_are_counted_from_one(tmp_path: Path) -> None:
    write_voc(
        tmp_path,
        {"b": [("dog", (1, 1, 20, 10))], "a": [("cat", (3, 2, 5.5, 4)), ("dog", (2, 2, 2, 2))]},
    )
    index = read_voc(tmp_path)
    assert index.classes == ("cat", "dog")
    assert [scene.file for scene in index.scenes] == ["a.png", "b.png"]
    assert [(t.label, t.box) for t in index.things[0]] == [(1, (2, 1, 5.5, 4)), (2, (1, 1, 2, 2))]
    assert index.things[1][0].box == (0, 0, 20, 10) and index.remarks == ()


def test_a_box_at_zero_means_that_pixels_are_counted_from_zero(tmp_path: Path) -> None:
    write_voc(tmp_path, {"a": [("cat", (0, 2, 5, 4))], "b": [("cat", (3, 2, 5, 4))]})
    index = read_voc(tmp_path)
    assert index.things[1][0].box == (3, 2, 5, 4)
    assert "1 boxes starting at 0" in index.remarks[0]
    assert read_voc(tmp_path, first_pixel=1).things[1][0].box == (2, 1, 5, 4)


def test_images_and_xml_side_by_side(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    write_image(tmp_path / "alone.png")
    # As labels are when an image was converted after it was annotated, and without a size.
    (tmp_path / "a.xml").write_text(voc_xml("a.tif", [("cat", (1, 1, 4, 4))], size=""))
    index = read_voc(tmp_path)
    assert (index.scenes[0].file, index.scenes[0].width, index.scenes[0].height) == (
        "a.png",
        20,
        10,
    )
    assert "1 images without an XML file, left out (first: alone.png)" in index.remarks[0]


def test_lists_of_splits(tmp_path: Path) -> None:
    write_voc(tmp_path, {name: [("cat", (1, 1, 4, 4))] for name in "abc"})
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("c  1\na -1\n")
    index = read_voc(tmp_path, subset="train")
    assert [scene.file for scene in index.scenes] == ["a.png", "c.png"] and not index.remarks
    (lists / "val.txt").write_text("d\n")
    with pytest.raises(DataError, match=r"val.txt: 1 of 1 names without an XML file .*: d"):
        read_voc(tmp_path, subset="val")
    with pytest.raises(DataError, match=r"test.txt: cannot be read"):
        read_voc(tmp_path, subset="test")


def test_difficult_things_are_as_crowds(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    xml = voc_xml("a.png", [("cat", (1, 1, 4, 4))], more="<difficult>1</difficult>")
    (tmp_path / "a.xml").write_text(xml)
    assert read_voc(tmp_path).things[0][0].crowd


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("<annotation><object></annotation>", r"a.xml, line 1, column \d+: no XML"),
        ("<labels/>", "outermost element is <labels>"),
        (voc_xml("a.png", [("cat", (1, 1, "x", 4))]), r"object\[0\] \(cat\): <xmax> .* is 'x'"),
        (voc_xml("a.png", [("", (1, 1, 4, 4))]), r"object\[0\]: has no <name>"),
        (voc_xml("a.png", []), "none of which has an object"),
        (
            voc_xml("a.png", [("cat", (1, 1, 4, 4))]).replace("<ymin>1</ymin>", ""),
            "<ymin> of its <bndbox> is missing",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, xml: str, message: str) -> None:
    write_image(tmp_path / "a.png")
    (tmp_path / "a.xml").write_text(xml)
    with pytest.raises(DataError, match=message):
        read_voc(tmp_path)


def test_xml_without_an_image_and_two_for_one(tmp_path: Path) -> None:
    xml = voc_xml("gone.png", [("cat", (1, 1, 4, 4))])
    (tmp_path / "a.xml").write_text(xml)
    with pytest.raises(DataError, match=r"a.xml: no image for it in .*'gone.png' nor a with"):
        read_voc(tmp_path)
    write_image(tmp_path / "gone.png")
    (tmp_path / "b.xml").write_text(xml)
    with pytest.raises(DataError, match=r"b.xml and .*a.xml are both for gone.png"):
        read_voc(tmp_path)


def test_boxes_outside_are_counted_and_classes_follow_the_training_split(tmp_path: Path) -> None:
    write_voc(tmp_path, {"a": [("cat", (30, 1, 40, 5)), ("cat", (1, 1, 4, 4))]})
    index = read_voc(tmp_path, classes=["ant", "cat"])
    assert [thing.label for thing in index.things[0]] == [2]
    assert "1 boxes outside their image" in index.remarks[0]
    with pytest.raises(DataError, match="does not have: cat"):
        read_voc(tmp_path, classes=["ant"])


def test_a_photograph_on_its_side_is_annotated_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10)).save(tmp_path / "a.jpg", exif=exif)
    (tmp_path / "a.xml").write_text(voc_xml("a.jpg", [("cat", (1, 1, 4, 4))], size=""))
    scene = read_voc(tmp_path).scenes[0]
    assert (scene.width, scene.height) == (10, 20)
