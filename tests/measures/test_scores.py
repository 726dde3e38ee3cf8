"""Scores against brute force, torchmetrics and closed forms."""

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from dollmaker.measures import scores


def _data(seed: int, rows: int = 40, levels: int = 12) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    labels = (rng.random(rows) < 0.4).astype(int)
    return labels, rng.integers(levels, size=rows) / levels + 0.2 * labels


def _count_pairs(labels: Any, values: Any) -> float:
    pairs = [(p, n) for p in values[labels == 1] for n in values[labels == 0]]
    return float(np.mean([1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs]))


@pytest.mark.parametrize("seed", range(5))
def test_auroc_is_the_share_of_ordered_pairs(seed: int) -> None:
    labels, values = _data(seed)
    assert_allclose(scores.auroc(labels, values), _count_pairs(labels, values))


@pytest.mark.parametrize("seed", range(5))
def test_both_curves_agree_with_torchmetrics(seed: int) -> None:
    torch = pytest.importorskip("torch")
    from torchmetrics.functional.classification import binary_auroc, binary_average_precision

    labels, values = _data(seed, rows=100)
    # torchmetrics puts values outside [0, 1] through a sigmoid, so keep them inside.
    x, y = torch.tensor(values / 2), torch.tensor(labels)
    assert_allclose(scores.auroc(labels, values), float(binary_auroc(x, y)), rtol=1e-5)
    assert_allclose(
        scores.average_precision(labels, values), float(binary_average_precision(x, y)), rtol=1e-5
    )


def test_average_precision_by_hand() -> None:
    # Falling order: 1 0 1 -> precision 1 at recall 1/2, 2/3 at recall 1.
    assert_allclose(scores.average_precision([1, 0, 1], [3.0, 2.0, 1.0]), (1 + 2 / 3) / 2)
    # A map without contrast scores the share of positives.
    assert_allclose(scores.average_precision([1, 0, 0, 0], [5, 5, 5, 5]), 0.25)


def test_perfect_and_reversed() -> None:
    assert scores.auroc([0, 0, 1, 1], [1, 2, 3, 4]) == 1.0
    assert scores.auroc([1, 1, 0, 0], [1, 2, 3, 4]) == 0.0


def test_other_labels_and_nan_leave_their_row_out() -> None:
    labels, values = _data(1)
    noisy = np.concatenate([labels.astype(float), [-1, -2, np.nan, 1]])
    padded = np.concatenate([values, [9, 9, 9, np.nan]])
    assert_allclose(scores.auroc(noisy, padded), scores.auroc(labels, values))
    assert_allclose(
        scores.average_precision(noisy, padded), scores.average_precision(labels, values)
    )


@pytest.mark.parametrize("labels", [[], [1, 1], [0, 0]])
def test_a_missing_class_has_no_auroc(labels: list[int]) -> None:
    assert np.isnan(scores.auroc(labels, np.arange(len(labels), dtype=float)))
    interval = scores.auroc_interval(np.array(labels), np.zeros(len(labels)), replicates=10)
    assert np.isnan(interval).all()


def test_overlap_of_rectangles() -> None:
    prediction, truth = np.zeros((10, 10), bool), np.zeros((10, 10), bool)
    prediction[0:4, 0:5], truth[2:6, 0:5] = True, True  # 20 and 20 pixels, 10 shared
    assert_allclose(scores.iou(prediction, truth), 10 / 30)
    assert_allclose(scores.dice(prediction, truth), 20 / 40)
    ignore = np.zeros((10, 10), bool)
    ignore[0:2] = True  # the part of the prediction that misses
    assert_allclose(scores.iou(prediction, truth, ignore), 10 / 20)
    assert_allclose(scores.dice(prediction, truth, ignore), 20 / 30)


def test_overlap_of_stacks_and_of_nothing() -> None:
    stack = np.zeros((2, 3, 4, 4), bool)
    stack[0, 0] = True
    result = scores.iou(stack, stack)
    assert result.shape == (2, 3)
    assert result[0, 0] == 1 and np.isnan(result[1]).all()
    assert np.isnan(scores.dice(stack[1, 0], stack[1, 0]))
    assert scores.iou(stack[0, 0], stack[1, 0]) == 0.0
    with pytest.raises(ValueError, match="shape"):
        scores.iou(stack[0, 0], stack[0, 0, :2])


