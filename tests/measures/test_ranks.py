"""Spearman's correlation against scipy's."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from dollmaker.measures.scores import rank_correlation


@pytest.mark.parametrize("ties", [4, 1000])
def test_it_is_scipys(ties: int) -> None:
    rng = np.random.default_rng(0)
    for count in (3, 10, 200):
        a, b = rng.integers(0, ties, (2, count))
        b = b + a // 2
        assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic, nan_ok=True)


def test_what_says_nothing_is_unknown() -> None:
    assert np.isnan(rank_correlation([], [])) and np.isnan(rank_correlation([1, 2], [3, 4]))
    assert np.isnan(rank_correlation([1, 1, 1], [1, 2, 3]))
    assert rank_correlation([1, 2, 3], [9.0, 10.0, 1e9]) == pytest.approx(1)
