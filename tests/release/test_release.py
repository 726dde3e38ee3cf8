"""Labels and a release: built, verified, and every damage found."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from pycocotools import mask as coco

from dollmaker.release.parts import SPLITS, find_parts, read_rows
from dollmaker.release.read import read_release
from dollmaker.release.verify import verify
from dollmaker.runtime.errors import ArtifactError, DataError
from dollmaker.store import provenance, rle, tables
from dollmaker.store.files import read_json
from dollmaker.store.shards import Shard, create_shard
from dollmaker.store.sums import checksums, require_listed
from release.small_release import FINDINGS, build, make_labels, make_results


def test_rle_is_cocos_and_bad_codes_are_refused() -> None:
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (7, 3), (64, 50)):
        for share in (0, 0.1, 0.9, 1):
            mask = rng.random(shape) < share
            counts = rle.encode(mask)
            np.testing.assert_array_equal(rle.decode(counts, *shape), mask)
            theirs = coco.decode({"size": list(shape), "counts": counts.encode()})
            np.testing.assert_array_equal(theirs, mask)
    for bad in ("", "zz", "0", counts + "1", "P", "\x7f", "é"):
        with pytest.raises(DataError):
            rle.decode(bad, 64, 50)


def write_sums(release: Path) -> None:
    """As a careless editor would."""
    (release / "SHA256SUMS").write_text(checksums(release))


def test_codes_are_written_as_coco_does() -> None:
    rng = np.random.default_rng(1)
    for shape, share in (((1, 1), 1), ((40, 30), 0.5), ((700, 900), 0.0001), ((64, 64), 0)):
        counts = rle.encode(rng.random(shape) < share)
        assert rle.write_runs([rle.read_runs(counts)] * 3) == [counts] * 3


def test_a_release_holds_what_was_made(release: Path) -> None:
    assert verify(release) == []
    train = read_rows(release, "train")
    assert len(train) == 14  # 16 less one empty and one gated mask
    row = train.filter(image_id="i2", finding=FINDINGS[1])
    assert row.is_empty() or row["area"][0] > 0
    (path,) = find_parts(release, "masks", "train")
    assert path.name == "train-00000-of-00001.h5"
    with Shard(path, "masks") as shard:
        masks = shard.read("mask")
        assert not len(shard.read("relevance"))
    assert (masks == 255).any()
    for mask, record in zip(masks, train.iter_rows(named=True), strict=True):
        x, y, w, h = record["box"]
        assert (mask[y : y + h, x : x + w] == 1).sum() == record["area"] == w * h
    assert train["quality"].to_list() == [float(np.float32(round(q, 4))) for q in train["quality"]]
    images = tables.read(release / "images.parquet")
    assert len(images) == 12 and images["explained"].all()
    for name in ("data", "masks", "images.parquet"):
        mine, theirs = release / name, release.parent / "labels" / name
        files = [mine] if mine.is_file() else sorted(mine.iterdir())
        assert all(
            file.read_bytes() == (theirs / file.name if mine.is_dir() else theirs).read_bytes()
            for file in files
        )


def test_files_have_so_many_rows_whatever_the_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dollmaker.release.labels.ROWS_PER_FILE", 5)
    one, four = build(tmp_path / "a", 1), build(tmp_path / "b", 4)
    parts = find_parts(one, "masks", "train")
    assert [p.name for p in parts] == [f"train-0000{k}-of-00003.h5" for k in range(3)]
    assert [len(tables.read(p)) for p in find_parts(one, "data", "train")] == [5, 5, 4]
    assert (one / "SHA256SUMS").read_text() == (four / "SHA256SUMS").read_text()
    assert verify(one) == verify(one, workers=2) == []
    parts[1].unlink()
    assert "masks/train-00001-of-00003.h5: missing" in verify(one)
    write_sums(one)
    assert any("does not hold the 3 files of 'train'" in fault for fault in verify(one))


def test_relevance_is_released_on_demand(tmp_path: Path) -> None:
    release = build(tmp_path / "x", 2, relevance=True)
    assert verify(release) == []
    (path,) = find_parts(release, "masks", "train")
    with Shard(path, "masks") as shard:
        maps = shard.read("relevance")
        rows = [tuple(pair) for pair in zip(*(shard.table()[k] for k in ("image_id", "finding")), strict=True)]  # fmt: skip # noqa: E501
    level = np.linspace(-1, 1, 24, dtype=np.float16)
    for (image_id, finding), values in zip(rows, maps, strict=True):
        row = 2 * int(image_id[1:]) + FINDINGS.index(finding)
        assert values.dtype == np.uint8
        assert (values == round(255 * max(0, float(level[row])))).all()


def test_two_builds_and_other_shards_give_the_same_bytes(made: Path, tmp_path: Path) -> None:
    builds = (made, build(tmp_path / "b", 1), build(tmp_path / "c", 4))
    sums = [(folder / "SHA256SUMS").read_text() for folder in builds]
    assert sums[0] == sums[1] == sums[2]


def test_a_release_that_replaces_one_of_its_version_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Snakemake removes SHA256SUMS before the job."""
    told = "release held version 1.0.0 with other bytes, and is replaced under the same version"
    again: tuple[tuple[dict[str, Any], bool], ...] = (
        ({}, False),
        ({}, False),
        ({"name": "Other"}, True),
        ({"name": "Third", "version": "1.0.1"}, False),
    )
    for changes, expected in again:
        release = build(tmp_path / "x", **changes)
        assert (told in capsys.readouterr().err) == expected
        (release / "SHA256SUMS").unlink()


