"""The trivial baselines against closed forms."""

import numpy as np
from numpy.testing import assert_allclose

from dollmaker.evaluate.baselines import guess


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
    expected = np.zeros((48, 64), bool)
    expected[12:32, 24:44] = True
    assert np.array_equal(bright.mask, expected)
    inner = 255 - image[:, 4:28]
    image[:, 4:28] = inner
    dark = guess("intensity", image, 64, 48, "letterbox")
    assert np.array_equal(dark.mask, expected)
    assert dark.values[20, 30] > dark.values[2, 2]


def test_intensity_of_a_plain_image_is_empty() -> None:
    plain = np.full((1, 8, 8), 7, np.uint8)
    assert not guess("intensity", plain, 8, 8, "resize").mask.any()


def test_whole_is_everything() -> None:
    result = guess("whole", np.zeros((1, 8, 8), np.uint8), 10, 6, "resize")
    assert result.mask.all() and result.values.shape == (6, 10) and np.ptp(result.values) == 0
