"""Verdicts from a sample whose answers are known."""

import numpy as np

from dollmaker.sanity.stage import judge


def table(randomised: float, other: float) -> dict[str, np.ndarray]:
    return {
        "label": np.array([1, 1, 1, 0, 0], np.int8),
        "randomised": np.array([randomised, randomised, np.nan, np.nan, np.nan], np.float32),
        "other": np.array([other, other, np.nan, np.nan, np.nan], np.float32),
        "insertion": np.array([0.9, 0.7, np.nan, np.nan, np.nan], np.float32),
        "deletion": np.full(5, np.nan, np.float32),
    }


AREAS = np.array([0.2, 0.0, 0.1, 0.3, 0.0])


def test_numbers_are_medians_and_shares() -> None:
    facts = judge(table(0.3, 0.5), AREAS)
    assert (facts["positives"], facts["negatives"]) == (3, 2)
    assert facts["randomised"] == 0.3 and facts["insertion"] == 0.8 and facts["deletion"] is None
    assert facts["masked_positives"] == 0.6667 and facts["masked_negatives"] == 0.5
    assert facts["area_positives"] == 0.1 and facts["area_negatives"] == 0.15
    assert not facts["ignores_model"] and not facts["ignores_finding"]


def test_maps_that_do_not_change_are_marked() -> None:
    assert judge(table(0.97, 0.5), AREAS)["ignores_model"]
    assert judge(table(0.2, 1.0), AREAS)["ignores_finding"]
    single = judge(table(0.2, float("nan")), AREAS)  # a data set with one finding
    assert single["other"] is None and not single["ignores_finding"]
