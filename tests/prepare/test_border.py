"""Features of borders and shapes, by hand."""

import numpy as np
import numpy.typing as npt
import pytest

from dollmaker.pixels.geometry import Fit, box
from dollmaker.prepare.border import border_features, resampled, shape_features

SIZE = 50
VALUES = 32


def borders(image: npt.NDArray[np.uint8], width: int, height: int, fit: Fit) -> list[float]:
    """The definition, pixel by pixel, of one image (C, S, S)."""
    left, top, right, bottom = box(width, height, image.shape[-1], fit)
    depth = max(1, round(0.04 * min(right - left, bottom - top)))
    rows, columns = range(top, bottom), range(left, right)
    sides = [
        [[(y, x) for y in rows[:depth]] for x in columns],
        [[(y, x) for y in rows[-depth:]] for x in columns],
        [[(y, x) for x in columns[:depth]] for y in rows],
        [[(y, x) for x in columns[-depth:]] for y in rows],
    ]
    ring = sorted({place for side in sides for line in side for place in line})
    found = []
    for side in sides:
        for channel in image:
            line = [float(np.mean([channel[place] for place in places])) for places in side]
            fine = np.repeat(line, VALUES)  # every part of a line is as many of its pieces
            found += fine.reshape(VALUES, -1).mean(axis=1).tolist()
    pixels = np.array([[channel[place] for place in ring] for channel in image], float)
    found += [*pixels.mean(axis=1), *pixels.std(axis=1)]
    return [*found, (pixels <= 8).all(axis=0).mean(), (pixels >= 247).all(axis=0).mean()]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("fit", ["letterbox", "resize", "crop"])
def test_the_border_by_hand(channels: int, fit: Fit) -> None:
    sources = [(90, 60), (60, 90), (300, 4), (75, 75), (90, 60)]
    rng = np.random.default_rng(0)
    levels = np.array([0, 5, 8, 9, 120, 246, 247, 255], np.uint8)
    images = rng.choice(levels, (len(sources), channels, SIZE, SIZE))
    images[0] = 3
    widths, heights = np.array(sources).T
    ours = border_features(images, widths, heights, fit)
    wanted = [borders(image, *source, fit) for image, source in zip(images, sources, strict=True)]
    np.testing.assert_allclose(ours, wanted, rtol=1e-4, atol=1e-3)


def test_what_lies_within_and_in_the_bars_is_not_looked_at() -> None:
    image = np.random.default_rng(1).integers(0, 255, (1, 1, SIZE, SIZE), dtype=np.uint8)
    other = image.copy()
    left, top, right, bottom = box(90, 60, SIZE, "letterbox")
    other[..., :top, :] = other[..., bottom:, :] = 200
    other[..., top + 1 : bottom - 1, left + 1 : right - 1] = 7
    source = np.array([90]), np.array([60])
    one, two = (border_features(pixels, *source, "letterbox") for pixels in (image, other))
    assert np.array_equal(one, two)


@pytest.mark.parametrize("length", [1, 2, 31, 32, 33, 100])
def test_a_line_is_resampled_by_parts_of_equal_length(length: int) -> None:
    values = np.random.default_rng(2).normal(size=(3, length)).astype(np.float32)
    fine = np.repeat(values, VALUES, axis=1).reshape(3, VALUES, length)
    np.testing.assert_allclose(resampled(values), fine.mean(axis=2), atol=1e-5)


def test_shapes_by_hand() -> None:
    found = shape_features(np.array([200, 100]), np.array([100, 200]))
    ln = np.log
    wanted = [[2, ln(2), ln(2), ln(200), ln(100), ln(2e4)]]
    wanted += [[0.5, -ln(2), ln(2), ln(100), ln(200), ln(2e4)]]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
