"""Into the square and back, under the three fits."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from scipy import ndimage

from dollmaker.pixels.geometry import (
    Fit,
    box,
    fit_image,
    fit_mask,
    framed,
    inside,
    level_set,
    mirrored,
    outline,
    source_mask,
    unfit_map,
    unfit_mask,
    window,
)

FITS: tuple[Fit, ...] = ("letterbox", "resize", "crop")

#: Width and height of sources: wide, tall, square, odd, far from square, smaller than the square.
SOURCES = ((90, 60), (60, 90), (75, 75), (101, 67), (63, 200), (31, 7), (1, 40))

#: Side of the square.
SIZE = 64


def disk(width: int, height: int) -> npt.NDArray[np.uint8]:
    y, x = np.mgrid[:height, :width]
    radius = 0.3 * min(width, height)
    place = (y + 0.5 - 0.45 * height) ** 2 + (x + 0.5 - 0.55 * width) ** 2
    return (place < radius**2).astype(np.uint8)


def test_letterbox_keeps_the_aspect_ratio_and_centres() -> None:
    assert box(200, 100, 50, "letterbox") == (0, 12, 50, 37)
    assert box(200, 100, 50, "resize") == box(200, 100, 50, "crop") == (0, 0, 50, 50)
    image = fit_image(np.full((1, 100, 200), 255, np.uint8), 50, "letterbox")
    rows = image[0, :, 25]
    assert (rows[12:37] == 255).all()
    assert rows[:12].sum() == rows[37:].sum() == 0


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("source", SOURCES)
def test_box_and_window_are_parts_of_square_and_source(source: tuple[int, int], fit: Fit) -> None:
    width, height = source
    left, top, right, bottom = box(width, height, SIZE, fit)
    assert 0 <= left < right <= SIZE and 0 <= top < bottom <= SIZE
    assert abs(left - (SIZE - right)) <= 1 and abs(top - (SIZE - bottom)) <= 1
    first, upper, last, lower = window(width, height, fit)
    assert abs(first - (width - last)) <= 1 and abs(upper - (height - lower)) <= 1
    if fit == "crop":
        assert last - first == lower - upper == min(width, height)
    else:
        assert (first, upper, last, lower) == (0, 0, width, height)
    if fit == "letterbox":
        scale = SIZE / max(width, height)
        assert max(right - left, bottom - top) == SIZE
        assert right - left == max(1, round(width * scale))
        assert bottom - top == max(1, round(height * scale))


@pytest.mark.parametrize("source", SOURCES)
def test_a_crop_shows_the_centre_square_alone(source: tuple[int, int]) -> None:
    width, height = source
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (height, width), dtype=np.uint8)
    side = min(source)
    left, top = (width - side) // 2, (height - side) // 2
    centre = Image.fromarray(pixels[top : top + side, left : left + side].copy())
    wanted = np.asarray(centre.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    assert np.array_equal(fit_image(pixels[None], SIZE, "crop")[0], wanted)
    other = pixels.copy()
    other[:top] = other[top + side :] = 255 - other[:1, :1]
    other[:, :left] = other[:, left + side :] = 77
    assert np.array_equal(fit_image(other[None], SIZE, "crop")[0], wanted)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("source", [(90, 60), (60, 90), (75, 75), (101, 67)])
def test_a_mask_comes_back_to_its_place(source: tuple[int, int], fit: Fit) -> None:
    mask = disk(*source)
    back = unfit_mask(fit_mask(mask, 128, fit), *source, fit)
    assert back.shape == mask.shape
    overlap = (mask & back).sum() / (mask | back).sum()
    assert overlap > 0.93
    soft = unfit_map(fit_mask(mask, 128, fit).astype(np.float32), *source, fit)
    assert np.abs(soft - mask).mean() < 0.03


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("source", SOURCES)
def test_a_map_is_enlarged_as_torch_does(source: tuple[int, int], fit: Fit) -> None:
    width, height = source
    values = np.random.default_rng(1).normal(size=(SIZE, SIZE)).astype(np.float32)
    left, top, right, bottom = box(width, height, SIZE, fit)
    first, upper, last, lower = window(width, height, fit)
    wanted = np.zeros((height, width), np.float32)
    wanted[upper:lower, first:last] = torch.nn.functional.interpolate(
        torch.from_numpy(values[None, None, top:bottom, left:right].astype(np.float64)),
        size=(lower - upper, last - first),
        mode="bilinear",
        align_corners=False,
    )[0, 0].numpy()
    np.testing.assert_allclose(unfit_map(values, width, height, fit), wanted, atol=5e-6)


def below(inner: int, outer: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """The pixel under the centre of each of ``outer``, and whether that is the edge of two."""
    centres = (2 * np.arange(outer) + 1) * inner
    return centres // (2 * outer), centres % (2 * outer) == 0


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("source", SOURCES)
def test_a_mask_is_enlarged_by_nearest_neighbour(source: tuple[int, int], fit: Fit) -> None:
    width, height = source
    mask = np.random.default_rng(2).integers(1, 5, (SIZE, SIZE), dtype=np.uint8)
    left, top, right, bottom = box(width, height, SIZE, fit)
    first, upper, last, lower = window(width, height, fit)
    rows, either_row = below(bottom - top, lower - upper)
    columns, either_column = below(right - left, last - first)
    found = unfit_mask(mask, width, height, fit)
    shown = found[upper:lower, first:last]
    certain = ~(either_row[:, None] | either_column)
    assert np.array_equal(shown[certain], mask[top:bottom, left:right][rows][:, columns][certain])
    assert shown.all() and (found != 0).sum() == shown.size  # and nothing that a crop cuts off


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("source", SOURCES)
def test_framed_and_inside_undo_each_other(source: tuple[int, int], fit: Fit) -> None:
    where = box(*source, SIZE, fit)
    left, top, right, bottom = where
    values = np.random.default_rng(3).normal(size=(2, 3, bottom - top, right - left))
    squares = framed(values, where, SIZE, fill=7)
    assert squares.shape == (2, 3, SIZE, SIZE) and np.array_equal(inside(squares, where), values)
    assert np.array_equal(inside(torch.from_numpy(squares), where).numpy(), values)
    around = np.ones((SIZE, SIZE), bool)
    around[top:bottom, left:right] = False
    assert (squares[..., around] == 7).all()
    inside(squares, where)[...] = 7  # a view
    assert (squares == 7).all()


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("size", [64, 65])
def test_mirrored_is_where_the_turned_picture_lies(
    source: tuple[int, int], fit: Fit, size: int
) -> None:
    where = box(*source, size, fit)
    left, top, right, bottom = where
    squares = framed(np.ones((bottom - top, right - left)), where, size)
    turned = mirrored(where, size)
    assert inside(squares[:, ::-1], turned).all()
    assert inside(squares[:, ::-1], turned).sum() == squares.sum()
    assert mirrored(turned, size) == where


FITS: tuple[Fit, ...] = ("letterbox", "resize", "crop")
SHAPES = ((90, 60), (61, 97), (75, 75), (203, 131), (31, 17))

#: Side of the square.
SQUARE = 48


def smooth(seed: int, size: int = SQUARE, sigma: float = 3.0) -> npt.NDArray[np.float32]:
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
        "drawn": np.random.default_rng(1).random((SQUARE, SQUARE)) > 0.5,
        "empty": np.zeros_like(cut),
        "whole": np.ones_like(cut),
    }[how]
    for given in (values, None):
        levels = level_set(mask.astype(np.uint8), given, threshold)
        assert levels.dtype == np.int8
        assert np.array_equal(levels > 0, mask) and (levels != 0).all()


def test_pixels_to_ignore_are_outside() -> None:
    mask = np.zeros((SQUARE, SQUARE), np.uint8)
    mask[10:20, 10:20] = 255
    mask[12:18, 12:18] = 1
    assert np.array_equal(level_set(mask) > 0, mask == 1)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("source", SHAPES)
def test_the_mask_of_a_threshold_is_the_enlarged_map_cut_there(
    source: tuple[int, int], fit: Fit
) -> None:
    values, threshold = smooth(2), 0.25
    shown = unfit_mask(np.ones((SQUARE, SQUARE), np.uint8), *source, fit) == 1
    enlarged = unfit_map(values, *source, fit)
    ours = source_mask(values - np.float32(threshold), *source, fit)
    certain = np.abs(enlarged - threshold) > 1e-6
    assert np.array_equal(ours[certain], ((enlarged > threshold) & shown)[certain])
    assert not ours[~shown].any() and certain.mean() > 0.99


@pytest.mark.parametrize("times", [3, 9])
def test_the_steps_of_a_level_set_move_the_outline_by_next_to_nothing(times: int) -> None:
    worst = 1.0
    for seed in range(20):
        values = smooth(seed)
        threshold = float(np.quantile(values, (0.6, 0.8, 0.95)[seed % 3]))
        levels = level_set((values > threshold).astype(np.uint8), values, threshold)
        size = SQUARE * times
        whole = source_mask(values - np.float32(threshold), size, size, "resize")
        stepped = source_mask(levels, size, size, "resize")
        worst = min(worst, overlap(whole, stepped))
    assert worst >= 0.99


def test_the_outline_is_finer_than_that_of_a_mask_that_is_enlarged() -> None:
    """Of a disk that is known at nine times the size: the map knows it better than its mask."""
    size = 9 * SQUARE
    y, x = np.mgrid[:size, :size]
    distance = np.hypot(y + 0.5 - 200, x + 0.5 - 230)
    true = distance < 90
    values = (1 / (1 + distance / 90)).reshape(SQUARE, 9, SQUARE, 9).mean((1, 3)).astype(np.float32)
    mask = (values > 0.5).astype(np.uint8)
    fine = source_mask(level_set(mask, values, 0.5), size, size, "resize")
    coarse = unfit_mask(mask, size, size, "resize") == 1
    assert overlap(fine, true) > 0.99 > overlap(coarse, true)


def test_a_mask_that_a_threshold_did_not_draw_has_its_own_outline() -> None:
    values = smooth(3)
    mask = np.zeros((SQUARE, SQUARE), np.uint8)
    mask[8:30, 12:40] = 1
    levels = level_set(mask, values, 0.2)
    assert set(np.unique(levels)) == {-127, 127}
    assert np.array_equal(levels, level_set(mask))
    large = source_mask(levels, 3 * SQUARE, 3 * SQUARE, "resize")
    assert overlap(large, unfit_mask(mask, 3 * SQUARE, 3 * SQUARE, "resize") == 1) > 0.99
    square = source_mask(levels, SQUARE, SQUARE, "crop")
    assert np.array_equal(square, mask == 1)


@pytest.mark.parametrize("source", SHAPES)
def test_nothing_is_foreground_outside_the_picture(source: tuple[int, int]) -> None:
    where = box(*source, SQUARE, "letterbox")
    picture = np.ones_like(inside(np.zeros((SQUARE, SQUARE), np.uint8), where))
    whole = framed(picture, where, SQUARE)
    assert source_mask(level_set(whole), *source, "letterbox").all()
    shown = fit_mask(np.ones((source[1], source[0]), np.uint8), SQUARE, "crop")
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
