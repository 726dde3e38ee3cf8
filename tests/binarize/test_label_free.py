"""Thresholds without truth, where the right answer is built in."""

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.filters import threshold_otsu

from dollmaker import provenance
from dollmaker.binarize.choice import FALLBACK, choose_thresholds, cuts_of, read_thresholds
from dollmaker.binarize.label_free import AREAS, CANDIDATES, CRITERIA, Cut, choose, curves, level
from dollmaker.shards import create_shard


def blobs(areas: list[float], *, noise: float, seed: int, members: int = 1) -> np.ndarray:
    """Views of images with one disk each, at another place; noise differs between the views."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:48, :48]
    views = np.zeros((len(areas), members, 2, 48, 48), np.float32)
    for k, area in enumerate(areas):
        radius = np.sqrt(area / np.pi) * 48
        cy, cx = rng.uniform(radius, 48 - radius, 2)
        disk = ((y - cy) ** 2 + (x - cx) ** 2 <= radius**2).astype(float)
        for place in np.ndindex(members, 2):
            drawn = gaussian_filter(rng.standard_normal((48, 48)), 2)
            views[k][place] = gaussian_filter(disk, 1) + noise * drawn / drawn.std()
    return views - views.min((3, 4), keepdims=True)


def kappa(a: np.ndarray, b: np.ndarray) -> float:
    """Cohen's kappa from its table of counts."""
    table = np.array([[np.sum((a == i) & (b == j)) for j in (0, 1)] for i in (0, 1)]) / a.size
    expected = np.outer(table.sum(1), table.sum(0))
    return float((np.trace(table) - np.trace(expected)) / (1 - np.trace(expected)))


@pytest.mark.parametrize("area", [0.02, 0.06, 0.2])
def test_stability_finds_the_area_that_is_not_noise(area: float) -> None:
    views = blobs([area] * 16, noise=0.35, seed=int(1000 * area))
    found = curves(views)["stability"]
    best = CANDIDATES[int(found[:-1].argmax())]
    assert best.area == pytest.approx(area, rel=0.6)


def test_noise_that_a_member_repeats_in_the_mirror_does_not_count() -> None:
    views = blobs([0.06] * 16, noise=0.0, seed=4, members=2)
    own = np.random.default_rng(5).standard_normal((16, 2, 1, 48, 48))
    views += 0.35 * gaussian_filter(own, (0, 0, 0, 2, 2)) / 0.14  # the same in both views
    best = CANDIDATES[int(curves(views)["stability"][:-1].argmax())]
    assert best.area == pytest.approx(0.06, rel=0.6)
    alone = CANDIDATES[int(curves(views[:, :1])["stability"][:-1].argmax())]
    assert alone.area > 3 * best.area or alone.area < best.area / 3


def test_what_lies_at_the_same_place_in_every_image_is_not_worth_much() -> None:
    views = blobs([0.05] * 12, noise=0.05, seed=1)
    views[..., 30:, :] += 0.6  # the lower part is relevant in every image
    found = curves(views)["stability"][:-1]
    common = np.abs(AREAS - 0.4).argmin()
    assert AREAS[found.argmax()] < 0.15
    assert found[common] < found.max() / 2


def test_agreement_is_cohens_kappa_between_members() -> None:
    views = blobs([0.1] * 3, noise=0.3, seed=3, members=2)
    found = curves(views)["agreement"]
    for number in (5, 20, len(CANDIDATES) - 1):
        masks = [
            [view > level(view, CANDIDATES[number]) for view in image[:, 0]] for image in views
        ]
        expected = np.mean([kappa(a, b) for a, b in masks])
        assert found[number] == pytest.approx(expected, abs=1e-6)


def test_separability_is_largest_at_otsus_threshold() -> None:
    views = blobs([0.1] * 4, noise=0.2, seed=4)
    found = curves(views)["separability"]
    assert found[-1] >= found[:-1].max() - 1e-3
    assert level(views[0, 0, 0], Cut("otsu")) == pytest.approx(threshold_otsu(views[0, 0, 0]))


def test_a_finding_with_few_pairs_follows_the_others() -> None:
    peak = {name: np.eye(len(CANDIDATES))[10] for name in CRITERIA}
    other = {name: np.eye(len(CANDIDATES))[30] for name in CRITERIA}
    chosen = choose({"a": peak, "rare": other}, {"a": 50, "rare": 1})["stability"]
    assert chosen["a"] == chosen["rare"] == CANDIDATES[10]
    chosen = choose({"a": peak, "common": other}, {"a": 50, "common": 50})["stability"]
    assert chosen["common"] == CANDIDATES[30]


def test_the_table_is_written_and_read(tmp_path: Path) -> None:
    views = blobs([0.05] * 6 + [0.2] * 6, noise=0.3, seed=5)
    table = {
        "image_id": [f"i{k}" for k in range(13)],
        "finding": ["small"] * 6 + ["large"] * 6 + ["absent"],
        "label": np.array([1] * 12 + [0], np.int8),
    }
    views = np.concatenate([views, np.zeros_like(views[:1])])
    with create_shard(tmp_path / "s.h5", "relevance", provenance.header("sample", {})) as writer:
        writer.append(table, views=views.astype(np.float16))
    choose_thresholds(tmp_path / "s.h5", tmp_path / "t.parquet")
    cuts = read_thresholds(tmp_path / "t.parquet")
    assert set(cuts) == set(CRITERIA) and set(cuts["stability"]) == {"small", "large"}
    assert cuts_of(cuts, "absent") == dict.fromkeys(CRITERIA, FALLBACK)
    small, large = (cuts_of(cuts, name)["stability"] for name in ("small", "large"))
    assert small.family == "otsu" or small.area <= (large.area or 1)
