"""Measures of 4 x 4 maps, by hand."""

import numpy as np
import pytest

from dollmaker.explain.measures import mean_known, pointing_game, rank_correlation, share_inside

MAP = np.array([[0, 0, 1, 0], [0, 2, 4, 0], [0, 1, 0, 0], [0, 0, 0, 2]], np.float32)
MASK = np.array([[0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 255]], np.uint8)


def test_share_inside() -> None:
    zero, nothing = np.zeros_like(MAP), np.zeros_like(MASK)
    whole = np.ones_like(MASK)
    shares = share_inside(np.stack([MAP, MAP, MAP, zero]), np.stack([MASK, nothing, whole, MASK]))
    # 1 + 4 inside; 10 in all, of which 2 lie on the ignored pixel.
    np.testing.assert_allclose(shares, [5 / 8, 0, 1, np.nan])
    assert np.isnan(share_inside(MAP[None], np.full_like(MASK, 255)[None]))[0]


def test_pointing_game() -> None:
    missed, ignored = MASK.copy(), MASK.copy()
    missed[1, 2], ignored[1, 2] = 0, 255
    maps = np.stack([MAP, MAP, MAP, np.zeros_like(MAP)])
    hits = pointing_game(maps, np.stack([MASK, missed, ignored, MASK]))
    np.testing.assert_array_equal(hits, [1, 0, np.nan, np.nan])
    assert pointing_game(np.zeros((0, 4, 4), np.float32), np.zeros((0, 4, 4), np.uint8)).size == 0


def test_rank_correlation() -> None:
    ramp = np.arange(16, dtype=np.float32).reshape(4, 4)
    swapped = ramp.copy()
    swapped[0, 0], swapped[3, 3] = 15, 0
    others = np.stack([ramp**3, -ramp, swapped, np.ones_like(ramp)])
    found = rank_correlation(np.stack([ramp] * 4), others)
    # Two ranks differ by 15: 1 - 6 * 2 * 15^2 / (16 * (16^2 - 1)).
    expected = [1, -1, 1 - 6 * 2 * 225 / (16 * 255), np.nan]
    assert found == pytest.approx(expected, abs=1e-6, nan_ok=True)


def test_mean_of_what_is_known() -> None:
    values = np.array([[1, np.nan, np.nan], [0, 0.5, np.nan]], np.float32)
    np.testing.assert_array_equal(mean_known(list(values)), [0.5, 0.5, np.nan])
