"""Families of thresholds against their definitions, written out pixel by pixel."""

import numpy as np
import pytest
from skimage.filters import threshold_otsu

from dollmaker.binarize.cuts import (
    AREAS,
    COUNT,
    FAMILIES,
    Cut,
    candidates,
    level,
    level_of_each,
    levels,
)

SCALE = 0.04


def relevance(seed: int = 0, shape: tuple[int, ...] = (15, 20)) -> np.ndarray:
    """A map with ties, a heavy tail and, as signed maps have them, some negative values."""
    rng = np.random.default_rng(seed)
    values = np.round(rng.exponential(0.2, shape) - 0.05, 2).astype(np.float32)
    return np.asarray(values / np.abs(values).max())


def mask(values: np.ndarray, family: str, value: float, scale: float = SCALE) -> np.ndarray:
    return np.asarray(values > level(values, Cut(family, value), scale))


@pytest.mark.parametrize("value", [0.001, 0.01, 0.03])
def test_logits_are_of_the_map_times_its_scale(value: float) -> None:
    values = relevance()
    for family in ("logits", "null"):
        np.testing.assert_array_equal(mask(values, family, value), values * SCALE > value)


@pytest.mark.parametrize("value", [0.01, 0.05, 0.15])
def test_the_root_is_half_way_from_the_maximum_to_logits(value: float) -> None:
    values = relevance()
    np.testing.assert_array_equal(mask(values, "root", value), values * SCALE**0.5 > value)
    four = mask(values, "root", value, 4 * SCALE)
    np.testing.assert_array_equal(four, mask(values, "root", value / 2))  # not a quarter


@pytest.mark.parametrize("value", [0.1, 0.5, 0.9])
def test_the_fraction_is_of_the_maximum(value: float) -> None:
    values = 0.7 * relevance()
    found = mask(values, "fraction", value)
    np.testing.assert_array_equal(found, values > np.float32(value * values.max()))


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.95])
@pytest.mark.parametrize("seed", range(3))
def test_the_mass_is_held_by_as_few_pixels_as_can_be(seed: int, share: float) -> None:
    values = relevance(seed)
    found = mask(values, "mass", share)
    positive = np.maximum(values, 0).astype(float)
    needed = share * positive.sum()
    assert positive[found].sum() >= needed * (1 - 1e-9)
    least = values[found].min()
    assert positive[values > least].sum() < needed  # without its last value it would be too little
    assert (values >= least).sum() == found.sum()  # and all pixels of one value are alike


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.7])
def test_otsus_threshold_goes_away_from_the_minimum(factor: float) -> None:
    values = relevance()
    low = values.min()
    expected = low + factor * (threshold_otsu(values) - low)
    assert level(values, Cut("otsu", factor)) == pytest.approx(expected, rel=1e-5)
    shifted = values + np.float32(0.5)
    moved = level(shifted, Cut("otsu", factor)) - 0.5
    assert moved == pytest.approx(expected, abs=2 / 256)  # a bin of its histogram


def test_the_area_is_the_share_that_is_kept() -> None:
    values = np.random.default_rng(0).permutation(1000).astype(np.float32)
    for share in (0.005, 0.1, 0.7):
        assert mask(values, "area", share).sum() == 1000 * share


@pytest.mark.parametrize("family", FAMILIES)
def test_many_thresholds_at_once_are_those_of_each_map(family: str) -> None:
    maps = np.stack([relevance(seed, (2, 3, 50)) for seed in range(4)])
    scales = np.random.default_rng(1).uniform(0.01, 0.1, maps.shape[:-1]).astype(np.float32)
    numbers = candidates(maps, scales[..., None], maps[:1], scales[:1, ..., None])[family]
    found = levels(family, numbers, maps, scales)
    assert found.shape == (COUNT, 4, 2, 3)
    for at in np.ndindex(maps.shape[:-1]):
        for number in (0, 7, COUNT - 1):
            one = level(maps[at], Cut(family, numbers[number]), float(scales[at]))
            assert found[(number, *at)] == pytest.approx(one, rel=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_candidates_keep_more_and_more(family: str) -> None:
    maps = np.stack([relevance(seed).ravel() for seed in range(3)])
    scales = np.array([0.02, 0.05, 0.1])
    numbers = candidates(maps, scales[:, None], maps[:2], scales[:2, None])[family]
    kept = [
        np.mean([mask(m, family, n, s).mean() for m, s in zip(maps, scales, strict=True)])
        for n in numbers
    ]
    assert (np.diff(kept) >= 0).all() and kept[-1] > kept[0] + 0.1
    if family in ("logits", "root"):  # shares of the pixels of all maps together
        np.testing.assert_allclose(kept, AREAS, atol=0.02)


def test_null_candidates_are_shares_of_what_is_drawn_without_the_finding() -> None:
    maps, without = relevance(0).reshape(1, -1), relevance(1).reshape(1, -1)
    scale = np.array([[SCALE]])
    numbers = candidates(maps, scale, without, 3 * scale)["null"]
    shares = [(without * 3 * SCALE > n).mean() for n in numbers]
    np.testing.assert_allclose(shares, AREAS, atol=0.02)
    alone = candidates(maps, scale, without[:0], scale[:0])
    np.testing.assert_array_equal(alone["null"], alone["logits"])


@pytest.mark.parametrize("family", [f for f in FAMILIES if f != "area"])
def test_the_area_follows_the_image(family: str) -> None:
    """A disk of twice the radius, as strong, has a mask four times as large."""
    y, x = np.mgrid[:100, :100]
    rng = np.random.default_rng(0)
    kept = []
    for radius in (10, 20):
        disk = (y - 50) ** 2 + (x - 50) ** 2 < radius**2
        values = (disk * rng.uniform(0.8, 1, disk.shape) + 0.02 * rng.random(disk.shape)) / 1.02
        value = {"fraction": 0.5, "mass": 0.6, "otsu": 1.0}.get(family, 0.5)
        kept.append(mask(values.astype(np.float32), family, value, 1.0).sum())
    assert kept[1] / kept[0] == pytest.approx(4, rel=0.25)


def test_a_map_with_nothing_to_cut_off_has_no_mask() -> None:
    nothing = np.zeros((4, 4), np.float32)
    for family, value in (("logits", 0.1), ("root", 0.1), ("mass", 0.5)):
        assert level(nothing, Cut(family, value), 0.0) == np.inf


def test_thresholds_of_many_cuts_are_those_of_each() -> None:
    cuts = [Cut(f, v) for v in (0.3, 0.6) for f in FAMILIES]
    each = [level(relevance(), cut, SCALE) for cut in cuts]
    np.testing.assert_allclose(level_of_each(cuts, relevance(), SCALE), each, rtol=1e-6)