def flipped(content: bytes, place: int) -> bytes:
    """The content with one bit changed."""
    changed = bytearray(content)
    changed[place] ^= 1
    return bytes(changed)


def test_any_changed_missing_or_added_file_is_named(release: Path) -> None:
    files = [p for p in sorted(release.rglob("*")) if p.is_file()]
    assert len(files) >= 22
    whole = {p: p.read_bytes() for p in files if p.name != "SHA256SUMS"}
    names = {path: path.relative_to(release).as_posix() for path in whole}
    for path, content in whole.items():
        path.write_bytes(flipped(content, len(content) // 2))
        (fault,) = verify(release)
        assert fault.startswith(f"{names[path]}: "), fault
        path.write_bytes(content)
    for place in (0, -1):  # of all files at once
        for path, content in whole.items():
            path.write_bytes(flipped(content, place))
        faults = [fault.partition(": ")[0] for fault in verify(release)]
        assert sorted(faults) == sorted(names.values())
    for path, content in whole.items():
        path.write_bytes(content)
    assert verify(release) == []
    (release / "extra.txt").touch()
    assert verify(release) == ["extra.txt: not listed in SHA256SUMS"]
    (release / "extra.txt").unlink()
    for place in (release.parent / "images", release / "nowhere"):
        (release / "gallery/more").symlink_to(place)
        assert verify(release) == ["gallery/more: not listed in SHA256SUMS"]
        (release / "gallery/more").unlink()
    (release / "README.md").unlink()
    assert verify(release) == ["README.md: missing"]


def test_damaged_sums_are_named(release: Path) -> None:
    path = release / "SHA256SUMS"
    whole = path.read_bytes()
    for place in (0, 64, 70, len(whole) // 2, len(whole) - 1):
        path.write_bytes(flipped(whole, place))
        faults = verify(release)
        assert faults and any("SHA256SUMS" in fault for fault in faults), place


def test_sha256sum_reads_the_sums(release: Path) -> None:
    words = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    for said in ("", "LICENSE: FAILED\n"):
        done = subprocess.run(words, cwd=release, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (int(bool(said)), said)
        (release / "LICENSE").write_text("mine")
    files = sum(path.is_file() for path in release.rglob("*"))
    lines = (release / "SHA256SUMS").read_text().splitlines()
    assert len(lines) == files - 1
    assert all(re.fullmatch(r"[0-9a-f]{64}  \S+", line) for line in lines)


@pytest.mark.parametrize(
    "written",
    [
        lambda line: line.replace("  ", "  ./"),
        lambda line: f"{line}\r",
        lambda line: f"{line[:64].upper()} *{line[66:]}",
    ],
)
def test_sums_that_other_tools_wrote_are_read(release: Path, written: Callable[[str], str]) -> None:
    path = release / "SHA256SUMS"
    lines = [written(line) for line in path.read_text().splitlines()]
    path.write_text("\n".join(["\ufeff# theirs", *lines, ""]), newline="\n")
    assert verify(release) == []
    path.write_text("\n".join([*lines, written(f"{'0' * 64}  ../x")]), newline="\n")
    assert [fault for fault in verify(release) if "leaves the data root" in fault]


def change(release: Path, name: str, **columns: Any) -> None:
    """Change columns of a table, and the sums."""
    tables.write(tables.read(release / name).with_columns(**columns), release / name, {})
    write_sums(release)


ROW_1 = pl.when(pl.int_range(pl.len()) == 1)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"counts": ROW_1.then(pl.lit(rle.encode(np.eye(24)))).otherwise("counts")}, "RLE and"),
        ({"counts": ROW_1.then(pl.lit("zz")).otherwise("counts")}, "run-length code is damaged"),
        ({"area": ROW_1.then(pl.lit(3)).otherwise("area")}, "area or box is not"),
        ({"size": pl.lit([12, 48], dtype=pl.List(pl.Int64))}, "size differs"),
        ({"patient_id": pl.lit("p0")}, "an image is not, or not so, in images.parquet"),
        ({"finding": pl.lit("x")}, "rows differ from data/test-00000-of-00001.parquet"),
        ({"area": pl.col("area").cast(pl.Int32)}, "columns or types are not those"),
        ({"split": pl.lit("train")}, "rows of another split"),
    ],
)
def test_tables_and_masks_that_disagree_are_found(
    release: Path, columns: dict[str, pl.Expr], words: str
) -> None:
    change(release, "data/test-00000-of-00001.parquet", **columns)
    assert any(words in fault for fault in verify(release))


