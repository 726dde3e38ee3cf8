"""The mean of a recipe's own maps, written out: all maps but that of the image."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dollmaker.evaluate import guesses
from dollmaker.evaluate.guesses import MeanMap
from dollmaker.store import provenance
from dollmaker.store.shards import create_shard

IMAGES, SIDE = 7, 6
HEADER = provenance.header("binarize", {})
KEPT = np.array([1, 1, 1, 0, 1, 1, 1], bool)
AREAS = np.linspace(0.1, 0.4, IMAGES).astype(np.float32)
MAPS = np.random.default_rng(0).random((IMAGES, SIDE, SIDE)).astype(np.float16)


@pytest.fixture
def files(tmp_path: Path) -> list[tuple[Path, Path]]:
    """Two shards of masks and maps of one finding; one pair has no mask."""
    made = []
    for shard, rows in (("0000", slice(0, 4)), ("0001", slice(4, IMAGES))):
        ids = np.array([f"i{n}" for n in range(IMAGES)][rows])
        table = {"image_id": ids, "finding": np.array(["F"] * len(ids))}
        masks, maps = tmp_path / f"m{shard}.h5", tmp_path / f"r{shard}.h5"
        with create_shard(masks, "masks", HEADER) as writer:
            writer.append(table | {"kept": KEPT[rows], "area": AREAS[rows]})
        with create_shard(maps, "relevance", HEADER) as writer:
            writer.append(table, map=MAPS[rows])
        made.append((masks, maps))
    return made


def others(*out: int) -> list[int]:
    return [n for n in range(IMAGES) if KEPT[n] and n not in out]


def expected(rows: list[int]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
    """The mean map of some rows, and its highest pixels, as many as their masks have."""
    mean = np.mean([MAPS[n].astype(float) for n in rows], axis=0)
    pixels = round(float(np.mean([AREAS[n] for n in rows])) * mean.size)
    mask = np.zeros(mean.size, bool)
    mask[np.argsort(-mean, axis=None)[:pixels]] = True
    return mask.reshape(mean.shape), mean.astype(np.float32)


@pytest.mark.parametrize("number", [0, 3, 5])
def test_the_image_itself_is_left_out(files: list[tuple[Path, Path]], number: int) -> None:
    own = MAPS[number], float(AREAS[number])
    found = MeanMap(files, "resize").guess(f"i{number}", "F", *own, SIDE, SIDE)
    mask, mean = expected(others(number))
    assert_allclose(found.values, mean, rtol=1e-6)
    assert_array_equal(found.mask, mask)


def test_a_map_of_equals_has_no_more_than_the_mean_area(files: list[tuple[Path, Path]]) -> None:
    made = MeanMap(files, "resize")
    made._sums["F"].map = np.zeros((SIDE, SIDE))
    found = made.guess("i3", "F", np.zeros((SIDE, SIDE)), 0.0, SIDE, SIDE)
    assert found.mask.mean() == pytest.approx(np.mean(AREAS[KEPT]), abs=0.5 / SIDE**2)


def test_some_of_many_maps_are_enough(
    files: list[tuple[Path, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guesses, "MOST", 2)
    found = MeanMap(files, "resize").guess("i3", "F", MAPS[3], 0.0, SIDE, SIDE)
    assert_allclose(found.values, expected([0, 6])[1], rtol=1e-6)


def test_without_another_image_nothing_is_drawn(files: list[tuple[Path, Path]]) -> None:
    found = MeanMap(files, "resize").guess("i0", "G", MAPS[0], 0.5, 9, SIDE)
    assert found.mask.shape == (SIDE, 9)
    assert not found.mask.any() and not found.values.any()