def test_hit_looks_at_the_highest_pixel() -> None:
    values, truth = np.arange(12.0).reshape(3, 4), np.zeros((3, 4), bool)
    assert np.isnan(scores.hit(values, truth))
    truth[2, 3] = True
    assert scores.hit(values, truth) == 1.0
    assert scores.hit(-values, truth) == 0.0
    assert_allclose(scores.hit(np.zeros((3, 4)), truth), 1 / 12)  # all pixels share the maximum


def test_interval_of_a_mean_matches_the_normal_law() -> None:
    values = np.random.default_rng(0).normal(2.0, 1.0, 400)
    point, low, high = scores.bootstrap_interval(values, replicates=4000, seed=1)
    half = 1.96 * values.std() / np.sqrt(400)
    assert_allclose(point, values.mean())
    assert_allclose([low, high], [point - half, point + half], atol=0.1 * half)


def test_groups_are_drawn_whole() -> None:
    values = np.repeat(np.random.default_rng(0).normal(size=50), 8)
    rows = scores.bootstrap_interval(values, replicates=2000)
    patients = scores.bootstrap_interval(values, np.repeat(np.arange(50), 8), replicates=2000)
    # Eight equal rows of one patient carry one piece of information: sqrt(8) times wider.
    assert_allclose((patients.high - patients.low) / (rows.high - rows.low), np.sqrt(8), rtol=0.1)
    for weights in scores.resamples(400, np.repeat(np.arange(50), 8), 20, 0):
        assert (weights.reshape(20, 50, 8) == weights.reshape(20, 50, 8)[:, :, :1]).all()


def test_one_patient_has_no_interval() -> None:
    values, one = np.array([0.1, 0.5, 0.9]), ["p"] * 3
    for interval in (
        scores.bootstrap_interval(values, one),
        scores.column_intervals(values, one)[0],
        scores.bootstrap_interval(values[:1]),
    ):
        assert not np.isnan(interval.point) and np.isnan(interval[1:]).all()


def test_auroc_interval_equals_a_plain_loop() -> None:
    labels, values = _data(3, rows=60)
    patients = np.arange(60) // 3
    replicates = []
    for weights in scores.resamples(60, patients, 50, 7):
        for row in weights.astype(int):
            chosen = np.repeat(np.arange(60), row)
            replicates.append(_count_pairs(labels[chosen], values[chosen]))
    low, high = np.percentile(replicates, (2.5, 97.5))
    interval = scores.auroc_interval(labels, values, patients, replicates=50, seed=7)
    assert_allclose(interval, (_count_pairs(labels, values), low, high))


def test_weighted_average_precision_equals_repeated_rows() -> None:
    labels, values = _data(4, rows=30)
    replicates = []
    for weights in scores.resamples(30, None, 50, 3):
        for row in weights.astype(int):
            chosen = np.repeat(np.arange(30), row)
            replicates.append(scores.average_precision(labels[chosen], values[chosen]))
    low, high = np.percentile(replicates, (2.5, 97.5))
    interval = scores.average_precision_interval(labels, values, replicates=50, seed=3)
    assert_allclose(interval, (scores.average_precision(labels, values), low, high))


def test_mean_over_findings_passes_over_nan() -> None:
    values = np.array([[1.0, np.nan, np.nan], [0.0, 0.25, np.nan]])
    assert_allclose(scores.bootstrap_interval(values, replicates=20).point, (0.5 + 0.25) / 2)


def test_same_seed_same_interval_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, values = _data(5)
    first = scores.auroc_interval(labels, values, replicates=64, seed=2)
    monkeypatch.setattr(scores, "_BLOCK", 120)
    assert scores.auroc_interval(labels, values, replicates=64, seed=2) == first
    assert scores.auroc_interval(labels, values, replicates=64, seed=3) != first


def test_nanmean() -> None:
    assert_allclose(scores.nanmean(np.array([[1, np.nan], [3, np.nan]]), axis=0), [2, np.nan])
    assert scores.nanmean(np.array([1.0, 2.0, np.nan])) == 1.5
