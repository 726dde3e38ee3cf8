"""From deep values to 8 bits."""

import numpy as np
import pytest

from dollmaker.errors import DataError
from dollmaker.pixels.depth import scale, to_eight_bits


def test_the_range_is_that_of_the_percentiles() -> None:
    values = np.arange(1001.0).reshape(7, 143)
    expected = np.clip((values - 5) / 990, 0, 1) * 255
    assert np.array_equal(to_eight_bits(values), expected.round())


@pytest.mark.parametrize("hot", [65535, -30000])
def test_a_hot_or_dead_pixel_changes_nothing_but_itself(hot: int) -> None:
    ramp = np.tile(np.linspace(1000, 2000, 60), (40, 1)).astype(np.int32)
    broken = ramp.copy()
    broken[3, 5] = hot
    plain, other = to_eight_bits(ramp), to_eight_bits(broken)
    assert np.abs(plain.astype(int) - other)[np.arange(40) != 3].max() <= 1
    assert other[3, 5] == (255 if hot > 0 else 0)


def test_sparse_bright_spots_are_seen() -> None:
    values = np.zeros((100, 100), np.uint16)
    values[50, 50:60] = 900  # a thousandth of the pixels
    assert to_eight_bits(values)[50, 55] == 255


def test_colours_share_one_range_and_some_pixels_do_not_count() -> None:
    values = np.stack([np.tile(np.linspace(0, top, 50), (20, 1)) for top in (4000, 2000, 0)], -1)
    eight = to_eight_bits(values)
    assert eight[0, -1].tolist() == [255, 128, 0]
    padded = values[..., 0].copy()
    padded[:, :10] = 60000
    result = to_eight_bits(padded, valid=padded < 60000)
    assert (result[:, :10] == 0).all() and result[0, 10] == 0 and result[0, -1] == 255


def test_nothing_but_one_value_is_black_and_what_is_not_finite_is_refused() -> None:
    assert not to_eight_bits(np.full((4, 4), 7.0)).any()
    assert not to_eight_bits(np.ones((2, 2)), valid=np.zeros((2, 2), bool)).any()
    assert not scale(np.ones((2, 2)), 1, 1).any()
    with pytest.raises(DataError, match="not finite"):
        to_eight_bits(np.array([[1.0, np.inf]]))
