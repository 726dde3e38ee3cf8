"""Verdicts from a sample whose answers are known, against plain formulas."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from dollmaker.config.settings import resolved
from dollmaker.sanity.stage import MIN_PAIRS, SAME_MASKS, Inputs, check_recipe, judge
from dollmaker.store import provenance, tables
from dollmaker.store.files import read_json
from dollmaker.store.shards import create_shard

COUNT = 24


def table(randomised: Sequence[float], other: Sequence[float], negatives: int = 12) -> dict:
    """A sample of positives of which those with numbers were checked, and of negatives."""
    absent = [np.nan] * negatives
    return {
        "label": np.array([1] * len(randomised) + [0] * negatives, np.int8),
        "randomised": np.array([*randomised, *absent], np.float32),
        "other": np.array([*other, *absent], np.float32),
        "insertion": np.array([0.9, 0.7, *[np.nan] * (len(randomised) - 2), *absent], np.float32),
        "deletion": np.full(len(randomised) + negatives, np.nan, np.float32),
    }


def around(middle: float, spread: float = 0.02, count: int = COUNT) -> list[float]:
    return list(middle + spread * np.linspace(-1, 1, count))


def people(count: int) -> list[str]:
    return [f"p{k}" for k in range(count)]


def verdicts(
    same: Sequence[float],
    *,
    other: float = 0.5,
    informative: bool = True,
    negatives: int = 12,
) -> dict:
    """Of masks that agree so much with those of random weights, whatever the maps' ranks."""
    count = len(same)
    given = table(around(0.95, count=count), around(other, count=count), negatives)
    areas = np.full(len(given["label"]), 0.1)
    if informative:
        areas[given["label"] == 0] = 0
    full = np.array([*same, *[np.nan] * negatives])
    return judge(given, areas, full, people(len(areas)))


def test_numbers_are_medians_means_and_shares() -> None:
    given = table([0.3, 0.3, 0.8, np.nan], [0.5, 0.5, 0.7, np.nan], negatives=2)
    same = np.array([0.1, 0.4, 0.2, *[np.nan] * 3])
    facts = judge(given, np.array([0.2, 0.0, 0.1, 0.1, 0.3, 0.0]), same, people(6))
    assert facts["same_masks"] == 0.2
    assert (facts["positives"], facts["negatives"], facts["checked"]) == (4, 2, 3)
    assert facts["randomised"] == 0.3 and facts["insertion"] == 0.8 and facts["deletion"] is None
    assert facts["masked_positives"] == 0.75 and facts["masked_negatives"] == 0.5
    assert facts["masked_difference"] == 0.25
    assert facts["area_positives"] == 0.1 and facts["area_negatives"] == 0.15
    assert facts["area_difference"] == -0.05


def test_the_interval_of_the_median_draws_patients() -> None:
    values = np.random.default_rng(0).uniform(0.2, 0.9, 30).round(3)
    patients = [f"p{k // 3}" for k in range(30)]
    given = table(list(values), around(0.5, count=30))
    facts = judge(given, np.zeros(42), np.full(42, np.nan), [*patients, *people(12)])
    rng = np.random.default_rng(1)
    rows = values.reshape(10, 3)
    drawn = [np.median(rows[rng.integers(10, size=10)]) for _ in range(4000)]
    assert facts["randomised"] == pytest.approx(np.median(values), abs=1e-3)
    low, high = np.percentile(drawn, (2.5, 97.5))
    assert facts["randomised_low"] == pytest.approx(low, abs=0.04)
    assert facts["randomised_high"] == pytest.approx(high, abs=0.04)


def test_maps_that_do_not_change_fail_only_where_it_is_sure() -> None:
    assert verdicts(around(0.6))["ignores_model"] is True
    assert verdicts(around(0.2), other=0.985)["ignores_finding"] is False
    assert verdicts(around(0.2), other=1.02)["ignores_finding"] is True
    fine = verdicts(around(0.4))
    assert fine["ignores_model"] is False and fine["doubts"] == []
    assert fine["verdict"] == "depends on model and finding"


def test_what_straddles_the_limit_is_doubted_and_fails_only_if_it_is_uninformative() -> None:
    """The same rings on two committees, each with cases on both sides of the limit."""
    for middle in (0.48, 0.53):
        rings = around(middle, 0.15)
        informative = verdicts(rings)
        assert informative["same_masks_low"] < SAME_MASKS < informative["same_masks_high"]
        assert informative["ignores_model"] is False
        assert informative["doubts"] == ["ignores_model"]
        assert informative["verdict"] == "may ignore the model"
        alike = verdicts(rings, informative=False)
        assert alike["ignores_model"] is True and alike["uninformative"] is True
        assert alike["verdict"].startswith("ignores the model; uninformative")


