"""From deep values to 8 bits."""

import numpy as np
import pytest

from dollmaker.runtime.errors import DataError
from dollmaker.store.depth import (
    by_percentiles,
    deepened,
    scale,
    to_eight_bits,
    to_levels,
    to_show,
    white_of,
)


def test_the_range_is_that_of_the_percentiles() -> None:
    values = np.arange(1001.0).reshape(7, 143)
    expected = np.clip((values - 5) / 990, 0, 1) * 255
    assert np.array_equal(by_percentiles(values), expected.round())


@pytest.mark.parametrize("hot", [65535, -30000])
def test_a_hot_or_dead_pixel_changes_nothing_but_itself(hot: int) -> None:
    ramp = np.tile(np.linspace(1000, 2000, 60), (40, 1)).astype(np.int32)
    broken = ramp.copy()
    broken[3, 5] = hot
    plain, other = by_percentiles(ramp), by_percentiles(broken)
    assert np.abs(plain.astype(int) - other)[np.arange(40) != 3].max() <= 1
    assert other[3, 5] == (255 if hot > 0 else 0)


def test_sparse_bright_spots_are_seen() -> None:
    values = np.zeros((100, 100), np.uint16)
    values[50, 50:60] = 900  # a thousandth of the pixels
    assert by_percentiles(values)[50, 55] == 255


def test_colours_share_one_range_and_some_pixels_do_not_count() -> None:
    values = np.stack([np.tile(np.linspace(0, top, 50), (20, 1)) for top in (4000, 2000, 0)], -1)
    eight = by_percentiles(values)
    assert eight[0, -1].tolist() == [255, 128, 0]
    padded = values[..., 0].copy()
    padded[:, :10] = 60000
    result = by_percentiles(padded, valid=padded < 60000)
    assert (result[:, :10] == 0).all() and result[0, 10] == 0 and result[0, -1] == 255


def test_nothing_but_one_value_is_black_and_what_is_not_finite_is_refused() -> None:
    assert not by_percentiles(np.full((4, 4), 7.0)).any()
    assert not by_percentiles(np.ones((2, 2)), valid=np.zeros((2, 2), bool)).any()
    assert not scale(np.ones((2, 2)), 1, 1).any()
    with pytest.raises(DataError, match="not finite"):
        by_percentiles(np.array([[1.0, np.inf]]))


def test_sixteen_bits_have_the_same_window_in_finer_steps() -> None:
    values = np.random.default_rng(0).normal(1000, 200, (50, 40))
    eight, sixteen = by_percentiles(values), by_percentiles(values, bits=16)
    assert sixteen.dtype == np.uint16 and np.array_equal(to_eight_bits(sixteen), eight)
    # By hand: the range of the percentiles is 0 to 65535.
    low, high = np.percentile(values, (0.5, 99.5))
    share = np.clip((values - low) / (high - low), 0, 1)
    assert np.array_equal(sixteen, np.rint(share * 65535))
    assert len(np.unique(sixteen)) > 5 * len(np.unique(eight))


def test_eight_bits_are_whole_in_sixteen_and_all_sixteen_come_back_from_levels() -> None:
    ramp = np.arange(256, dtype=np.uint8)
    deep = deepened(ramp, 16)
    assert deep[-1] == white_of(deep) == 65535 and np.array_equal(deep, ramp.astype(int) * 257)
    assert np.array_equal(deepened(deep, 8), ramp) and deepened(ramp, 8) is ramp
    assert np.array_equal(to_levels(deep), ramp) and to_levels(ramp) is ramp
    every = np.arange(65536, dtype=np.uint16)
    assert np.array_equal(np.rint(to_levels(every) * np.float32(257)), every)
    assert np.array_equal(to_eight_bits(every), np.round(every / 257))
    assert to_eight_bits(to_levels(every)).tolist() == to_eight_bits(every).tolist()


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_people_see_three_channels_in_colours_and_of_others_the_first(channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 65536, (channels, 3, 5), dtype=np.uint16)
    shown = to_show(image)
    assert shown.dtype == np.uint8
    assert np.array_equal(shown, np.round(image / 257)[: 3 if channels == 3 else 1])
