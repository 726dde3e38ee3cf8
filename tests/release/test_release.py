"""A release: built, verified, and every damage found."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from pycocotools import mask as coco

from dollmaker import config as configuration
from dollmaker import provenance, rle, tables
from dollmaker.errors import ArtifactError, DataError
from dollmaker.files import write_json
from dollmaker.release.stage import build_release
from dollmaker.release.verify import verify
from dollmaker.shards import Shard, create_shard

FINDINGS = ["Edema", "<b>Odd|name</b>"]


def make_results(folder: Path, shards: int) -> dict[str, Any]:
    """12 images, two findings each, in so many shards."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (12, 1, 24, 24), dtype=np.uint8)
    masks = np.zeros((24, 24, 24), np.uint8)
    for i in range(24):
        y, x = rng.integers(0, 12, 2)
        masks[i, y : y + 8, x : x + 6] = 1
    masks[3] = 0  # an empty mask
    masks[5, :3] = 255
    header = provenance.header("binarize", {})
    per = 12 // shards
    for number in range(shards):
        part = range(number * per, (number + 1) * per)
        with create_shard(folder / f"images/{number:04d}.h5", "images", header) as writer:
            writer.append(
                {"image_id": [f"i{i}" for i in part]}, image=images[part.start : part.stop]
            )
        rows = range(2 * part.start, 2 * part.stop)
        with create_shard(folder / f"masks/{number:04d}.h5", "masks", header) as writer:
            writer.append(
                {
                    "image_id": [f"i{r // 2}" for r in rows],
                    "finding": [FINDINGS[r % 2] for r in rows],
                    "label": np.ones(len(rows), np.int8),
                    "probability": np.full(len(rows), 0.7, np.float32),
                    "threshold": np.full(len(rows), 0.3, np.float32),
                    "area": np.array([(masks[r] == 1).mean() for r in rows], np.float32),
                    "quality": np.array([r / 24 for r in rows], np.float32),
                    "agreement": np.ones(len(rows), np.float32),
                    "completeness": np.zeros(len(rows), np.float32),
                    "kept": np.array([r != 7 for r in rows]),
                },
                mask=masks[rows.start : rows.stop],
            )
    index = pl.DataFrame(
        {
            "image_id": [f"i{i}" for i in range(12)],
            "path": [f"a/{i}.png" for i in range(12)],
            "patient_id": [f"p{i // 2}" for i in range(12)],
            "split": ["train"] * 8 + ["valid"] * 2 + ["test"] * 2,
            "width": [30] * 12,
            "height": [20] * 12,
            "sha256": ["0" * 64] * 12,
            "shard": [f"{i // per:04d}" for i in range(12)],
            "row": [i % per for i in range(12)],
            **{f: pl.Series([1] * 12, dtype=pl.Int8) for f in FINDINGS},
        }
    )
    tables.write(index, folder / "index.parquet", {**header, "findings": FINDINGS})
    metrics = {"macro_auroc": 0.8, "split": "test"}
    member = {"architecture": "timm:x", "sha256": "f" * 64, "metrics": metrics}
    (folder / "a").mkdir()
    write_json(folder / "a/model.json", member)
    return configuration.resolve(
        {
            "dataset": "x",
            "source": {"kind": "phantoms"},
            "prepare": {"size": 24, "shards": shards},
            "release": {"name": "A <script>alert(1)</script> set"},
        }
    )


SANITY = {
    "recipe": "doll",
    **dict.fromkeys(("positives", "negatives"), 8),
    **dict.fromkeys(("randomised", "other", "insertion", "deletion", "masked_negatives"), 0.5),
    **dict.fromkeys(("ignores_model", "ignores_finding"), False),
}


def sane(folder: Path, **changes: bool) -> Path:
    write_json(folder / "sanity.json", {**SANITY, **changes, "header": {}})
    return folder / "sanity.json"


def build(folder: Path, shards: int = 1) -> Path:
    folder.mkdir()
    config = make_results(folder, shards)
    masks = sorted((folder / "masks").glob("*.h5"))
    build_release(
        config,
        folder / "index.parquet",
        folder / "images",
        masks,
        [folder / "a"],
        sane(folder),
        folder / "release",
    )
    return folder / "release"


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


