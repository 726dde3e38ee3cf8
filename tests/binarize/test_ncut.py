"""The normalised cut of a map: written out in loops, and on maps whose parts are known."""

import math

import numpy as np
import pytest
import torch

from dollmaker.binarize.ncut import ncut
from dollmaker.binarize.pair import Pair
from dollmaker.binarize.steps import make_chain
from dollmaker.runtime.errors import ConfigError


def pair(values: np.ndarray, image: np.ndarray | None = None) -> Pair:
    image = np.zeros((1, *values.shape), np.uint8) if image is None else image
    return Pair(map=values.astype(np.float32), image=image, label=1, probability=0.9)


def found(values: np.ndarray, picture: np.ndarray | None = None, **options: object) -> np.ndarray:
    done = ncut(pair(values, picture), **options)  # type: ignore[arg-type]
    assert done.mask is not None and done.mask.shape == values.shape
    assert math.isnan(done.threshold)
    return done.mask == 1


def disk(y: int, x: int, radius: int, size: int = 96) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize("upsample", ["bilinear", "nearest"])
@pytest.mark.parametrize(
    ("split", "radius", "least"),
    [("best", 6, 0.6), ("best", 12, 0.7), ("best", 25, 0.9), ("mean", 25, 0.9)],
)
def test_a_disk_is_found(split: str, upsample: str, radius: int, least: float) -> None:
    truth = disk(40, 55, radius)
    noise = np.random.default_rng(0).normal(0, 0.1, truth.shape)
    mask = found(np.clip(0.15 + 0.6 * truth + noise, 0, 1), split=split, upsample=upsample)
    assert overlap(mask, truth) > least  # patches are 3.4 pixels


def test_the_cut_written_out() -> None:
    """A 3 x 3 grid: the affinity in loops, and the best cut of all there are."""
    values = np.array([[0.9, 0.8, 0.1], [0.7, 0.2, 0.1], [0.1, 0.1, 0.2]])
    picture = np.array([[200, 180, 90], [190, 60, 70], [50, 80, 60]])
    mask = found(
        np.kron(values, np.ones((4, 4))),
        np.kron(picture, np.ones((4, 4)))[None].astype(np.uint8),
        grid=3,
        relevance=0.7,
        reach=0.5,
        image=0.8,
        upsample="nearest",
    )
    r = np.minimum(values, values.mean() + 1.5 * values.std()).ravel()
    c = picture.ravel().astype(float)
    weights = torch.zeros(9, 9, dtype=torch.float64)
    for i in range(9):
        for j in range(9):
            place = ((i // 3 - j // 3) ** 2 + (i % 3 - j % 3) ** 2) / 9
            exponent = (r[i] - r[j]) ** 2 / (r.var() * 0.7**2) + place / 0.5**2
            exponent += (c[i] - c[j]) ** 2 / (c.var() * 0.8**2)
            weights[i, j] = math.exp(-exponent / 2) + 1e-5 if i != j else 0
    sides = [[bool(number >> k & 1) for k in range(9)] for number in range(1, 2**8)]

    def ncut(side: list[bool]) -> float:
        a = torch.tensor(side)
        cut = weights[a][:, ~a].sum()
        return float(cut / weights[a].sum() + cut / weights[~a].sum())

    best = min(sides, key=ncut)
    expected = np.array(best).reshape(3, 3)
    if values[expected].mean() < values[~expected].mean():
        expected = ~expected
    np.testing.assert_array_equal(mask, np.kron(expected, np.ones((4, 4))) > 0)


def test_foreground_is_the_more_relevant_side_however_large() -> None:
    assert overlap(found(0.1 + 0.8 * ~disk(48, 48, 20)), ~disk(48, 48, 20)) > 0.9


def test_a_bright_spot_is_not_all_of_the_finding() -> None:
    truth = disk(48, 48, 20)
    values = 0.02 + 0.3 * truth + 0.68 * disk(40, 45, 3)
    assert overlap(found(values), truth) > 0.85


def test_a_small_finding_on_nothing_is_found() -> None:
    truth = disk(60, 30, 4)
    mask = found(truth * 1.0)
    assert mask[60, 30] and mask.mean() < 3 * truth.mean()


def test_the_image_moves_the_cut() -> None:
    rows, columns = np.mgrid[:96, :96]
    blurred = np.exp(-((rows - 48) ** 2 + (columns - 48) ** 2) / (2 * 22**2))
    truth = disk(48, 52, 24)
    image = np.where(truth, 180, 60).astype(np.uint8)[None].repeat(3, 0)
    assert overlap(found(blurred, image, image=0.5), truth) > overlap(found(blurred), truth) + 0.1
    flat = np.full((3, 96, 96), 77, np.uint8)
    np.testing.assert_array_equal(found(blurred, flat, image=0.5), found(blurred))


def test_constant_and_negative_maps_are_empty_and_small_ones_work() -> None:
    for values in (np.zeros((30, 30)), np.full((30, 30), 0.7), np.full((30, 30), -0.7)):
        assert not found(values).any()
    assert found(np.array([[0.1, 0.9], [0.1, 0.8]])).tolist() == [[False, True], [False, True]]
    assert found(np.array([[0.1, 0.1, 0.9, 0.8]])).tolist() == [[False, False, True, True]]
    odd = disk(30, 20, 12, 67)[:, :45]
    assert overlap(found(0.1 + 0.8 * odd), odd) > 0.8


def test_the_same_map_has_the_same_mask() -> None:
    values = np.random.default_rng(0).random((60, 60))
    np.testing.assert_array_equal(found(values), found(values))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"grid": 1}, "grid = 1; it should be"),
        ({"relevance": 0}, "relevance = 0; it should be"),
        ({"reach": -1}, "reach = -1; it should be"),
        ({"image": 0.0}, "image = 0.0; it should be"),
        ({"split": "otsu"}, "split of step ncut 'otsu'; use one of: best, mean"),
        ({"upsample": "cubic"}, "upsample of step ncut 'cubic'; use one of: bilinear, nearest"),
    ],
)
def test_wrong_options_are_refused(options: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_chain([{"ncut": options}])
