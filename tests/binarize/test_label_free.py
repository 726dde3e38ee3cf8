"""Thresholds without truth, where the right answer is built in."""

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from dollmaker.binarize.cuts import AREAS, COUNT, FAMILIES, Cut, candidates, level
from dollmaker.binarize.label_free import (
    CRITERIA,
    Views,
    choose,
    choose_thresholds,
    chosen_of,
    curves,
    cuts_of,
    likelihood,
    read_thresholds,
)
from dollmaker.store import provenance
from dollmaker.store.shards import create_shard

NUMBERS = {"area": AREAS, "otsu": np.array([1.0])}


def seen(maps: np.ndarray, scale: float = 1.0) -> Views:
    """Views of (P, M, 2, H, W), all on one scale."""
    flat = maps.reshape(*maps.shape[:3], maps.shape[3] * maps.shape[4]).astype(np.float32)
    return Views(flat, np.full(flat.shape[:3], scale, np.float32))


def curve(maps: np.ndarray, criterion: str, null: np.ndarray | None = None) -> np.ndarray:
    """A criterion of all areas."""
    absent = maps[:0] if null is None else null
    return curves(seen(maps), seen(absent), NUMBERS)[criterion]["area"]


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


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


@pytest.mark.parametrize("members", [1, 2, 3])
@pytest.mark.parametrize("absent", [0, 3])
def test_stability_written_out(members: int, absent: int) -> None:
    views = blobs([0.1] * 4, noise=0.3, seed=1, members=members)
    null = blobs([0.02] * 3, noise=0.6, seed=2, members=members)[:absent]
    number = 14
    masks, empty = (
        [[[v > level(v, Cut("area", AREAS[number])) for v in m] for m in image] for image in maps]
        for maps in (views, null)
    )
    pairs = [
        ((a, i), (b, j)) for a in range(members) for b in range(a) for i in (0, 1) for j in (0, 1)
    ]
    pairs = pairs or [((0, 0), (0, 1))]
    same, other, without = [], [], []
    for (a, i), (b, j) in pairs:
        for p, image in enumerate(masks):
            same.append(overlap(image[a][i], image[b][j]))
            other += [overlap(image[a][i], r[b][j]) for q, r in enumerate(masks) if q != p]
            without += [overlap(image[a][i], r[b][j]) for r in empty]
            without += [overlap(image[b][j], r[a][i]) for r in empty]
    expected = np.mean(same) - max(np.mean(other), np.mean(without) if without else 0)
    assert curve(views, "stability", null)[number] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("area", [0.02, 0.06, 0.2])
def test_stability_finds_the_area_that_is_not_noise(area: float) -> None:
    views = blobs([area] * 16, noise=0.35, seed=int(1000 * area))
    assert AREAS[curve(views, "stability").argmax()] == pytest.approx(area, rel=0.6)


def test_noise_that_a_member_repeats_in_the_mirror_does_not_count() -> None:
    views = blobs([0.06] * 16, noise=0.0, seed=4, members=2)
    own = np.random.default_rng(5).standard_normal((16, 2, 1, 48, 48))
    views += 0.35 * gaussian_filter(own, (0, 0, 0, 2, 2)) / 0.14  # the same in both views
    best = AREAS[curve(views, "stability").argmax()]
    assert best == pytest.approx(0.06, rel=0.6)
    alone = AREAS[curve(views[:, :1], "stability").argmax()]
    assert alone > 3 * best or alone < best / 3


def test_what_lies_at_the_same_place_in_every_image_is_not_worth_much() -> None:
    views = blobs([0.05] * 12, noise=0.05, seed=1)
    views[..., 30:, :] += 0.6  # the lower part is relevant in every image
    found = curve(views, "stability")
    common = np.abs(AREAS - 0.4).argmin()
    assert AREAS[found.argmax()] < 0.15
    assert found[common] < found.max() / 2