def test_patients_in_two_splits_are_found(release: Path) -> None:
    for path in ("images.parquet", *(f"data/{s}-00000-of-00001.parquet" for s in SPLITS)):
        change(release, path, patient_id=pl.lit("p0"))
    assert any("patient 'p0' is in more than one split" in fault for fault in verify(release))


@pytest.mark.parametrize(
    ("name", "old", "new", "line"),
    [
        ("coco/train.json", '"id":1,"image_id":1', '"id":1,"image_id":2', 13),
        ("coco/train.json", '"iscrowd":0', '"iscrowd":1', 26),
        ("coco/train.json", '"id":3,', '"id":3, ', 15),
        ("coco/train.json", "]\n}\n", "]\n}\n\n", 33),
        ("coco/train.json", "}\n]\n}\n", "}\n]\n", 32),
        ("chexlocalize/train.json", '"i2": {"Edema"', '"i2": {"edema"', 4),
        ("chexlocalize/valid.json", '"i9":', '"i10":', 3),
        ("chexlocalize/test.json", None, "", 1),
        ("chexlocalize/test.json", None, "\x80\xff", 1),
    ],
)
def test_json_that_disagrees_is_found(
    release: Path, name: str, old: str | None, new: str, line: int
) -> None:
    path = release / name
    text = path.read_text()
    assert old is None or old in text
    changed = new if old is None else new.join(text.rsplit(old, 1))
    path.write_bytes(changed.encode("latin-1" if old is None else "utf-8"))
    write_sums(release)
    assert verify(release) == [f"{name}: differs from tables and mask files in line {line}"]


def test_json_that_is_nowhere_is_missing(release: Path) -> None:
    (release / "coco/valid.json").unlink()
    write_sums(release)
    assert verify(release) == ["coco/valid.json: missing"]


def test_rows_in_another_order_are_found(release: Path) -> None:
    images = tables.read(release / "images.parquet")
    tables.write(images.reverse(), release / "images.parquet", {})
    write_sums(release)
    assert any("not in the order of images.parquet" in fault for fault in verify(release))


