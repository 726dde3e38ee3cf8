"""Reading of tasks: pixels, splits, the choice of images, and what is refused."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dollmaker.adapt.tasks import fit_classes, open_masks, read_task
from dollmaker.config.settings import resolved
from dollmaker.config.tuning import TaskConfig
from dollmaker.pixels.mask_forms import ImageFacts
from dollmaker.prepare.listing import assign
from dollmaker.runtime.errors import ConfigError, DataError


def test_pixels(config: dict[str, Any], root: Path) -> None:
    config["prepare"]["size"] = 48
    task = read_task("squares", resolved(config), root)
    assert task.image_ids == [f"case{i:02d}" for i in range(24)]
    assert task.images.shape == (24, 1, 48, 48) and task.masks.shape == (24, 2, 48, 48)
    source = np.asarray(Image.open(root / "task" / "masks" / "case07.png"))
    inner = task.masks[7][:, 4:44]  # 48 x 40 at scale 1, letterboxed by 4 rows on both sides
    assert ((inner[0] == 1) == (source == 1)).all()
    assert ((inner[1] == 1) == (source == 3)).all()
    assert ((inner == 255) == (source == 2)).all()
    assert (task.masks[7][:, :4] == 255).all() and (task.masks[7][:, 44:] == 255).all()
    assert (task.images[7][:, :4] == 0).all()
    config["prepare"]["fit"] = "resize"
    assert (read_task("squares", resolved(config), root).masks == 255).mean() < 0.01


def test_bits_overlap_and_ignore(tmp_path: Path) -> None:
    values = np.array([[0, 1, 2], [3, 2049, 255]], np.uint16)
    Image.fromarray(values).save(tmp_path / "x.png")
    same = {"images": ".", "masks": "."}
    image = ImageFacts(path="x.jpg", width=3, height=2)
    classes = {"a": [1], "b": [2, 2048]}
    options = TaskConfig(**same, encoding="bits", ignore=255, classes=classes)
    channels = open_masks(options, tmp_path, "tasks.t").channels(image, options.classes)
    assert channels.tolist() == [[[0, 1, 0], [1, 1, 255]], [[0, 0, 1], [1, 1, 255]]]
    options = TaskConfig(**same, encoding="index", classes={"a": [1, 3]})
    channels = open_masks(options, tmp_path, "tasks.t").channels(image, options.classes)
    assert channels.tolist() == [[[0, 1, 0], [1, 0, 0]]]


def test_fitted_masks_keep_their_values() -> None:
    mask = np.zeros((1, 20, 30), np.uint8)
    mask[0, 5:15, 10:20] = 1
    mask[0, 0] = 255
    fitted = fit_classes(mask, 18, "letterbox")  # 18 x 12, rows 3 to 14
    assert (fitted[0, :3] == 255).all() and (fitted[0, 15:] == 255).all()
    assert set(np.unique(fitted[0, 4:15])) == {0, 1}
    assert set(np.unique(fit_classes(mask, 16, "resize"))) == {0, 1, 255}


def test_splits_by_patient(config: dict[str, Any], root: Path) -> None:
    task = read_task("squares", resolved(config), root)
    assert task.splits == [assign(patient, 0.2, 0.3) for patient in task.patients]
    assert task.patients[:2] == ["patient0", "patient0"]
    config["tasks"]["squares"].update(valid=None, test=None)
    config["prepare"].update(valid=0.4, test=0.2)
    own = read_task("squares", resolved(config), root)
    assert own.splits == [assign(patient, 0.4, 0.2) for patient in own.patients]


def test_splits_of_the_source_table(config: dict[str, Any], root: Path) -> None:
    (root / "source.csv").write_text(
        "file,who,part\n"
        + "".join(f"{i},patient{i},{('test', 'valid', 'train')[i % 3]}\n" for i in range(12))
    )
    config["source"] = {
        "kind": "table",
        "table": {
            "file": "source.csv",
            "images": "task/images",
            "image_column": "file",
            "patient_column": "who",
            "label_column": "part",
            "split_column": "part",
        },
    }
    config["tasks"]["squares"].update(valid=None, test=None)
    task = read_task("squares", resolved(config), root)
    numbers = [int(patient.removeprefix("patient")) for patient in task.patients]
    assert task.splits == [("test", "valid", "train")[number % 3] for number in numbers]


def test_splits_of_a_source_without_patients(config: dict[str, Any], root: Path) -> None:
    rows = [f"case{i:02d}.png,{i % 2},{('test', 'valid', 'train')[i % 3]}" for i in range(24)]
    (root / "source.csv").write_text("file,x,part\n" + "\n".join(rows) + "\n")
    table = {"file": "source.csv", "images": "task/images", "image_column": "file",
             "patient_column": None, "finding_columns": ["x"], "split_column": "part"}  # fmt: skip
    config["source"] = {"kind": "table", "table": table}
    config["tasks"]["squares"].update(valid=None, test=None, patient_column=None)
    task = read_task("squares", resolved(config), root)
    assert task.splits == [("test", "valid", "train")[i % 3] for i in range(24)]


def test_splits_of_released_lists(config: dict[str, Any], root: Path) -> None:
    (root / "nih").mkdir()
    lines = ["Image Index,Finding Labels,Patient ID,View Position"]
    lists: dict[str, list[str]] = {"train_val": [], "test": []}
    for i in range(24):
        lines.append(f"case{i:02d}.png,No Finding,patient{i // 2},PA")
        lists["test" if i // 2 % 3 == 0 else "train_val"].append(f"case{i:02d}.png")
    (root / "nih/table.csv").write_text("\n".join(lines) + "\n")
    for name, images in lists.items():
        (root / f"nih/{name}_list.txt").write_text("\n".join(images))
    config["source"] = {"kind": "nih", "nih": {"folder": "nih", "table": "table.csv"}}
    config["prepare"].update(valid=0.4, test=0.2)
    config["tasks"]["squares"].update(valid=None, test=None)
    task = read_task("squares", resolved(config), root)
    expected = [
        "test" if i // 2 % 3 == 0 else assign(f"patient{i // 2}", 0.4, 0.0) for i in range(24)
    ]
    assert task.splits == expected


def test_choices_are_nested_and_seeded(config: dict[str, Any], root: Path) -> None:
    task = read_task("squares", resolved(config), root)
    train = set(task.rows("train").tolist())
    few, more, every = (task.choose(n, 0).tolist() for n in (3, 5, "all"))
    assert set(few) < set(more) < set(every) == train
    assert task.choose(1000, 0).tolist() == every
    assert task.choose(5, 1).tolist() != more
    assert task.choose(5, 0).tolist() == more


def _blank(root: Path, numbers: Iterable[int]) -> None:
    for number in numbers:
        Image.new("L", (48, 40)).save(root / "task" / "masks" / f"case{number:02}.png")


def test_chosen_images_hold_a_class_if_asked(config: dict[str, Any], root: Path) -> None:
    _blank(root, range(0, 24, 2))
    every = read_task("squares", resolved(config), root)
    config["tasks"]["squares"]["train_empty"] = False
    task = read_task("squares", resolved(config), root)
    assert task.splits == every.splits
    holding = [row for row in task.rows("train") if int(task.image_ids[row][4:]) % 2]
    assert sorted(task.choose("all", 0)) == holding
    assert set(task.choose(2, 0)) < set(holding) < set(every.choose("all", 0).tolist())


def _edit(root: Path, old: str, new: str) -> None:
    table = root / "task" / "table.csv"
    table.write_text(table.read_text().replace(old, new))


def _blank_in_training(config: dict[str, Any], root: Path) -> None:
    task = read_task("squares", resolved(config), root)
    _blank(root, [int(task.image_ids[row][4:]) for row in task.rows("train")])
    config["tasks"]["squares"]["train_empty"] = False


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c, r: (r / "task" / "table.csv").unlink(), "does not exist"),
        (lambda c, r: _edit(r, "patient\n", "person\n"), "lacks the column 'patient'"),
        (lambda c, r: (r / "task" / "images" / "case03.png").unlink(), "'case03.png'.*is missing"),
        (lambda c, r: (r / "task" / "masks" / "case03.png").unlink(), "mask 'case03.png'.*missing"),
        (
            lambda c, r: _edit(r, "case03.png,case03", "case03.png,../../../x"),
            "leaves the data root",
        ),
        (lambda c, r: _edit(r, "case03.png,", "case04.png,"), "'case04' twice"),
        (lambda c, r: _edit(r, "case03.png,patient1", "case03.png,"), "line 5: 'patient' is blank"),
        (
            lambda c, r: _edit(r, "case03.png,patient1", "case03.png,Patient1"),
            "'Patient1' is in train and 'patient1' in test: these differ in case",
        ),
        (
            lambda c, r: Image.new("L", (9, 8)).save(r / "task" / "masks" / "case03.png"),
            "is 9x8, its image 48x40 pixels",
        ),
        (
            lambda c, r: Image.new("RGB", (48, 40), 9).save(r / "task" / "masks" / "case03.png"),
            "has colours",
        ),
        (
            lambda c, r: (r / "task" / "masks" / "case03.png").write_bytes(b"no"),
            "not a readable image",
        ),
        (
            lambda c, r: c["tasks"]["squares"]["classes"].update(other=[255]),
            r"'other'.*in no mask; values there: 0, 1, 2, 3\.",
        ),
        (lambda c, r: c["tasks"]["squares"].update(test=0.001), "no test image"),
        (_blank_in_training, "no training image holds a class; set tasks.squares.train_empty"),
        (lambda c, r: c["tasks"]["squares"].update(valid=0.001), "no valid image"),
        (lambda c, r: c["tasks"]["squares"].update(test=0.01, valid=0.985), "no train image"),
    ],
)
def test_refused_with_a_remedy(config: dict[str, Any], root: Path, change: Any, words: str) -> None:
    change(config, root)
    with pytest.raises(DataError, match=words):
        read_task("squares", resolved(config), root)


def test_impossible_configurations(config: dict[str, Any], root: Path) -> None:
    with pytest.raises(ConfigError, match="unknown task 'x'; use one of: squares"):
        read_task("x", resolved(config), root)
    config["tasks"]["squares"].update(valid=0.6, test=0.5)
    with pytest.raises(ConfigError, match="leave no patients"):
        read_task("squares", resolved(config), root)


def test_one_file_of_two_patients_counts_once(
    config: dict[str, Any], root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = root / "task" / "images"
    (images / "case06.png").write_bytes((images / "case02.png").read_bytes())  # of another patient
    (images / "case11.png").write_bytes((images / "case10.png").read_bytes())  # of the same
    task = read_task("squares", resolved(config), root)
    assert task.image_ids == [f"case{i:02d}" for i in range(24) if i != 6]
    assert task.patients == [f"patient{i // 2}" for i in range(24) if i != 6]
    assert task.splits == [assign(patient, 0.2, 0.3) for patient in task.patients]
    assert len(task.images) == len(task.masks) == len(task.files) == 23
    assert "1 of 24 images are left out" in capsys.readouterr().err
