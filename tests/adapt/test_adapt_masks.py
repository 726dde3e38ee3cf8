"""True masks in every form: the same areas, whatever file they come in."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from dollmaker.adapt.listing import list_images
from dollmaker.adapt.tasks import open_masks, read_task
from dollmaker.config.settings import resolved
from dollmaker.config.tuning import TaskConfig
from dollmaker.pixels.mask_forms import ImageFacts
from dollmaker.runtime.errors import ConfigError, DataError
from dollmaker.store.rle import encode

WIDTH, HEIGHT = 24, 18
LEFT = np.zeros((HEIGHT, WIDTH), bool)
LEFT[3:12, 2:9] = True
RIGHT = np.zeros((HEIGHT, WIDTH), bool)
RIGHT[3:12, 14:21] = True
HEART = np.zeros((HEIGHT, WIDTH), bool)
HEART[6:15, 8:16] = True


def options(encoding: Any, masks: str, classes: dict[str, list[Any]], **more: Any) -> TaskConfig:
    return TaskConfig(images="images", encoding=encoding, masks=masks, classes=classes, **more)


def save(mask: np.ndarray, path: Path, value: int = 255) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((mask * value).astype(np.uint8)).save(path)


def read(root: Path, encoding: str, masks: str, classes: dict[str, list[Any]], image: str) -> Any:
    """The masks of an image, and what was seen in its files."""
    form = open_masks(options(encoding, masks, classes), root, "tasks.organs")
    return form.channels(facts(image), classes), form.seen


def facts(image: str) -> ImageFacts:
    return ImageFacts(path=image, width=WIDTH, height=HEIGHT)


def check(channels: np.ndarray, *areas: np.ndarray) -> None:
    assert channels.dtype == np.uint8 and len(channels) == len(areas)
    for channel, area in zip(channels, areas, strict=True):
        assert np.array_equal(channel, area)


def test_one_file_for_every_organ(tmp_path: Path) -> None:
    """As SCR: folders of organs, GIF files; an organ that is not there is empty."""
    save(LEFT, tmp_path / "scr/left lung/JPCLN001.gif")
    save(RIGHT, tmp_path / "scr/right lung/JPCLN001.gif", 1)
    classes = {"lungs": ["left lung", "right lung"], "heart": ["heart"]}
    channels, seen = read(tmp_path, "files", "scr", classes, "JPCLN001.png")
    check(channels, LEFT | RIGHT, np.zeros_like(HEART))
    assert seen == {"left lung", "right lung"}
    with pytest.raises(DataError, match="missing in every class"):
        read(tmp_path, "files", "scr", classes, "JPCLN002.png")


def test_what_a_file_ignores(tmp_path: Path) -> None:
    """In its class only, and not where another part of the class is."""
    band = np.zeros((HEIGHT, WIDTH), bool)
    band[3:12, 8:10] = True  # one column of it is of the left lung
    picture = np.where(RIGHT, 1, np.where(band, 255, 0))
    for first, second in (("a", "b"), ("b", "a")):
        save(LEFT, tmp_path / first / "x.PNG", 1)
        save(picture, tmp_path / second / "x.Png", 1)
        save(HEART, tmp_path / "heart/x.TIFF", 7)
        parts = {"lungs": ["a", "b"], "heart": ["heart"]}
        task = options("files", ".", parts, ignore=255)
        channels = open_masks(task, tmp_path, "tasks.t").channels(facts("x.jpg"), parts)
        expected = np.where(LEFT | RIGHT, 1, np.where(band, 255, 0))
        check(channels, expected, HEART)
        shutil.rmtree(tmp_path / first)
        shutil.rmtree(tmp_path / second)


def test_suffixes_in_any_case(tmp_path: Path) -> None:
    save(LEFT, tmp_path / "m/sub/x.PNG", 1)
    for image in ("sub/x.JPG", "sub/x.png"):
        channels, _ = read(tmp_path, "index", "m", {"lung": [1]}, image)
        check(channels, LEFT)
    save(RIGHT, tmp_path / "m/sub/y.Tif", 1)
    os.utime(tmp_path / "m/sub", (1, 1))  # a folder that was listed before, and has changed
    check(read(tmp_path, "index", "m", {"lung": [1]}, "sub/y.png")[0], RIGHT)
    for image in ("sub/z.png", "none/x.png"):
        with pytest.raises(DataError, match=r"^file is missing$"):
            read(tmp_path, "index", "m", {"lung": [1]}, image)


def corners(x: int, y: int, width: int, height: int) -> list[int]:
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def coco_file(path: Path, **changes: Any) -> Path:
    runs = coco.encode(np.asfortranarray(HEART.astype(np.uint8)))
    flat = RIGHT.T.ravel().astype(int)
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, flat.size]).tolist()
    content = {
        "images": [{"id": 7, "file_name": "a/x.png", "width": WIDTH, "height": HEIGHT}],
        "categories": [{"id": 1, "name": "lung"}, {"id": 2, "name": "heart"}],
        "annotations": [
            {"image_id": 7, "category_id": 1, "segmentation": [corners(2, 3, 7, 9)]},
            {"image_id": 7, "category_id": 1,
             "segmentation": {"size": [HEIGHT, WIDTH], "counts": counts}},
            {"image_id": 7, "category_id": 2,
             "segmentation": {"size": [HEIGHT, WIDTH], "counts": runs["counts"].decode()}},
        ],
    }  # fmt: skip
    path.write_text(json.dumps({**content, **changes}))
    return path


def test_coco_polygons_and_both_run_lengths(tmp_path: Path) -> None:
    coco_file(tmp_path / "c.json")
    for classes in ({"lungs": ["lung"], "heart": ["heart"]}, {"lungs": [1], "heart": [2]}):
        channels, seen = read(tmp_path, "coco", "c.json", classes, "a/x.png")
        check(channels, LEFT | RIGHT, HEART)
        assert seen == {"lung", "heart"}
    with pytest.raises(DataError, match="no image of this name"):
        read(tmp_path, "coco", "c.json", {"lungs": [1]}, "y.png")


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        ([[1, 2, 3]], "three corners"),
        ({"size": [HEIGHT, WIDTH], "counts": [5]}, "do not fill"),
        ({"size": [3, 3], "counts": "x"}, "3x3 pixels, its image has 24x18"),
        ({"size": [], "counts": "x"}, "'lung': unknown size, its image has 24x18"),
        ("x", "no readable segmentation"),
        (None, "an instance of 'lung' has a box at most but no outline"),
        ([], "an instance of 'lung' has a box at most but no outline"),
    ],
)
def test_damaged_instances_are_refused(tmp_path: Path, segmentation: Any, words: str) -> None:
    entry = {"image_id": 7, "category_id": 1, "segmentation": segmentation}
    coco_file(tmp_path / "c.json", annotations=[entry])
    with pytest.raises(DataError, match=words):
        read(tmp_path, "coco", "c.json", {"lungs": [1]}, "a/x.png")


def test_boxes_of_other_categories_do_not_matter(tmp_path: Path) -> None:
    entries = [
        {"image_id": 7, "category_id": 1, "segmentation": [corners(2, 3, 7, 9)]},
        {"image_id": 7, "category_id": 2, "segmentation": [], "bbox": [1, 1, 5, 5]},
    ]
    coco_file(tmp_path / "c.json", annotations=entries)
    channels, seen = read(tmp_path, "coco", "c.json", {"lungs": ["lung"]}, "a/x.png")
    check(channels, LEFT)
    assert seen == {"lung", "heart"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"category_id": [1]}, r"'category_id' of annotations\[0\] is neither a whole number"),
        ({"category_id": 1, "image_id": {}}, r"'image_id' of annotations\[0\] is neither"),
        ({}, r"annotations\[0\] lacks 'category_id'"),
    ],
)
def test_instances_of_no_category_are_refused(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    entry = {"image_id": 7, "segmentation": [corners(2, 3, 7, 9)], **changes}
    coco_file(tmp_path / "c.json", annotations=[entry])
    with pytest.raises(DataError, match=words):
        read(tmp_path, "coco", "c.json", {"lungs": [1]}, "a/x.png")


def test_images_of_coco_need_their_numbers(tmp_path: Path) -> None:
    image = {"file_name": "a/x.png", "width": WIDTH, "height": HEIGHT}
    coco_file(tmp_path / "c.json", images=[image])
    with pytest.raises(DataError, match="lacks 'id'"):
        read(tmp_path, "coco", "c.json", {"lungs": [1]}, "a/x.png")


def test_chexlocalize(tmp_path: Path) -> None:
    size = [HEIGHT, WIDTH]
    entry = {
        "Cardiomegaly": {"size": size, "counts": encode(HEART)},
        "Edema": {"size": size, "counts": encode(LEFT)},
        "Consolidation": {"size": size, "counts": encode(RIGHT)},
    }
    (tmp_path / "t.json").write_text(json.dumps({"patient1_study1_view1_frontal": entry}))
    classes = {"heart": ["Cardiomegaly"], "opacity": ["Edema", "Consolidation"]}
    image = "CheXpert/valid/patient1/study1/view1_frontal.jpg"
    channels, seen = read(tmp_path, "chexlocalize", "t.json", classes, image)
    check(channels, HEART, LEFT | RIGHT)
    assert seen == set(entry)


@pytest.mark.parametrize("content", [None, "no", "[]", '{"images": []}'])
def test_files_of_all_masks_that_are_not_of_their_form(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "c.json").write_text(content)
    with pytest.raises(DataError):
        read(tmp_path, "coco", "c.json", {"lungs": [1]}, "x.png")


def test_names_are_no_pixel_values(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"tasks\.organs\.classes\.lungs .* numbers of its pixels"
    ):
        read(tmp_path, "bits", "m", {"lungs": ["left"]}, "x.png")


def test_a_folder_of_images_and_one_of_masks_are_enough(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(12):
        name = f"p{number % 3}/case{number}"
        path = tmp_path / f"images/{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (HEIGHT, WIDTH), np.uint8)).save(path)
        save(HEART, tmp_path / f"masks/{name}.png", 1)
    (tmp_path / "images/notes.txt").write_text("not a picture")
    config = resolved(
        {
            "dataset": "fake",
            "source": {"kind": "phantoms"},
            "prepare": {"size": 32, "channels": 1, "fit": "resize"},
            "tasks": {"heart": {"images": "images", "masks": "masks", "classes": {"heart": [1]},
                                "valid": 0.3, "test": 0.3}},
        }
    ).dump()  # fmt: skip
    task = read_task("heart", resolved(config), tmp_path)
    assert len(task.image_ids) == 12 and task.image_ids[0] == "p0_case0"
    assert task.patients == task.image_ids
    assert abs((task.masks == 1).mean() - HEART.mean()) < 0.02
    (tmp_path / "masks/p0/case0.png").unlink()
    assert len(read_task("heart", resolved(config), tmp_path).image_ids) == 11


def test_what_can_not_be_listed(tmp_path: Path) -> None:
    task = TaskConfig(images="images", masks="masks", classes={"a": [1]})
    with pytest.raises(DataError, match="does not exist"):
        list_images("t", task, tmp_path)
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match="holds no picture"):
        list_images("t", task, tmp_path)
    for suffix in ("png", "jpg"):
        Image.new("L", (4, 4)).save(tmp_path / f"images/a.{suffix}")
    with pytest.raises(DataError, match="two pictures called 'a'"):
        list_images("t", task, tmp_path)


def test_an_organ_without_a_folder_is_a_fault(tmp_path: Path) -> None:
    save(LEFT, tmp_path / "scr/left lung/1.png")
    classes = {"lungs": ["left lung", "right lung"], "heart": ["heart"]}
    form = open_masks(options("files", "scr", classes), tmp_path, "tasks.t")
    assert form.fault(some=True) == "'heart' has no folder heart beside the others"
    form.require(facts("1.jpg"))
    with pytest.raises(DataError, match="missing in every class"):
        form.require(facts("2.jpg"))


@pytest.mark.parametrize("who", ["", "NA", "1.23457E+11"])
def test_a_table_tells_the_patient_of_each_image_of_use(tmp_path: Path, who: str) -> None:
    task = TaskConfig(
        table="t.csv",
        images="images",
        image_column="image",
        mask_column="mask",
        patient_column="who",
        masks="masks",
        classes={"a": [1]},
    )
    rows = f"image,mask,who\nz.png,z.png,1.0\nb.png,NA,{who}\n"
    (tmp_path / "t.csv").write_text(rows)
    assert list_images("t", task, tmp_path).patients == ["1"]
    (tmp_path / "t.csv").write_text(rows + f"a.png,a.png,{who}\n")
    with pytest.raises(DataError, match="line 4: 'who' is "):
        list_images("t", task, tmp_path)