@pytest.mark.parametrize("kind", ["data", "masks"])
def test_a_split_that_did_not_come_is_no_split_without_masks(release: Path, kind: str) -> None:
    (path,) = (release / kind).glob("test-*")
    path.unlink()
    with pytest.raises(ArtifactError, match=rf"lacks {kind}/test-.* which SHA256SUMS lists"):
        read_release(release)
    assert verify(release) == [f"{kind}/{path.name}: missing"]
    shutil.rmtree(release / "chexlocalize")
    with pytest.raises(ArtifactError, match=r"lacks chexlocalize/.*.json"):
        require_listed(release, "chexlocalize/")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bounds.json", '{"confidence": 0.9}'),
        ("bounds.json", "[]"),
        ("bounds.json", '{"confidence": 0.9, "min_probability": 0, "calibrations": [{}]}'),
        ("provenance.json", '{"config": {}}'),
    ],
)
def test_json_of_another_form_is_named(release: Path, name: str, content: str) -> None:
    (release / name).write_text(content)
    write_sums(release)
    faults = verify(release)
    assert faults and all(f"{name} is not that of a release" in fault for fault in faults)


def test_paths_out_of_the_release_and_other_folders_are_refused(
    release: Path, tmp_path: Path
) -> None:
    with (release / "SHA256SUMS").open("a") as file:
        file.write("0" * 64 + "  ../index.parquet\n")
    assert any("leaves the data root" in fault for fault in verify(release))
    with pytest.raises(ArtifactError, match="holds no SHA256SUMS"):
        verify(tmp_path)


def test_labels_without_masks_are_refused(tmp_path: Path) -> None:
    config = make_results(tmp_path, 1)
    shutil.rmtree(tmp_path / "masks")
    with create_shard(tmp_path / "masks/0000.h5", "masks", provenance.header("binarize", {})):
        pass
    with pytest.raises(DataError, match="no mask is left"):
        make_labels(tmp_path, config)
    assert not (tmp_path / "labels").exists()


@pytest.mark.parametrize(
    ("check", "words"),
    [
        ({"ignores_model": True}, "weights are random"),
        ({"ignores_finding": True}, "the same"),
        ({"ignores_model": None}, "could not be compared with those of random weights"),
        ({"ignores_finding": None}, "could not be compared with those of another finding"),
    ],
)
def test_masks_of_maps_that_ignore_the_model_are_released_only_on_demand(
    tmp_path: Path, check: dict[str, Any], words: str
) -> None:
    config = make_results(tmp_path, 1)
    with pytest.raises(DataError, match=words):
        make_labels(tmp_path, config, **check)
    allowed = config.release.model_copy(update={"allow_failed_sanity": True})
    config = config.model_copy(update={"release": allowed})
    assert (make_labels(tmp_path, config, **check) / "SHA256SUMS").is_file()


def test_the_labels_of_images_that_were_turned_say_so(tmp_path: Path) -> None:
    config = make_results(tmp_path, 1)
    index = tables.read(tmp_path / "index.parquet")
    header = tables.read_header(tmp_path / "index.parquet")
    assert "orientation" not in read_json(make_labels(tmp_path, config) / "provenance.json")
    turned = pl.when(pl.col("image_id") == "i3").then(6).otherwise(1).cast(pl.Int8)
    tables.write(index.with_columns(orientation=turned), tmp_path / "index.parquet", header)
    labels = make_labels(tmp_path, config)
    assert read_json(labels / "provenance.json")["orientation"] == {"i3": 6}


def test_a_split_without_masks_has_no_files(tmp_path: Path) -> None:
    config = make_results(tmp_path, 1)
    index = tables.read(tmp_path / "index.parquet")
    header = tables.read_header(tmp_path / "index.parquet")
    both = pl.when(pl.col("split") == "valid").then(pl.lit("train")).otherwise("split")
    tables.write(index.with_columns(split=both), tmp_path / "index.parquet", header)
    labels = make_labels(tmp_path, config)
    assert find_parts(labels, "masks", "valid") == [] and len(read_rows(labels, "valid")) == 0
    assert len(read_rows(labels, "train")) == 18
