"""Masks at the source's size: cut from the enlarged map, whatever drew them."""

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from dollmaker.pixels.enlarge import level_set, outline, pack, source_mask
from dollmaker.pixels.geometry import Fit, box, fit_mask, framed, inside, unfit_map, unfit_mask

FITS: tuple[Fit, ...] = ("letterbox", "resize", "crop")
SOURCES = ((90, 60), (61, 97), (75, 75), (203, 131), (31, 17))

#: Side of the square.
SIZE = 48


def smooth(seed: int, size: int = SIZE, sigma: float = 3.0) -> npt.NDArray[np.float32]:
    """A random map as recipes make them: smooth, in float16, at most 1."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(size, size)), sigma)
    return np.asarray(noise / noise.max(), np.float16).astype(np.float32)


def overlap(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize("threshold", [0.2, 0.0, -0.1, 0.9, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("how", ["cut", "opened", "drawn", "empty", "whole"])
def test_the_sign_of_a_level_set_is_its_mask(how: str, threshold: float) -> None:
    values = smooth(0)
    cut = values > (threshold if np.isfinite(threshold) else 0.2)
    mask = {
        "cut": cut,
        "opened": ndimage.binary_opening(cut, iterations=2),
        "drawn": np.random.default_rng(1).random((SIZE, SIZE)) > 0.5,
        "empty": np.zeros_like(cut),
        "whole": np.ones_like(cut),
    }[how]
    for given in (values, None):
        levels = level_set(mask.astype(np.uint8), given, threshold)
        assert levels.dtype == np.float32 and np.isfinite(levels).all()
        assert np.array_equal(levels > 0, mask) and (levels != 0).all()
        assert np.array_equal(pack(levels) > 0, mask) and (pack(levels) != 0).all()


def test_pixels_to_ignore_are_outside() -> None:
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[10:20, 10:20] = 255
    mask[12:18, 12:18] = 1
    assert np.array_equal(level_set(mask) > 0, mask == 1)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("source", SOURCES)
def test_the_mask_of_a_threshold_is_the_enlarged_map_cut_there(
    source: tuple[int, int], fit: Fit
) -> None:
    values, threshold = smooth(2), 0.25
    levels = level_set((values > threshold).astype(np.uint8), values, threshold)
    shown = unfit_mask(np.ones((SIZE, SIZE), np.uint8), *source, fit) == 1
    enlarged = unfit_map(values, *source, fit)
    ours = source_mask(levels, *source, fit)
    certain = np.abs(enlarged - threshold) > 1e-6
    assert np.array_equal(ours[certain], ((enlarged > threshold) & shown)[certain])
    assert not ours[~shown].any() and certain.mean() > 0.99


@pytest.mark.parametrize("times", [3, 9])
def test_packing_moves_the_outline_by_next_to_nothing(times: int) -> None:
    worst = 1.0
    for seed in range(20):
        values = smooth(seed)
        threshold = float(np.quantile(values, (0.6, 0.8, 0.95)[seed % 3]))
        levels = level_set((values > threshold).astype(np.uint8), values, threshold)
        size = SIZE * times
        whole = source_mask(levels, size, size, "resize")
        packed = source_mask(pack(levels), size, size, "resize")
        worst = min(worst, overlap(whole, packed))
    assert worst >= 0.99


def test_the_outline_is_finer_than_that_of_a_mask_that_is_enlarged() -> None:
    """Of a disk that is known at nine times the size: the map knows it better than its mask."""
    size = 9 * SIZE
    y, x = np.mgrid[:size, :size]
    distance = np.hypot(y + 0.5 - 200, x + 0.5 - 230)
    true = distance < 90
    values = (1 / (1 + distance / 90)).reshape(SIZE, 9, SIZE, 9).mean((1, 3)).astype(np.float32)
    mask = (values > 0.5).astype(np.uint8)
    fine = source_mask(pack(level_set(mask, values, 0.5)), size, size, "resize")
    coarse = unfit_mask(mask, size, size, "resize") == 1
    assert overlap(fine, true) > 0.99 > overlap(coarse, true)


def test_a_mask_that_a_threshold_did_not_draw_has_its_own_outline() -> None:
    values = smooth(3)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[8:30, 12:40] = 1
    levels = level_set(mask, values, 0.2)
    assert set(np.unique(levels)) == {-1.0, 1.0}
    assert np.array_equal(levels, level_set(mask))
    large = source_mask(levels, 3 * SIZE, 3 * SIZE, "resize")
    assert overlap(large, unfit_mask(mask, 3 * SIZE, 3 * SIZE, "resize") == 1) > 0.99
    square = source_mask(levels, SIZE, SIZE, "crop")
    assert np.array_equal(square, mask == 1)


@pytest.mark.parametrize("source", SOURCES)
def test_nothing_is_foreground_outside_the_picture(source: tuple[int, int]) -> None:
    where = box(*source, SIZE, "letterbox")
    picture = np.ones_like(inside(np.zeros((SIZE, SIZE), np.uint8), where))
    whole = framed(picture, where, SIZE)
    assert source_mask(pack(level_set(whole)), *source, "letterbox").all()
    shown = fit_mask(np.ones((source[1], source[0]), np.uint8), SIZE, "crop")
    cropped = source_mask(level_set(shown), *source, "crop")
    assert cropped.sum() == min(source) ** 2


def brute_outline(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    found = np.zeros_like(mask)
    for y, x in np.ndindex(mask.shape):
        near = mask[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
        found[y, x] = near.any() and not near.all()
    return found


def test_the_outline_by_hand() -> None:
    for seed in range(3):
        mask = smooth(seed, 20, 2.0) > 0.2
        assert np.array_equal(outline(mask), brute_outline(mask))
    assert not outline(np.ones((5, 5), bool)).any() and not outline(np.zeros((5, 5), bool)).any()
