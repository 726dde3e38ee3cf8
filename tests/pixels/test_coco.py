"""COCO files as mergers and labelling services write them: read as meant, or refused in words."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco

from dollmaker.pixels.coco import CocoFile
from dollmaker.pixels.mask_forms import ImageFacts
from dollmaker.runtime.errors import ConfigError, DataError

WIDTH, HEIGHT = 12, 9

#: Columns of the squares that :func:`square` draws.
FIRST, SECOND = 1, 7


def square(left: int) -> list[list[int]]:
    """A polygon around 3 x 4 pixels from row 2 on."""
    return [[left, 2, left + 3, 2, left + 3, 6, left, 6]]


def area(*lefts: int) -> Any:
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    for left in lefts:
        expected[2:6, left : left + 3] = 1
    return expected


def instance(left: int, image: Any = 3, category: Any = 5) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "segmentation": square(left)}


def image(number: Any, name: str = "b.png", **changes: Any) -> dict[str, Any]:
    return {"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT, **changes}


def opened(folder: Path, classes: dict[str, list[Any]] | None = None, **changes: Any) -> CocoFile:
    content = {
        "images": [image(3)],
        "categories": [{"id": 5, "name": "rib"}],
        "annotations": [instance(FIRST), instance(SECOND)],
    }
    file = folder / "c.json"
    file.write_text(json.dumps({**content, **changes}), encoding="utf-8-sig")
    return CocoFile(file, classes or {"ribs": ["rib"]}, "tasks.t")


def read(folder: Path, path: str = "b.png", **changes: Any) -> Any:
    return drawn(opened(folder, **changes), path)


def drawn(file: CocoFile, path: str = "b.png", *classes: str) -> Any:
    return file.channels(ImageFacts(path=path, width=WIDTH, height=HEIGHT), classes or ("ribs",))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"annotations": [instance(FIRST, "3", 5.0), instance(SECOND, 3.0, "5.0")]},
        {
            "images": [image("3", width="12", height=9.0)],
            "categories": [{"id": "5", "name": "rib"}],
        },
        {
            "categories": [{"id": 4, "name": "rib "}, {"id": 5, "name": "rib"}],
            "annotations": [instance(FIRST), instance(SECOND, 3, 4)],
        },
        {
            "images": [image(3), image(8)],
            "annotations": [instance(FIRST), instance(SECOND, 8)],
        },
        {"images": [image(3, "x\\b.png"), image(3, "x/b.png")]},
    ],
    ids=["plain", "numbers as text", "sizes as text", "one name", "one image", "backslashes"],
)
def test_one_thing_under_two_numbers_or_spellings_is_one(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    assert np.array_equal(read(tmp_path, **changes), [area(FIRST, SECOND)])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": [image(3), image(8, height=10)]}, "'b.png' is listed twice, with different"),
        ({"images": [image(3), image(3, "c.png")]}, "image 3 is called 'b.png' and 'c.png'"),
        (
            {"categories": [{"id": 5, "name": "rib"}, {"id": "5", "name": "lung"}]},
            "category 5 is called 'rib' and 'lung'",
        ),
        ({"categories": {}}, "lacks the list 'categories'"),
        ({"annotations": [[]]}, r"annotations\[0\] is no object"),
        ({"categories": [{"id": True, "name": "rib"}]}, "neither a whole number nor text"),
        ({"images": [image(3, file_name=None)]}, r"'file_name' of images\[0\] is neither"),
    ],
)
def test_numbers_and_names_of_two_things_are_refused(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        opened(tmp_path, **changes)


def test_instances_of_what_is_not_listed_are_counted(tmp_path: Path) -> None:
    strange = [instance(FIRST, 9), instance(FIRST, "nine"), instance(FIRST, 3, 6)]
    with pytest.raises(DataError) as caught:
        opened(tmp_path, annotations=[instance(FIRST), *strange])
    assert "2 of images that it does not list (the first is '9')" in str(caught.value)
    assert "1 of categories that it does not list (the first is '6')" in str(caught.value)


def test_a_category_that_is_asked_for_by_number_needs_no_name(tmp_path: Path) -> None:
    annotations = [instance(FIRST), instance(SECOND, 3, "6")]
    classes = {"ribs": ["5"], "others": [6]}
    file = opened(tmp_path, classes, annotations=annotations)
    assert np.array_equal(drawn(file, "b.png", *classes), [area(FIRST), area(SECOND)])
    assert file.seen == {"rib", "6"}


def test_a_number_that_means_two_categories_is_refused(tmp_path: Path) -> None:
    categories = [{"id": 5, "name": "6"}, {"id": 6, "name": "rib"}]
    with pytest.raises(ConfigError, match=r"tasks\.t\.classes: 6 is the number of .* 'rib'"):
        opened(tmp_path, {"ribs": [6]}, categories=categories)
    by_name = opened(tmp_path, {"ribs": ["6"]}, categories=categories)
    assert drawn(by_name).sum() == area(FIRST, SECOND).sum()
    twice = [{"id": 5, "name": "rib"}, {"id": 6, "name": "rib"}]
    annotations = [instance(FIRST), instance(SECOND, 3, 6)]
    with pytest.raises(ConfigError, match="also has under the number 6; ask for it by name"):
        opened(tmp_path, {"ribs": [5]}, categories=twice, annotations=annotations)
    each = opened(tmp_path, {"a": [5], "b": [6]}, categories=twice, annotations=annotations)
    assert np.array_equal(drawn(each, "b.png", "a", "b"), [area(FIRST), area(SECOND)])


def test_images_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    images = [image(3, "p1/b.png"), image(4, "p2/b.png")]
    file = opened(tmp_path, images=images, annotations=[instance(FIRST), instance(SECOND, 4)])
    for path, left in (("all/p1/b.jpg", FIRST), ("all/p2/b.jpg", SECOND)):
        assert np.array_equal(drawn(file, path), [area(left)])
    with pytest.raises(DataError, match="no image of this name"):
        drawn(file, "all/p3/b.jpg")
    with pytest.raises(DataError, match="both fit"):
        drawn(file, "b.png")
    bare = opened(tmp_path)
    drawn(bare, "p1/b.png")
    with pytest.raises(DataError, match=r"fits the images 'p1/b\.png' and 'p2/b\.png'"):
        drawn(bare, "p2/b.png")


def test_both_run_lengths_obey_their_size(tmp_path: Path) -> None:
    mask = area(FIRST)
    packed = coco.encode(np.asfortranarray(mask))["counts"].decode()
    lengths = [HEIGHT + 2, *[4, 5] * 2, 4]
    lengths.append(WIDTH * HEIGHT - sum(lengths))
    for counts in (packed, lengths):
        code = {"size": [HEIGHT, WIDTH], "counts": counts}
        annotation = {"image_id": 3, "category_id": 5, "segmentation": code}
        assert np.array_equal(read(tmp_path, annotations=[annotation])[0], mask)
        code["size"] = [WIDTH, HEIGHT]
        with pytest.raises(DataError, match="'rib': 9x12 pixels, its image has 12x9"):
            read(tmp_path, annotations=[annotation])


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        ([[1, 2, 3, 4, 5, float("nan")]], "not finite"),
        ([[1, 2, None, 4, 5, 6]], "not finite"),
        ([[1, 2, 3, 4, 5, 10**400]], "no readable segmentation"),
        ([[1, 2, 3, 4, 5, 1e9]], "far outside of 12x9 pixels"),
        ([[0, 0, 12, 9] * 300], "again and again"),
        ([1, 2, 3, 4, 5, 6], "three corners"),
        ({"size": [HEIGHT, WIDTH], "counts": [100.5, 7.5]}, "not all whole numbers"),
        ({"size": [HEIGHT, WIDTH], "counts": [2**63, -(2**63), 108]}, "not all whole numbers"),
        ({"size": [HEIGHT, WIDTH], "counts": [2**62] * 4 + [108]}, "do not fill"),
        ({"size": [HEIGHT, WIDTH], "counts": None}, "not a COCO run-length code"),
    ],
)
def test_hostile_outlines_are_refused(tmp_path: Path, segmentation: Any, words: str) -> None:
    annotation = {**instance(FIRST), "segmentation": segmentation}
    with pytest.raises(DataError, match=f"an instance of 'rib': .*{words}"):
        read(tmp_path, annotations=[annotation])


def test_what_no_class_asks_for_is_not_drawn(tmp_path: Path) -> None:
    categories = [{"id": 5, "name": "rib"}, {"id": 6, "name": "note"}]
    note = {"image_id": 3, "category_id": 6, "segmentation": "see report"}
    annotations = [instance(FIRST), note, {"image_id": 3, "category_id": 6}]
    file = opened(tmp_path, categories=categories, annotations=annotations)
    assert np.array_equal(drawn(file), [area(FIRST)]) and file.seen == {"rib", "note"}


def test_a_name_that_is_twice_in_one_object_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    file.write_text('{"images": [], "categories": [], "annotations": [], "images": []}')
    with pytest.raises(DataError, match="the name 'images' twice"):
        CocoFile(file, {"ribs": ["rib"]}, "tasks.t")


def test_a_class_without_a_category_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"classes\.a: none of \['nodule'\] is a category of .*lung"
    ):
        opened(tmp_path, {"a": ["nodule"]}, categories=[{"id": 5, "name": "lung"}])


def test_corners_that_are_shares_are_refused(tmp_path: Path) -> None:
    shares = {**instance(FIRST), "segmentation": [[0.1, 0.2, 0.5, 0.2, 0.5, 1]]}
    with pytest.raises(DataError, match="shares of the sides"):
        read(tmp_path, annotations=[shares])
