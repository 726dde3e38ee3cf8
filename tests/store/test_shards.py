"""Shards: round trip, damage, and byte identity."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dollmaker.runtime.errors import ArtifactError, DamagedError
from dollmaker.store.provenance import header
from dollmaker.store.shards import ImageShards, Shard, create_shard, tables_of_pairs


def write(path: Path, *, gzip: bool = False) -> np.ndarray:
    images = np.random.default_rng(0).integers(0, 255, (5, 1, 8, 8), dtype=np.uint8)
    with create_shard(path, "images", header("prepare", {}), gzip=gzip) as writer:
        writer.append({"image_id": ["a", "ä", "c"]}, image=images[:3])
        writer.append({"image_id": ["d", "<e>"]}, image=images[3:])
    return images


@pytest.mark.parametrize("gzip", [False, True])
def test_round_trip(tmp_path: Path, gzip: bool) -> None:
    images = write(tmp_path / "0000.h5", gzip=gzip)
    with Shard(tmp_path / "0000.h5", "images") as shard:
        assert len(shard) == 5
        assert shard.table()["image_id"].tolist() == ["a", "ä", "c", "d", "<e>"]
        np.testing.assert_array_equal(shard.read("image"), images)
        np.testing.assert_array_equal(shard.read("image", [1, 4]), images[[1, 4]])
        assert shard.header["stage"] == "prepare"


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    write(tmp_path / "a.h5")
    write(tmp_path / "b.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_damage_is_named_not_read(tmp_path: Path) -> None:
    path = tmp_path / "0000.h5"
    write(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtifactError, match=r"0000\.h5"):
        Shard(path, "images").read("image")
    with pytest.raises(ArtifactError, match="not a complete shard of masks"):
        path.write_bytes(whole)
        Shard(path, "masks")
    with pytest.raises(ArtifactError, match="does not exist"):
        Shard(tmp_path / "absent.h5", "images")


def test_a_flipped_bit_in_an_image_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "0000.h5"
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (4, 1, 64, 64), dtype=np.uint8)  # noise: stored as it is
    with create_shard(path, "images", header("prepare", {})) as writer:
        writer.append({"image_id": ["a", "b", "c", "d"]}, image=images)
    data = bytearray(path.read_bytes())
    place = bytes(data).find(images[2].tobytes()[100:140])
    assert place > 0
    data[place] ^= 1
    path.write_bytes(bytes(data))
    with Shard(path, "images") as shard:
        shard.read("image", 1)
        with pytest.raises(ArtifactError, match="damaged"):
            shard.read("image", 2)


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        (5, IndexError),
        (-1, IndexError),
        ([1, 7], IndexError),
        ([2, 1], IndexError),
        (slice(4, 0, -1), IndexError),
        ("1", TypeError),
        (1.0, TypeError),
        (np.array([True, False, True, False, True]), TypeError),
    ],
)
def test_a_mistake_of_the_caller_is_no_damage(tmp_path: Path, rows: Any, error: type) -> None:
    write(tmp_path / "0000.h5")
    with Shard(tmp_path / "0000.h5", "images") as shard, pytest.raises(error) as caught:
        shard.read("image", rows)
    assert not isinstance(caught.value, DamagedError)


@pytest.mark.parametrize("rows", [np.int64(2), 2, slice(1, None, 2), np.array([0, 3]), []])
def test_rows_come_in_every_form_of_a_number(tmp_path: Path, rows: Any) -> None:
    images = write(tmp_path / "0000.h5")
    with Shard(tmp_path / "0000.h5", "images") as shard:
        wanted = images[rows if len(np.atleast_1d(rows)) else slice(0)]
        np.testing.assert_array_equal(shard.read("image", rows), wanted)


def test_a_shard_that_was_not_finished_never_appears(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), create_shard(tmp_path / "x.h5", "images", {}):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_image_shards_keep_few_files_open_and_survive_pickling(tmp_path: Path) -> None:
    images = [write(tmp_path / f"{number:04d}.h5") for number in range(3)]
    shards = ImageShards(tmp_path, max_open=2)
    for number in (0, 1, 2, 0):
        np.testing.assert_array_equal(shards.read(f"{number:04d}", 4), images[number][4])
    again = pickle.loads(pickle.dumps(shards))  # what a worker process receives
    np.testing.assert_array_equal(again.read("0001", 0), images[1][0])


@pytest.mark.parametrize("names", [["A", "B"], ["B", "A"], ["A"]])
def test_masks_and_maps_are_of_the_same_pairs_in_the_same_order(
    tmp_path: Path, names: list[str]
) -> None:
    for kind, findings in (("masks", ["A", "B"]), ("relevance", names)):
        with create_shard(tmp_path / f"{kind}.h5", kind, header("prepare", {})) as writer:
            ids = np.full(len(findings), "i", object)
            writer.append({"image_id": ids, "finding": np.array(findings, object)})
    masks = Shard(tmp_path / "masks.h5", "masks")
    maps = Shard(tmp_path / "relevance.h5", "relevance")
    if names == ["A", "B"]:
        table, other = tables_of_pairs(masks, maps)
        assert list(table["finding"]) == list(other["finding"]) == names
        return
    with pytest.raises(ArtifactError, match=r"masks\.h5 and .*relevance\.h5 do not hold the same"):
        tables_of_pairs(masks, maps)