def test_too_few_pairs_are_unknown() -> None:
    few = verdicts(around(0.2, count=MIN_PAIRS - 1), negatives=MIN_PAIRS - 1)
    assert few["ignores_model"] is None and few["ignores_finding"] is None
    assert few["uninformative"] is None
    assert few["verdict"].startswith("not known whether it ignores the model")
    enough = verdicts(around(0.2, count=MIN_PAIRS), negatives=MIN_PAIRS)
    assert enough["ignores_model"] is False and enough["uninformative"] is False
    blank = verdicts([float("nan")] * COUNT)  # where nobody draws there is nothing to compare
    assert blank["ignores_model"] is None and blank["same_masks"] is None


def test_one_patient_says_nothing_about_others() -> None:
    given = table(around(0.2), around(0.5))
    facts = judge(given, np.zeros(COUNT + 12), np.full(COUNT + 12, 0.2), ["p"] * (COUNT + 12))
    assert facts["ignores_model"] is None and facts["uninformative"] is None


def test_a_data_set_with_one_finding_has_no_other() -> None:
    given = table(around(0.2), [np.nan] * COUNT)
    areas = np.zeros(COUNT + 12)
    for several, expected in ((False, False), (True, None)):
        facts = judge(given, areas, areas, people(COUNT + 12), several=several)
        assert facts["other"] is None and facts["ignores_finding"] is expected
    areas[:COUNT] = 0.1
    facts = judge(given, areas, np.full(COUNT + 12, 0.2), people(COUNT + 12), several=False)
    assert facts["verdict"] == "depends on the model"


@pytest.mark.parametrize(
    ("positives", "negatives", "expected"),
    [
        ([0.1] * 20, [0.1] * 12, True),  # as many, as large
        ([0.1] * 20, [0.1, 0.0] * 6, False),  # half as many
        ([0.1] * 20, [0.02] * 12, False),  # as many, but small
        ([0.05, 0.15] * 10, [0.16, 0.06] * 6, True),  # not told apart by so few
    ],
)
def test_uninformative_is_as_many_masks_of_the_same_size(
    positives: list, negatives: list, expected: bool
) -> None:
    given = table(around(0.2, count=20), around(0.5, count=20), len(negatives))
    areas = np.array([*positives, *negatives])
    facts = judge(given, areas, np.full(len(areas), 0.2), people(len(areas)))
    assert facts["uninformative"] is expected
    assert ("uninformative" in facts["verdict"]) is expected


def test_the_stage_looks_at_the_picture_alone(tmp_path: Path) -> None:
    """Bars that are full of relevance neither get a mask nor count as area."""
    header = provenance.header("sample", {})
    count = 2 * MIN_PAIRS
    ids = [f"i{k}" for k in range(count)]
    labels = np.array([1, 0] * MIN_PAIRS, np.int8)
    index = pl.DataFrame(
        {
            "image_id": ids,
            "patient_id": ids,
            "width": [80] * count,
            "height": [40] * count,
            "shard": ["0000"] * count,
            "row": range(count),
        }
    )
    tables.write(index, tmp_path / "index.parquet", {**header, "findings": ["f"]})
    image = np.zeros((count, 1, 20, 20), np.uint8)
    image[:, :, 5:15] = np.arange(200, dtype=np.uint8).reshape(10, 20)
    (tmp_path / "images").mkdir()
    with create_shard(tmp_path / "images/0000.h5", "images", header) as writer:
        sides = {name: index[name].to_numpy() for name in ("width", "height")}
        writer.append({"image_id": ids, **sides}, image=image)
    maps = np.ones((count, 20, 20), np.float16)
    maps[:, 5:15] = 0.01
    maps[:, 5:10, :10] = 0.9  # a quarter of the picture
    nothing = np.full(count, 0.5, np.float32)
    columns = ("probability", "scale", "randomised", "other", "insertion", "deletion")
    blind = np.stack([maps, maps, maps[:, ::-1, ::-1]], 1)  # the third draws elsewhere
    with create_shard(tmp_path / "s.h5", "relevance", header) as writer:
        facts = {"image_id": ids, "finding": ["f"] * count, "label": labels}
        writer.append(facts | dict.fromkeys(columns, nothing), map=maps, blind=blind)
    recipe = {"binarize": [{"gate": {}}, {"fraction_of_maximum": {"fraction": 0.5}}]}
    config = resolved(
        {
            "dataset": "x",
            "source": {"kind": "phantoms"},
            "recipes": {"r": recipe},
            "release": {"recipe": "r"},
        }
    )
    inputs = Inputs(
        index=tmp_path / "index.parquet", images=tmp_path / "images", sample=tmp_path / "s.h5"
    )
    check_recipe(config, inputs, "r", tmp_path / "r.json")
    said = read_json(tmp_path / "r.json")
    assert said["area_positives"] == said["area_negatives"] == 0.25
    assert said["masked_negatives"] == 1 and said["uninformative"] is True
    assert said["ignores_finding"] is False  # there is one finding
    assert said["same_masks"] == pytest.approx(2 / 3, abs=1e-4) and said["ignores_model"] is True
    with Image.open(tmp_path / "r.png") as picture:  # 8 pairs with the finding, 4 without
        assert picture.height > 12 * 64 and picture.width > 6 * 128
