"""Class folders: labels, splits, patients, what is left out, and what is refused."""

import os
import re
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from dollmaker.adapt.listing import known_splits
from dollmaker.config import settings as configuration
from dollmaker.launch.preflight import _list
from dollmaker.prepare import stage
from dollmaker.prepare.listing import assign, folded
from dollmaker.prepare.sources import list_source
from dollmaker.runtime.errors import ConfigError, DataError
from dollmaker.store.tables import read_index

TWO = ["a/1.png", "a/2.png", "b/1.png", "b/2.png"]


def resolved(prepare: dict[str, Any] | None = None, **folder: Any) -> Any:
    given = {"dataset": "x", "source": {"kind": "folder", "folder": {"root": "set", **folder}}}
    more = {key: folder.pop(key) for key in ("truth", "allow_links") if key in folder}
    given["source"] = {"kind": "folder", "folder": {"root": "set", **folder}}
    return configuration.resolved({**given, **more, "prepare": prepare or {}})


def write(root: Path, paths: list[str], side: int = 12) -> None:
    """Pictures of noise, each another."""
    rng = np.random.default_rng(0)
    for path in paths:
        place = root / "set" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (side, side), dtype=np.uint8)).save(place)


def labels(plan: pl.DataFrame, names: list[str]) -> dict[str, list[str]]:
    """Image -> its findings."""
    return {
        row["image_id"]: [name for name in names if row[name]] for row in plan.iter_rows(named=True)
    }


def test_the_smallest_configuration_is_enough(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, [*TWO, "b/deep/er/3.PNG"])
    plan, names = list_source(resolved(), tmp_path)
    assert names == ["a", "b"]
    assert labels(plan, names) == {
        "a_1": ["a"], "a_2": ["a"], "b_1": ["b"], "b_2": ["b"], "b_deep_er_3": ["b"]
    }  # fmt: skip
    assert plan[["a", "b"]].sum_horizontal().to_list() == [1] * 5
    assert plan["path"].to_list() == [f"set/{p}" for p in (*TWO, "b/deep/er/3.PNG")]
    assert plan["patient_id"].to_list() == plan["image_id"].to_list()
    assert plan["split"].to_list() == [assign(name, 0.1, 0.2) for name in plan["image_id"]]
    said = capsys.readouterr().err
    assert "2 classes: 'a' 2, 'b' 3" in said and "each image is its own patient" in said


def test_the_root_may_be_the_data_root_itself(tmp_path: Path) -> None:
    write(tmp_path, TWO)
    plan, _ = list_source(resolved(root="."), tmp_path / "set")
    assert plan["path"].to_list() == TWO
    assert list_source(resolved(root="./set//"), tmp_path)[0]["path"][0] == "set/a/1.png"


def test_a_negative_class_is_no_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, [*TWO, "No Finding/1.png"])
    plan, names = list_source(resolved(negative="No Finding"), tmp_path)
    assert names == ["a", "b"] and labels(plan, names)["No Finding_1"] == []
    assert "negative" not in capsys.readouterr().err
    _, names = list_source(resolved(), tmp_path)
    assert names == ["No Finding", "a", "b"]
    assert "source.folder.negative: 'No Finding'" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"source\.folder\.negative: unknown class 'healthy'"):
        list_source(resolved(negative="healthy"), tmp_path)


def test_of_two_classes_one_finding_is_left(tmp_path: Path) -> None:
    write(tmp_path, ["normal/1.png", "ill/1.png"])
    plan, names = list_source(resolved(negative="normal"), tmp_path)
    assert names == ["ill"] and plan["ill"].to_list() == [1, 0]


def test_patients_are_the_first_group_of_a_pattern(tmp_path: Path) -> None:
    write(tmp_path, ["a/p01-1.png", "a/p01-2.png", "b/p02-1.png", "b/p3.0-7.png"])
    plan, _ = list_source(resolved(patient=r"p([\d.]+)-(\d)"), tmp_path)
    assert plan["patient_id"].to_list() == ["01", "01", "02", "3"]
    with pytest.raises(DataError, match=r"no patient in 2 of 4 paths, e\.g\. 'a/p01-1.png'"):
        list_source(resolved(patient=r"p(02|3\.0)-"), tmp_path)
    with pytest.raises(DataError, match="no patient in 4 of 4"):
        list_source(resolved(patient="(x?)"), tmp_path)