def test_what_is_drawn_without_the_finding_is_not_worth_much() -> None:
    """Images of one kind each with its own finding: what they share, images without it have too."""
    views = blobs([0.05] * 12, noise=0.05, seed=1)
    null = blobs([0.05] * 6, noise=0.05, seed=2)
    views[:6, ..., 30:, :] += 0.6  # in half of the images
    null[..., 30:, :] += 0.6
    common = np.abs(AREAS - 0.4).argmin()
    alone, with_null = curve(views, "stability"), curve(views, "stability", null)
    assert with_null[common] <= alone[common]
    assert with_null.max() == pytest.approx(alone.max(), abs=0.15)


def test_the_likelihood_of_a_pixel_is_calibrated() -> None:
    """A fifth of the pixels is the finding; the others are as in images without it."""
    rng = np.random.default_rng(0)
    there = rng.random((20, 3000)) < 0.2
    logits = rng.normal(np.where(there, 2.5, 0.0), 1.0).astype(np.float32)
    likely = likelihood(logits, rng.normal(size=(20, 3000)).astype(np.float32))
    assert likely.mean() == pytest.approx(0.2, abs=0.03)
    true = 1 / (1 + 4 * np.exp(2.5**2 / 2 - 2.5 * logits))  # Bayes' rule for the two bells
    assert np.abs(likely - true).mean() < 0.03
    order = np.argsort(logits.ravel())
    assert (np.diff(likely.ravel()[order]) >= 0).all()


def test_nothing_is_likely_where_images_without_the_finding_look_alike() -> None:
    same = np.random.default_rng(0).random((4, 500), np.float32)
    assert likelihood(same, same).max() == 0
    assert likelihood(np.zeros_like(same), same).max() == 0
    assert likelihood(np.zeros_like(same), same - 2).max() == 0
    assert likelihood(same + 2, same).min() == 1


def test_expectation_written_out() -> None:
    views = blobs([0.1] * 4, noise=0.3, seed=1, members=2)
    null = blobs([0.005] * 3, noise=0.3, seed=2, members=2)
    likely = likelihood(*(v.mean((1, 2)).reshape(len(v), -1) for v in (views, null)))
    found = curve(views, "expectation", null)
    for number in (3, 12, 20):
        expected = []
        for image, chances in zip(views.mean((1, 2)), likely, strict=True):
            mask = (image > level(image, Cut("area", AREAS[number]))).ravel()
            expected.append(chances[mask].sum() / (mask.sum() + chances[~mask].sum()))
        assert found[number] == pytest.approx(np.mean(expected), abs=1e-5)
    evidence = curve(views, "stability", null) + found / 2
    assert curve(views, "evidence", null) == pytest.approx(evidence)


@pytest.mark.parametrize("area", [0.03, 0.1, 0.3])
def test_expectation_finds_the_area_that_images_without_the_finding_lack(area: float) -> None:
    views, null = (blobs([a] * 12, noise=0.15, seed=3) for a in (area, 0.0))
    found = curve(views, "expectation", null)
    assert AREAS[found.argmax()] == pytest.approx(area, rel=0.35)
    assert curve(views, "expectation").max() == 0  # nothing to compare with
    assert (curve(views, "evidence") == curve(views, "stability")).all()


def test_a_finding_with_few_pairs_follows_the_others() -> None:
    peak, other = ({n: {"area": np.eye(COUNT)[k]} for n in CRITERIA} for k in (6, 17))
    chosen = choose({"a": peak, "rare": other}, {"a": 50, "rare": 1})
    assert chosen["a"] == chosen["rare"] == chosen[""] == {n: {"area": 6} for n in CRITERIA}
    chosen = choose({"a": peak, "common": other}, {"a": 50, "common": 50})
    assert chosen["common"]["stability"]["area"] == 17


def written(folder: Path, views: np.ndarray, table: dict, scale: np.ndarray) -> Path:
    with create_shard(folder / "s.h5", "relevance", provenance.header("sample", {})) as writer:
        writer.append(table, views=views.astype(np.float16), view_scale=scale.astype(np.float32))
    choose_thresholds(folder / "s.h5", folder / "t.parquet")
    return folder / "t.parquet"


