"""Outlines between pixels: every form of a release is cut from the enlarged map."""

import json
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from dollmaker import PseudoLabels
from dollmaker.measures import scores
from dollmaker.pixels.geometry import level_set, unfit_map, unfit_mask
from dollmaker.pixels.geometry import source_mask as cut
from dollmaker.release.export import export
from dollmaker.release.formats import pieces, write_formats
from dollmaker.release.parts import SPLITS, find_parts, read_rows
from dollmaker.release.read import read_release, source_mask, square_mask
from dollmaker.release.source import to_source
from dollmaker.release.verify import verify
from dollmaker.runtime.cli import main
from dollmaker.store import tables
from dollmaker.store.files import safe_name
from dollmaker.store.rle import decode
from dollmaker.store.shards import Shard, create_shard
from dollmaker.store.sums import CHECKSUMS, checksums
from release.small_release import FINDINGS, build

Masks = dict[tuple[str, str], npt.NDArray[np.bool_]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Source images of 30 x 20, squares of 24; maps are hills, masks are cut from them."""
    folder = tmp_path_factory.mktemp("levels") / "x"
    build(folder, drawn=True)
    return folder


@pytest.fixture(scope="module")
def wanted(results: Path) -> Masks:
    """What the level sets of all maps give, painted."""
    found: Masks = {}
    with (
        Shard(results / "masks/0000.h5", "masks") as masks,
        Shard(results / "relevance/0000.h5", "relevance") as maps,
    ):
        table = masks.table()
        for row, key in enumerate(zip(table["image_id"], table["finding"], strict=True)):
            mask, values = masks.read("mask", row), maps.read("map", row)
            levels = level_set(mask, values, table["threshold"][row])
            found[key] = cut(levels, 30, 20, "letterbox")
    return found


def test_masks_are_cut_from_the_enlarged_map(results: Path, wanted: Masks) -> None:
    release = read_release(results / "release")
    mine, theirs = [], []
    with Shard(results / "relevance/0000.h5", "relevance") as maps:
        place = {(f"i{r // 2}", FINDINGS[r % 2]): r for r in range(24)}
        for row in release.table.iter_rows(named=True):
            key = row["image_id"], row["finding"]
            mask = source_mask(release, row)
            np.testing.assert_array_equal(mask, wanted[key])
            if key == ("i2", FINDINGS[1]):
                continue  # a part of it is to be ignored, whatever its map says
            exact = unfit_map(maps.read("map", place[key]), 30, 20, "letterbox") > np.float32(0.3)
            mine.append(scores.iou(mask, exact))
            nearest = unfit_mask(square_mask(row), 30, 20, "letterbox") == 1
            theirs.append(scores.iou(nearest, exact))
    assert np.mean(mine) > 0.99 > np.mean(theirs)


def test_all_forms_say_the_same(results: Path, wanted: Masks, tmp_path: Path) -> None:
    root, release = tmp_path / "source", results / "release"
    (root / "a").mkdir(parents=True)
    for k in range(12):
        Image.new("L", (30, 20)).save(root / f"a/{k}.png")
    for form in ("png", "nnunet", "yolo"):
        export(release, form, tmp_path / form, root)
    rows = read_release(release).table.to_dicts()
    folders = dict(zip(FINDINGS, sorted((tmp_path / "nnunet").iterdir()), strict=True))
    assert len(list((tmp_path / "png").rglob("*.png"))) == len(rows) == 22
    ignored = 0
    for row in rows:
        split, image, finding = row["split"], row["image_id"], row["finding"]
        mask = wanted[image, finding]
        content = json.loads((release / f"chexlocalize/{split}.json").read_text())
        assert (decode(content[image][finding]["counts"], 20, 30) == mask).all()
        path = tmp_path / "png" / split / safe_name(finding) / f"{image}.png"
        assert (np.asarray(Image.open(path)) == 255 * mask).all()
        kind = "Ts" if split == "test" else "Tr"
        label = np.asarray(Image.open(folders[finding] / f"labels{kind}/{image}.png"))
        assert ((label == 1) == mask).all()
        ignored += (label == 2).sum()
    assert ignored > 0
    assert verify(release) == []
    words = ["evaluate", str(release), "--truth", str(release / "chexlocalize/train.json")]
    assert main([*words, "--json", str(tmp_path / "out.json")]) == 0
    result = json.loads((tmp_path / "out.json").read_text())
    assert {row["miou"] for row in result["scores"]} == {1.0}


def rewrite(path: Path, *, level: npt.NDArray[np.int8] | None) -> None:
    """The mask file with other level sets, or as versions before had it."""
    with Shard(path, "masks") as shard:
        header, table, masks = shard.header, shard.table(), shard.read("mask")
    path.unlink()
    with create_shard(path, "masks", header, gzip=True) as writer:
        arrays = {"mask": masks} if level is None else {"mask": masks, "level": level}
        writer.append(table, **arrays)


def test_a_release_of_an_earlier_version_is_still_read(results: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(results / "release", old)
    images = tables.read(old / "images.parquet")
    for split in SPLITS:
        for path in find_parts(old, "masks", split):
            rewrite(path, level=None)
        rows = read_rows(old, split).to_dicts()
        squares, sizes = [square_mask(row) for row in rows], [(30, 20)] * len(rows)
        masks = to_source(squares, sizes, "letterbox")
        table = read_rows(old, split)
        write_formats(old, split, pieces(images.filter(split=split), table, masks, FINDINGS))
    (old / CHECKSUMS).unlink()
    (old / CHECKSUMS).write_text(checksums(old))
    assert verify(old) == []
    release = read_release(old)
    for row in release.table.iter_rows(named=True):
        nearest = unfit_mask(square_mask(row), 30, 20, "letterbox") == 1
        np.testing.assert_array_equal(source_mask(release, row), nearest)
    assert len(PseudoLabels(old)) == 8
    export(old, "yolo", tmp_path / "yolo")
    words = ["evaluate", str(old), "--truth", str(old / "chexlocalize/test.json")]
    assert main(words) == 0


def test_a_level_set_of_another_mask_is_named(results: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    shutil.copytree(results / "release", wrong)
    (path,) = find_parts(wrong, "masks", "test")
    with Shard(path, "masks") as shard:
        levels = shard.read("level")
    levels[1] *= -1
    rewrite(path, level=levels)
    (wrong / CHECKSUMS).unlink()
    (wrong / CHECKSUMS).write_text(checksums(wrong))
    row = read_rows(wrong, "test").row(1, named=True)
    assert f"{row['image_id']} / {row['finding']}: level set and mask differ" in verify(wrong)[0]