def test_a_patient_by_two_spellings_is_in_one_split(tmp_path: Path) -> None:
    write(tmp_path, ["train/a/P7-1.png", "train/b/p8-1.png", "test/b/p7-2.png"])
    with pytest.raises(DataError, match="'P7' is in train and 'p7' in test: these differ in case"):
        list_source(resolved({"valid": 0.0}, patient=r"([Pp]\d+)-"), tmp_path)


@pytest.mark.parametrize(
    ("pattern", "said"), [("p.*", "has no group"), ("p(", "no regular expression")]
)
def test_a_pattern_that_names_nobody_is_refused(pattern: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        resolved(patient=pattern)


@pytest.mark.parametrize("valid", ["val", "Validation"])
def test_folders_of_splits_are_the_splits(
    valid: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, [f"{split}/{path}" for split in ("train", valid, "test") for path in TWO])
    plan, names = list_source(resolved({"valid": 0.5, "test": 0.4}), tmp_path)
    assert names == ["a", "b"] and len(plan) == 12
    for path, split in plan.select("path", "split").iter_rows():
        assert split == {"train": "train", valid: "valid", "test": "test"}[path.split("/")[1]]
    assert "as the folders at the top say" in capsys.readouterr().err
    assert list_source(resolved(splits="as_given"), tmp_path)[0].equals(plan)


def test_a_split_without_a_folder_is_taken_from_train(tmp_path: Path) -> None:
    many = [f"train/{'ab'[n % 2]}/{n:03d}.png" for n in range(60)]
    write(tmp_path, [*many, "test/a/x.png", "test/b/y.png"], side=2)
    plan, _ = list_source(resolved({"valid": 0.3, "test": 0.3}), tmp_path)
    of_test = plan.filter(pl.col("path").str.starts_with("set/test"))
    assert of_test["split"].to_list() == ["test", "test"] and len(plan) == 62
    train = plan.filter(pl.col("path").str.starts_with("set/train"))
    assert train["split"].to_list() == [assign(name, 0.3, 0.0) for name in train["image_id"]]
    assert set(train["split"]) == {"train", "valid"}


def test_a_patient_in_two_given_splits_is_refused(tmp_path: Path) -> None:
    write(tmp_path, ["train/a/p1_1.png", "train/b/p2_1.png", "test/a/p1_2.png", "test/b/p3_1.png"])
    with pytest.raises(DataError, match=r"patient 'p1' has .*p1_2\.png' in test and .* in train"):
        list_source(resolved({"valid": 0.0}, patient=r"(p\d+)_"), tmp_path)


@pytest.mark.parametrize(
    ("paths", "splits", "said"),
    [
        (["train/a/1.png", "test/a/2.png", "more/a/3.png"], "auto", "'more' beside test, train"),
        (["train/1.png", "test/2.png"], "auto", "without a class folder"),
        (["val/a/1.png", "test/b/2.png"], "auto", "no folder train"),
        (TWO, "as_given", "no folder train"),
        (["train/a/1.png", "x/a/3.png"], "as_given", "'x' beside train"),
        (["train/a/1.png", "test/a/2.png"], "auto", "one class only, 'a'"),
    ],
)
def test_folders_that_are_splits_only_in_part_are_refused(
    paths: list[str], splits: str, said: str, tmp_path: Path
) -> None:
    write(tmp_path, paths)
    with pytest.raises(DataError, match=said):
        list_source(resolved(splits=splits), tmp_path)


@pytest.mark.parametrize("paths", [["train/1.png", "test/2.png"], ["train/1.png", "plane/2.png"]])
def test_classes_may_be_called_as_splits(paths: list[str], tmp_path: Path) -> None:
    write(tmp_path, paths)
    names = sorted(path.split("/")[0] for path in paths)
    assert list_source(resolved(splits="hash"), tmp_path)[1] == names


def test_pictures_without_a_class_and_other_files_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, [*TWO, "loose.png", ".hidden/1.png", "__MACOSX/a/1.png", "a/._1.png"])
    (tmp_path / "set/readme.txt").write_text("x")
    (tmp_path / "set/a/array.npy").write_text("x")
    (tmp_path / "set/a/Thumbs.db").write_text("x")
    (tmp_path / "set/empty/deep").mkdir(parents=True)
    plan, names = list_source(resolved(), tmp_path)
    assert (len(plan), names) == (4, ["a", "b"])
    said = capsys.readouterr().err
    assert "'empty' without images" in said
    assert "1 pictures lie in no class folder, and are left out: 'loose.png'" in said
    assert "2 files are no pictures that can be read (.npy 1, .txt 1): 'a/array.npy'" in said