def test_the_table_is_written_and_read(tmp_path: Path) -> None:
    views = blobs([0.05] * 6 + [0.2] * 6 + [0.02] * 2, noise=0.3, seed=5)
    findings = ["small"] * 6 + ["large"] * 6 + ["small", "absent"]
    labels = np.array([1] * 12 + [0, 0], np.int8)
    table = {"image_id": [f"i{k}" for k in range(14)], "finding": findings, "label": labels}
    scale = np.repeat(np.linspace(0.01, 0.1, 14), 2).reshape(14, 1, 2)
    cuts = read_thresholds(written(tmp_path, views, table, scale))
    assert set(cuts) == {"small", "large", ""}
    assert cuts_of(cuts, "absent") == cuts_of(cuts, "")
    assert cuts_of({}, "small") == {}
    given = views.astype(np.float16).astype(np.float32).reshape(14, 1, 2, -1)
    scales = scale.astype(np.float32)
    rows = [np.arange(6), np.arange(12, 13)]
    numbers = candidates(*(x[r] for r in rows for x in (given, scales[..., None])))
    found = curves(*(Views(given[r], scales[r]) for r in rows), numbers)
    for criterion in CRITERIA:
        for family in FAMILIES:
            cut = cuts_of(cuts, "small")[criterion, family]
            assert cut.family == family and cut.value in numbers[family]
    names = chosen_of(cuts, "small").candidates
    assert [cut.family for cut in names] == [f for f in FAMILIES for _ in range(COUNT)]
    assert [cut.value for cut in names] == pytest.approx(np.concatenate(list(numbers.values())))
    assert len(found["stability"]["root"]) == COUNT
    small, large = (cuts_of(cuts, name)["stability", "area"].value for name in ("small", "large"))
    assert small < large


def test_members_that_do_not_know_a_finding_have_no_say(tmp_path: Path) -> None:
    views = blobs([0.05] * 6 + [0.2] * 6, noise=0.3, seed=5)
    both = np.concatenate([views, blobs([0.1] * 12, noise=0.3, seed=6)], 1)
    both[:6, 1] = np.nan  # the second member does not know what is small
    labels = np.array([1, 1, 1, 1, 0, 0] * 2, np.int8)
    findings = ["small"] * 6 + ["large"] * 6
    table = {"image_id": [f"i{k}" for k in range(12)], "finding": findings, "label": labels}
    scale = np.linspace(0.01, 0.1, 48).reshape(12, 2, 2)
    scale[:6, 1] = np.nan
    found = read_thresholds(written(tmp_path, both, table, scale))
    given = both.astype(np.float16).astype(np.float32).reshape(12, 2, 2, -1)
    logits = (given * scale.astype(np.float32)[..., None])[labels == 1].ravel()
    wanted = np.quantile(logits[~np.isnan(logits)], 1 - AREAS)
    everywhere = [cut.value for cut in found[""].candidates if cut.family == "logits"]
    assert everywhere == pytest.approx(wanted, rel=1e-5)
    (tmp_path / "first").mkdir()
    small = {name: list(column[:6]) for name, column in table.items()}
    small["label"] = labels[:6]
    alone = written(tmp_path / "first", both[:6, :1], small, scale[:6, :1])
    second = written(tmp_path / "first", both[:6], small, scale[:6])
    assert read_thresholds(second) == read_thresholds(alone)
    assert found["small"].candidates == read_thresholds(alone)["small"].candidates


def test_the_order_of_the_pairs_does_not_matter(tmp_path: Path) -> None:
    views = blobs([0.05] * 6 + [0.2] * 6, noise=0.3, seed=5)
    table = {
        "image_id": [f"i{k}" for k in range(12)],
        "finding": ["small"] * 6 + ["large"] * 6,
        "label": np.array([1, 1, 1, 1, 0, 0] * 2, np.int8),
    }
    scale = np.repeat(np.linspace(0.01, 0.1, 12), 2).reshape(12, 1, 2)
    first = read_thresholds(written(tmp_path, views, table, scale))
    turned = {name: list(column)[::-1] for name, column in table.items()}
    turned["label"] = table["label"][::-1]
    (tmp_path / "b").mkdir()
    second = read_thresholds(written(tmp_path / "b", views[::-1], turned, scale[::-1]))
    for finding in ("small", "large", ""):
        one, other = (cuts_of(cuts, finding) for cuts in (first, second))
        assert {k: c.value for k, c in one.items()} == pytest.approx(
            {k: c.value for k, c in other.items()}
        )
