"""Who says that a finding is there."""

import inspect
from typing import Any

import pytest

from dollmaker.binarize.thresholds import gate
from dollmaker.evaluate.means import GATE_LABELS, gated_by_steps


def say(options: Any, asked: float | None, least: float = 0.0) -> str:
    steps = [{"gate": options}, {"otsu": {}}] if options != "none" else [{"otsu": {}}]
    return gated_by_steps(steps, asked, least)


def test_the_default_of_the_step_is_known() -> None:
    assert inspect.signature(gate).parameters["labels"].default == GATE_LABELS


@pytest.mark.parametrize(
    ("options", "asked", "said"),
    [
        ({}, None, "label"),
        (None, 0.3, "label"),
        ("none", None, "label"),  # nothing but positive labels is explained
        ({"labels": None, "min_probability": 0.5}, None, "label and model"),
        ({"labels": [1], "min_probability": 0.5}, 0.3, "label and model"),
        ({"labels": None, "min_probability": 0.5}, 0.3, "model"),
        ({"labels": None, "min_probability": 0.5}, 0.5, "model"),
        ({"labels": None, "min_probability": 0.2}, 0.3, "label or model"),
        ("none", 0.3, "label or model"),
        ("none", 0.0, "nothing"),
    ],
)
def test_by_cases(options: Any, asked: float | None, said: str) -> None:
    assert say(options, asked) == said


def test_a_cut_off_of_the_scores_is_the_models_word() -> None:
    assert say({}, None, 0.5) == "label and model"
    assert say("none", 0.3, 0.5) == "model"
