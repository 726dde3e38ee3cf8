"""The trivial baselines against closed forms."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from skimage.filters import threshold_otsu

from dollmaker.measures.baselines import guess
from dollmaker.pixels.geometry import Fit


def test_centre_is_a_disk_of_a_quarter_of_the_side() -> None:
    blank = np.zeros((1, 32, 32), np.uint8)
    result = guess("centre", blank, 400, 300, "letterbox")
    assert result.mask.shape == (300, 400)
    assert_allclose(result.mask.sum(), np.pi * 75**2, rtol=0.01)
    assert result.values[149, 199] == result.values.max()


def test_intensity_finds_the_side_away_from_the_border() -> None:
    image = np.zeros((3, 32, 32), np.uint8)
    image[:, 4:28] = 30  # a letterbox: source 64 x 48
    image[:, 10:20, 12:22] = 200
    bright = guess("intensity", image, 64, 48, "letterbox")
    # Otsu's threshold lies close to the lower of two values, and the enlarged edge is a ramp:
    # of the two source pixels between them, of 72 and 157, both are above it.
    expected = np.zeros((48, 64), bool)
    expected[11:33, 23:45] = True
    assert np.array_equal(bright.mask, expected)
    inner = 255 - image[:, 4:28]
    image[:, 4:28] = inner
    dark = guess("intensity", image, 64, 48, "letterbox")
    expected[:] = False
    expected[13:31, 25:43] = True  # and here neither is under it
    assert np.array_equal(dark.mask, expected)
    assert dark.values[20, 30] > dark.values[2, 2]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("fit", ["letterbox", "resize", "crop"])
def test_intensity_looks_at_the_picture_alone(fit: Fit, dark: bool) -> None:
    """A ramp of 60 x 40, brighter (or darker) towards its middle; bars are as black as can be."""
    y, x = np.mgrid[:40, :60]
    ramp = 40 + 120 * np.exp(-(((x - 30) / 15) ** 2) - ((y - 20) / 10) ** 2)
    ramp = 255 - ramp if dark else ramp
    shown = ramp[:, 10:50] if fit == "crop" else ramp
    if fit == "letterbox":
        square = np.zeros((60, 60))
        square[10:50] = shown
    elif fit == "crop":
        square = shown
    else:
        square = np.kron(shown, np.ones((3, 2)))
    image = np.rint(square).astype(np.uint8)[None]
    result = guess("intensity", image, 60, 40, fit)
    cut = threshold_otsu(np.rint(shown))
    expected = np.zeros((40, 60), bool)
    window = slice(10, 50) if fit == "crop" else slice(None)
    expected[:, window] = shown <= cut if dark else shown > cut
    assert (result.mask ^ expected).mean() < 0.01
    outside = np.ones((40, 60), bool)
    outside[:, window] = False
    assert not result.mask[outside].any()
    assert result.values[20, 30] > result.values[0, 0]
    if outside.any():
        assert result.values[outside].max() <= result.values[~outside].min()


def test_intensity_of_a_plain_image_is_empty() -> None:
    plain = np.full((1, 8, 8), 7, np.uint8)
    assert not guess("intensity", plain, 8, 8, "resize").mask.any()


def test_whole_is_everything() -> None:
    result = guess("whole", np.zeros((1, 8, 8), np.uint8), 10, 6, "resize")
    assert result.mask.all() and result.values.shape == (6, 10) and np.ptp(result.values) == 0