def test_masks_beside_the_images_are_no_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = ["a/1_mask.png", "a/1_mask_1.png", "b/Masks/1.png", "b/x/masks/2.png"]
    masks += ["a/2_gt.png", "a/2-Segmentation.png", "b/1_anno.png", "b/GroundTruth/1.png"]
    write(tmp_path, [*TWO, *masks, "b/face_mask.png", "masks/1.png"])
    plan, names = list_source(resolved(), tmp_path)
    assert names == ["a", "b", "masks"]  # what lies at the top is a class
    kept = {path.removeprefix("set/") for path in plan["path"]}
    assert kept == {*TWO, "b/face_mask.png", "masks/1.png"}
    assert "8 files are masks by their names, and left out" in capsys.readouterr().err


def test_masks_beside_the_images_of_given_splits(tmp_path: Path) -> None:
    write(tmp_path, ["train/masks/1.png", "train/none/1.png", "train/none/masks/1.png"])
    plan, names = list_source(resolved({"valid": 0.0}), tmp_path)
    assert names == ["masks", "none"] and len(plan) == 2


def test_the_folder_of_the_truth_is_no_class(tmp_path: Path) -> None:
    write(tmp_path, [*TWO, "m/a/1.png", "m/b/2.png"])
    truth = {"kind": "masks", "folder": "set/m", "column": None, "targets": {"t": [1]}}
    plan, names = list_source(resolved(truth=truth), tmp_path)
    assert names == ["a", "b"]
    assert plan["mask"].to_list() == ["a/1.png", None, None, "b/2.png"]
    with pytest.raises(ConfigError, match=r"truth\.column"):
        resolved(truth={**truth, "column": "mask"})


def test_names_in_two_compositions_are_one_class(tmp_path: Path) -> None:
    taken, composed = unicodedata.normalize("NFD", "Ödem"), unicodedata.normalize("NFC", "Ödem")
    write(tmp_path, [f"{taken}/1.png", f"{composed}/1.png", f"{composed}/2.png", "b/1.png"])
    plan, names = list_source(resolved(negative=taken), tmp_path)
    assert names == ["b"] and plan["image_id"].n_unique() == 4
    assert list_source(resolved(), tmp_path)[1] == ["b", composed]


@pytest.mark.parametrize("other", ["Normal", "normal ", "NORMAL", " nor mal"])
def test_names_that_differ_in_case_or_blanks_only_are_refused(other: str, tmp_path: Path) -> None:
    write(tmp_path, ["normal/1.png", f"{other}/2.png", "b/1.png"])
    with pytest.raises(DataError, match="differ in case or blanks only"):
        list_source(resolved(), tmp_path)


def test_numbers_in_names_are_not_joined() -> None:
    assert folded("No_ Finding") == folded("nofinding") == folded("NO-FINDING")
    assert len({folded(name) for name in ("1-1", "11", "t1", "t-1", "grade 1", "grade 11")}) == 6


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (["a/1.png", "a/2.png"], "one class only, 'a'"),
        (["1.png"], "no class folder"),
        ([], "no class folder"),
        (["path/1.png", "b/1.png"], "has the name of a column"),
    ],
)
def test_what_cannot_be_learned_is_refused(paths: list[str], said: str, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    write(tmp_path, paths)
    with pytest.raises(DataError, match=said):
        list_source(resolved(), tmp_path)


def test_a_folder_for_each_patient_is_refused(tmp_path: Path) -> None:
    for number in range(1001):
        place = tmp_path / "set" / f"p{number}"
        place.mkdir(parents=True)
        (place / "1.png").write_bytes(b"%d" % number)
    with pytest.raises(DataError, match="1001 class folders"):
        list_source(resolved(), tmp_path)


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    write(tmp_path, TWO)
    (tmp_path / "set/a/1.png").rename(tmp_path / os.fsdecode(b"set/a/\xe4.png"))
    with pytest.raises(DataError, match=r"udce4\.png' below .* no text; rename it"):
        list_source(resolved(), tmp_path)


def test_blanks_of_any_kind_are_text(tmp_path: Path) -> None:
    write(tmp_path, ["a b/at 1\u202fPM.png", "c\xa0d/x y.png"])
    assert list_source(resolved(), tmp_path)[1] == ["a b", "c\xa0d"]


def test_the_same_file_in_two_classes_is_refused(tmp_path: Path) -> None:
    write(tmp_path, TWO)
    (tmp_path / "set/b/copy.png").write_bytes((tmp_path / "set/a/2.png").read_bytes())
    wanted = r"'a/2\.png' and 'b/copy\.png' below .* \(1 such files\)"
    with pytest.raises(DataError, match=wanted):
        list_source(resolved(), tmp_path)


def test_the_same_file_in_one_class_is_left_out_as_from_a_table(tmp_path: Path) -> None:
    write(tmp_path, TWO)
    (tmp_path / "set/a/copy.png").write_bytes((tmp_path / "set/a/2.png").read_bytes())
    index = decoded(resolved({"size": 16, "max_quarantined": 0.5}), tmp_path)
    assert index["path"].to_list() == [f"set/{path}" for path in TWO]
    assert "same file" in (tmp_path / "q.csv").read_text()


def decoded(config: Any, root: Path) -> pl.DataFrame:
    """The index of a data set in one shard."""
    plan, rows = root / "listing.parquet", root / "rows.parquet"
    stage.list_images(config, root, plan)
    inputs = stage.Inputs(listing=plan, data_root=root)
    stage.decode_shard(config, inputs, "0000", root / "0.h5", rows)
    stage.build_index(config, plan, [rows], root / "index.parquet", root / "q.csv")
    return read_index(root / "index.parquet")[0]


def test_looks_that_lie_in_two_classes_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, TWO, side=64)
    Image.open(tmp_path / "set/a/1.png").convert("RGB").save(tmp_path / "set/b/again.bmp")
    Image.open(tmp_path / "set/a/2.png").convert("RGB").save(tmp_path / "set/a/again.bmp")
    index = decoded(resolved({"size": 64}), tmp_path)
    assert len(index) == 6
    said = capsys.readouterr().err
    assert "1 pairs of images look the same" in said
    assert "'set/a/1.png' and 'set/b/again.bmp'" in said


