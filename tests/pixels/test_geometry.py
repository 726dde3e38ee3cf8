"""Into the square and back, under the three fits."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from dollmaker.pixels.geometry import (
    Fit,
    box,
    fit_image,
    fit_mask,
    framed,
    inside,
    mirrored,
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
