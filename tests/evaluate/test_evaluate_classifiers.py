"""Calibration by hand."""

import numpy as np
import pytest

from dollmaker.evaluate.classifiers import reliability


def test_reliability_by_hand() -> None:
    labels = np.array([[0, 1, 1], [0, 0, np.nan]])
    said = np.array([[0.1, 0.2, 1.0], [0.9, 0.3, 0.5]])
    curve = reliability(labels, said, bins=2)
    assert curve.counts.tolist() == [3, 2]
    assert np.allclose(curve.said, [0.2, 0.95]) and np.allclose(curve.there, [1 / 3, 0.5])
    assert curve.error() == pytest.approx((3 * (1 / 3 - 0.2) + 2 * 0.45) / 5)
    empty = reliability([np.nan], [0.5])
    assert np.isnan(empty.error()) and empty.counts.sum() == 0


def test_calibrated_probabilities_have_no_error() -> None:
    said = np.repeat(np.linspace(0.05, 0.95, 10), 2000)
    labels = np.concatenate([np.arange(2000) < 2000 * p for p in said[::2000]])
    assert reliability(labels, said).error() < 1e-3
    assert reliability(labels, np.sqrt(said)).error() > 0.1
