"""Test images that were learned from: by patient, name, file, and looks."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from PIL import Image

from dollmaker.adapt.stage import alike_within, require_unseen
from dollmaker.adapt.tasks import Task, read_task
from dollmaker.config.settings import resolved
from dollmaker.pixels.image_hash import NEAR
from dollmaker.runtime.errors import DataError
from dollmaker.store.files import sha256_file


@pytest.mark.parametrize(
    ("column", "what"),
    [("patient_id", "patient"), ("image_id", "image"), ("sha256", "file with SHA-256")],
)
@pytest.mark.parametrize("split", ["train", "valid"])
def test_test_images_that_were_trained_on_are_refused(
    config: dict[str, Any], root: Path, column: str, what: str, split: str
) -> None:
    task = read_task("squares", resolved(config), root)
    own = {"patient_id": task.patients, "image_id": task.image_ids, "sha256": task.files}[column]
    index = pl.DataFrame(
        {
            "patient_id": [f"someone{i}" for i in range(24)],
            "image_id": [f"something{i}" for i in range(24)],
            "sha256": [str(i) for i in range(24)],
            "split": [split if part == "test" else "test" for part in task.splits],
        }
    )
    require_unseen(task, index)
    known = index.with_columns(pl.Series(column, own))
    first = min(own[row] for row in task.rows("test"))
    with pytest.raises(DataError, match=rf"test {what} '{first}' \(\d+ in all\) was in the"):
        require_unseen(task, known)
    others = known.with_columns(
        split=pl.when(pl.col("split") == split).then(pl.lit("test")).otherwise(pl.lit("train"))
    )
    require_unseen(task, others)


def test_checksums_are_those_of_the_files(config: dict[str, Any], root: Path) -> None:
    task = read_task("squares", resolved(config), root)
    assert task.files[5] == sha256_file(root / "task" / "images" / "case05.png")
    index = pl.DataFrame({"patient_id": ["a"], "image_id": ["b"], "split": ["train"]})
    require_unseen(task, index)  # an index without checksums
    require_unseen(replace(task, files=()), index)


@pytest.fixture
def photographs(config: dict[str, Any], root: Path) -> Task:
    """The task with pictures that differ: noise in blocks of its own for each image."""
    for i in range(24):
        picture = Image.effect_noise((12, 10), 90).resize((48, 40), Image.Resampling.BICUBIC)
        picture.save(root / "task" / "images" / f"case{i:02d}.png")
    return read_task("squares", resolved(config), root)


def seen(hashes: list[str], split: str = "train") -> pl.DataFrame:
    """An index of other patients, other names and other files."""
    return pl.DataFrame(
        {
            "image_id": [f"else{i}" for i in range(len(hashes))],
            "patient_id": [f"someone{i}" for i in range(len(hashes))],
            "path": [f"folder/else{i}.jpg" for i in range(len(hashes))],
            "split": split,
            "hash": hashes,
        }
    )


def turned(text: str, bits: int) -> str:
    """A hash with so many of its bits turned."""
    return f"{int(text, 16) ^ ((1 << bits) - 1):064x}"


def test_a_test_image_that_looks_like_one_that_was_seen_is_refused(photographs: Task) -> None:
    row = int(photographs.rows("test")[1])
    before = seen(["", turned(photographs.hashes[row], NEAR), "ff" * 32])
    words = (
        rf"test image 'case{row:02d}' looks like 'folder/else1\.jpg' \(1 such in all, at most 16 "
        "of 256 bits apart.*adapt.allow_alike to true"
    )
    with pytest.raises(DataError, match=words):
        require_unseen(photographs, before)
    with pytest.raises(DataError, match="looks like 'else1'"):
        require_unseen(photographs, before.drop("path"))
    require_unseen(photographs, before, allow_alike=True)
    require_unseen(photographs, seen([turned(photographs.hashes[row], NEAR + 1)]))
    require_unseen(photographs, seen([photographs.hashes[row]], split="test"))
    require_unseen(photographs, before.with_columns(hash=pl.lit(None, pl.String)))
    require_unseen(photographs, before.drop("hash"))
    require_unseen(replace(photographs, hashes=()), before)
    learned = int(photographs.rows("train")[0])  # what is fine-tuned on may have been seen
    require_unseen(photographs, seen([photographs.hashes[learned]]))


def test_what_is_allowed_is_looks_alone(photographs: Task) -> None:
    row = int(photographs.rows("test")[0])
    before = seen([photographs.hashes[row]]).with_columns(
        patient_id=pl.lit(photographs.patients[row])
    )
    with pytest.raises(DataError, match="test patient"):
        require_unseen(photographs, before, allow_alike=True)


def test_training_and_test_images_of_different_patients_that_look_alike(photographs: Task) -> None:
    assert alike_within(photographs) == []
    train, test = (int(photographs.rows(split)[0]) for split in ("train", "test"))
    hashes = list(photographs.hashes)
    hashes[test] = turned(hashes[train], 3)
    copied = replace(photographs, hashes=hashes)
    ids = photographs.image_ids
    assert alike_within(copied) == [(ids[train], ids[test])]
    patients = list(photographs.patients)
    patients[test] = patients[train]
    assert alike_within(replace(copied, patients=patients)) == []
    assert alike_within(replace(copied, hashes=())) == []