def test_a_release_holds_what_was_made(tmp_path: Path) -> None:
    release = build(tmp_path / "x")
    assert verify(release) == []
    train = tables.read(release / "data/train.parquet")
    assert len(train) == 14  # 16 less one empty and one gated mask
    row = train.filter(image_id="i2", finding=FINDINGS[1])
    assert row.is_empty() or row["area"][0] > 0
    with Shard(release / "masks/train.h5", "masks") as shard:
        masks = shard.read("mask")
    assert (masks == 255).any()
    for mask, record in zip(masks, train.iter_rows(named=True), strict=True):
        x, y, w, h = record["box"]
        assert (mask[y : y + h, x : x + w] == 1).sum() == record["area"] == w * h
    card = (release / "README.md").read_text()
    assert "<script>" not in card.split("---")[2]
    assert "| Edema | 8 | 2 | 2 |" in card


def test_two_builds_and_other_shards_give_the_same_bytes(tmp_path: Path) -> None:
    sums = [
        (build(tmp_path / name, shards) / "SHA256SUMS").read_text()
        for name, shards in (("a", 1), ("b", 1), ("c", 4))
    ]
    assert sums[0] == sums[1] == sums[2]


def test_any_changed_missing_or_added_file_is_named(tmp_path: Path) -> None:
    release = build(tmp_path / "x")
    files = [p for p in sorted(release.rglob("*")) if p.is_file() and p.name != "SHA256SUMS"]
    assert len(files) >= 9
    for path in files:
        name = path.relative_to(release).as_posix()
        whole = path.read_bytes()
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 1
        path.write_bytes(bytes(flipped))
        assert any(name in fault for fault in verify(release)), name
        path.write_bytes(whole)
    assert verify(release) == []
    (release / "extra.txt").touch()
    assert verify(release) == ["extra.txt: not listed in SHA256SUMS"]
    (release / "extra.txt").unlink()
    (release / "README.md").unlink()
    assert verify(release) == ["README.md: missing"]


def test_tables_and_masks_that_disagree_are_found(tmp_path: Path) -> None:
    from dollmaker.release.stage import checksums

    release = build(tmp_path / "x")
    table = tables.read(release / "data/test.parquet")
    other = rle.encode(np.eye(24))
    changed = table.with_columns(
        pl.when(pl.int_range(pl.len()) == 1)
        .then(pl.lit(other))
        .otherwise("counts")
        .alias("counts"),
        patient_id=pl.lit("p0"),
    )
    tables.write(changed, release / "data/test.parquet", {})
    (release / "SHA256SUMS").write_text(checksums(release))  # as a careless editor would
    faults = verify(release)
    assert any("RLE, area and mask file differ" in fault for fault in faults)
    assert any("patient 'p0' is in more than one split" in fault for fault in faults)


def test_paths_out_of_the_release_and_other_folders_are_refused(tmp_path: Path) -> None:
    release = build(tmp_path / "x")
    with (release / "SHA256SUMS").open("a") as file:
        file.write("0" * 64 + "  ../index.parquet\n")
    assert any("leaves the data root" in fault for fault in verify(release))
    with pytest.raises(ArtifactError, match="holds no SHA256SUMS"):
        verify(tmp_path)


def test_a_release_without_masks_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    config = make_results(folder, 1)
    shutil.rmtree(folder / "masks")
    with create_shard(folder / "masks/0000.h5", "masks", provenance.header("binarize", {})):
        pass
    with pytest.raises(DataError, match="no mask is left"):
        build_release(
            config, folder / "index.parquet", folder / "images",
            [folder / "masks/0000.h5"], [folder / "a"], sane(folder), folder / "release",
        )  # fmt: skip
    assert not (folder / "release").exists()


@pytest.mark.parametrize(
    ("check", "words"), [("ignores_model", "weights are random"), ("ignores_finding", "the same")]
)
def test_masks_of_maps_that_ignore_the_model_are_released_only_on_demand(
    tmp_path: Path, check: str, words: str
) -> None:
    config = make_results(tmp_path, 1)
    masks = sorted((tmp_path / "masks").glob("*.h5"))
    places = (tmp_path / "index.parquet", tmp_path / "images", masks, [tmp_path / "a"])
    failed = sane(tmp_path, **{check: True})
    with pytest.raises(DataError, match=words):
        build_release(config, *places, failed, tmp_path / "release")
    config["release"]["allow_failed_sanity"] = True
    build_release(config, *places, failed, tmp_path / "release")
    assert verify(tmp_path / "release") == []
    assert '"header"' not in (tmp_path / "release/sanity.json").read_text()
