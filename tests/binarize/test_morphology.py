"""ExplainSeg's chain against scikit-image, and what it keeps and clears."""

import numpy as np
import pytest
from skimage import exposure, measure, morphology, segmentation

from dollmaker.binarize.morphology import equalised_level
from dollmaker.binarize.morphology import morphology as step
from dollmaker.binarize.pair import Pair
from dollmaker.binarize.steps import make_chain
from dollmaker.runtime.errors import ConfigError


def pair(values: np.ndarray) -> Pair:
    image = np.zeros((1, *values.shape), np.uint8)
    return Pair(map=values.astype(np.float32), image=image, label=1, probability=0.9)


def bump(y: float, x: float, width: float, size: int = 100) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size]
    return np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * width**2))


def found(values: np.ndarray, **options: float) -> np.ndarray:
    return np.asarray(step(pair(values), **options).mask) == 1  # type: ignore[arg-type]


@pytest.mark.parametrize("level", [0.0, 0.3, 0.8, 0.95])
def test_the_level_is_one_of_scikit_images_equalised_map(level: float) -> None:
    values = np.random.default_rng(0).permutation(2500).reshape(50, 50).astype(np.float32) ** 3
    flat = exposure.equalize_hist(values.argsort(axis=None).argsort().reshape(50, 50), nbins=2500)
    expected = (flat - flat.min()) / (flat.max() - flat.min()) > level
    differ = (values >= equalised_level(values, level)) != expected
    assert differ.sum() <= 1  # rounding


def test_pixels_at_the_minimum_are_the_bottom_however_many() -> None:
    values = np.zeros((100, 100))
    values[40:50, 40:50] = np.arange(1, 101).reshape(10, 10)
    mask = found(values, level=0.5, dilation=0, erosion=0)
    assert mask.sum() == 50
    assert mask[45:50, 40:50].all()
    two_values = (values > 0).astype(float)
    np.testing.assert_array_equal(found(two_values, dilation=0, erosion=0), two_values > 0)


def test_the_chain_is_scikit_images() -> None:
    rng = np.random.default_rng(1)
    values = bump(50, 45, 14) + 0.8 * bump(30, 70, 8) + 0.6 * bump(2, 10, 6)
    values += rng.normal(0, 0.04, values.shape)
    mask = values >= equalised_level(values.astype(np.float32), 0.8)
    mask = morphology.remove_small_objects(mask, max_size=49, connectivity=1)
    # Cleared by 4-neighbours, as everything here: each component by itself.
    labels = measure.label(mask, connectivity=1)
    mask = segmentation.clear_border(labels) > 0
    # Padded with what is not eroded from: nothing lies at the border any more.
    mask = morphology.erosion(morphology.dilation(mask, morphology.disk(3)), morphology.disk(2))
    holes = measure.label(~mask, connectivity=1)
    expected = mask | (segmentation.clear_border(holes) > 0)
    done = found(values, level=0.8, components=0.005, dilation=0.03, erosion=0.02)
    np.testing.assert_array_equal(done, expected)


def test_artefacts_at_the_border_are_cleared_but_never_the_finding() -> None:
    finding, artefact = bump(50, 50, 10), 0.9 * bump(0, 0, 6)
    kept = found(finding + artefact, level=0.9)
    assert kept[50, 50] and not kept[:10, :10].any()
    assert found(finding + artefact, level=0.9, clear_border=False)[0, 0]
    lung = found(bump(50, 0, 20) + 0.3 * bump(80, 80, 3), level=0.85)
    assert lung[50, 0] and lung[:, 0].sum() > 20


def test_holes_are_filled_and_specks_dropped() -> None:
    rows, columns = np.mgrid[:100, :100]
    distance = np.hypot(rows - 50, columns - 50)
    values = np.exp(-((distance - 20) ** 2) / 20)
    values[5, 5] = 2
    mask = found(values, level=0.8)
    assert mask[50, 50] and not mask[5, 5]


@pytest.mark.parametrize("size", [(8, 8), (40, 64)])
def test_a_mask_is_never_lost(size: tuple[int, int]) -> None:
    values = np.zeros(size)
    values[4, 4] = 1
    for options in ({}, {"components": 0.4}, {"dilation": 0, "erosion": 0.3}):
        assert found(values, **options)[4, 4]
    done = step(pair(np.full(size, 0.3)))
    assert done.mask is not None and not done.mask.any()
    assert done.mask.shape == size


def test_adaptive_equalisation_is_scikit_images() -> None:
    values = 3 * (bump(50, 45, 14) + 0.2 * bump(30, 70, 8)) - 1
    flat = exposure.equalize_adapthist((values - values.min()) / (values.max() - values.min()))
    sizes = {"components": 0, "dilation": 0, "erosion": 0}
    done = step(pair(values), equalise="adaptive", level=0.6, clear_border=False, **sizes)
    mask, expected = np.asarray(done.mask) == 1, flat > 0.6 * flat.max()
    assert np.isnan(done.threshold)
    assert (mask & expected).sum() / (mask | expected).sum() > 0.98  # holes are filled
    assert mask.mean() != pytest.approx(0.4, abs=0.05)  # not a share of the pixels


@pytest.mark.parametrize(
    "options",
    [{"level": 1.0}, {"erosion": -0.1}, {"components": 0.5}, {"equalise": "twice"}],
)
def test_wrong_options_are_refused(options: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        make_chain([{"morphology": options}])