def test_broken_links_and_links_out_are_not_followed(tmp_path: Path) -> None:
    write(tmp_path / "other", ["1.png", "../out.png"], side=13)
    write(tmp_path / "data", TWO)
    place = tmp_path / "data/set"
    (place / "b/gone.png").symlink_to("nowhere.png")
    (place / "b/out.png").symlink_to(tmp_path / "other/out.png")
    (place / "b/secret").symlink_to("/etc/passwd")
    config = resolved({"size": 16, "max_quarantined": 0.5})
    index = decoded(config, tmp_path / "data")
    assert index["path"].to_list() == [f"set/{path}" for path in TWO]
    reasons = (tmp_path / "data/q.csv").read_text()
    assert "link to a file that is not there" in reasons and "leaves the data root" in reasons
    (place / "c").symlink_to(tmp_path / "other/set")
    with pytest.raises(DataError, match=r"/set/c is a link that leaves the data root"):
        list_source(config, tmp_path / "data")
    plan, names = list_source(resolved(allow_links=True), tmp_path / "data")
    assert names == ["a", "b", "c"] and "set/c/1.png" in plan["path"].to_list()


def test_links_within_the_tree_are_entered_by_no_second_name(tmp_path: Path) -> None:
    write(tmp_path, TWO)
    (tmp_path / "set/0").symlink_to("b")
    (tmp_path / "set/b/loop").symlink_to("..")
    (tmp_path / "set/a/up").symlink_to(tmp_path)
    plan, names = list_source(resolved(), tmp_path)
    assert names == ["a", "b"] and len(plan) == 4


def test_the_plan_does_not_depend_on_the_order_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, [*TWO, "a/x/1.png", "b/y/1.png"])
    plan, _ = list_source(resolved(), tmp_path)
    real = os.walk

    def backwards(top: Path, followlinks: bool) -> Any:
        for place, folders, files in real(top, followlinks=followlinks):
            folders.reverse()
            yield place, folders, files[::-1]

    monkeypatch.setattr(os, "walk", backwards)
    assert list_source(resolved(), tmp_path)[0].equals(plan)


def test_the_source_is_listed_before_the_first_job_and_tasks_take_its_splits(
    tmp_path: Path,
) -> None:
    write(tmp_path, [f"{split}/{path}" for split in ("train", "val") for path in TWO])
    config = resolved()
    listed, names = _list(config, tmp_path)
    assert listed is not None and names == ["a", "b"]
    known = known_splits(config, tmp_path)
    assert known["val_a_1"] == "valid" and len(known) == 8
    missing = resolved(root="nowhere")
    with pytest.raises(DataError, match=re.escape("nowhere does not exist")):
        _list(missing, tmp_path)
