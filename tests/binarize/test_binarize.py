"""Steps against independent references, and chains made of them."""

from dataclasses import replace

import numpy as np
import pytest
from skimage import filters, morphology

from dollmaker.binarize.crf import dense_crf
from dollmaker.binarize.cuts import FAMILIES, FAMILY, Cut, level
from dollmaker.binarize.morphology import clean
from dollmaker.binarize.pair import Pair, quality, stability
from dollmaker.binarize.steps import STEPS, make_chain
from dollmaker.binarize.thresholds import (
    at,
    fraction_of_maximum,
    gate,
    ignore_band,
    label_free,
    otsu,
    quantile,
    two_threshold,
)
from dollmaker.runtime.errors import ConfigError


def pair(values: np.ndarray | None = None, **changes: object) -> Pair:
    y, x = np.mgrid[:64, :64]
    bump = np.exp(-((y - 20) ** 2 + (x - 40) ** 2) / 60).astype(np.float32)
    image = (60 + 120 * (bump > 0.4)).astype(np.uint8)[None]
    fields = {"map": bump if values is None else values, "image": image, "label": 1}
    return Pair(**{**fields, "probability": 0.9, **changes})  # type: ignore[arg-type]


def test_otsu_is_scikit_images() -> None:
    done = otsu(pair())
    assert done.threshold == pytest.approx(filters.threshold_otsu(pair().map))
    np.testing.assert_array_equal(done.mask, pair().map > done.threshold)


def test_a_flat_map_gives_an_empty_mask() -> None:
    for step in (otsu, quantile, fraction_of_maximum):
        mask = step(pair(np.zeros((8, 8), np.float32))).mask
        assert mask is not None and mask.sum() == 0


def test_quantile_keeps_its_share_and_fraction_its_height() -> None:
    values = np.random.default_rng(0).permutation(10_000).reshape(100, 100).astype(np.float32)
    mask = quantile(pair(values / 9999), q=0.8).mask
    assert mask is not None and mask.sum() == 2000
    mask = fraction_of_maximum(pair(values / 9999), fraction=0.3).mask
    assert mask is not None and mask.sum() == (values / 9999 > 0.3).sum()


def test_at_cuts_at_a_value_whatever_the_maximum() -> None:
    values = np.array([[0.1, 0.3, 0.5, 0.6]], np.float32)
    done = at(pair(values))
    assert done.mask is not None and done.mask.tolist() == [[0, 0, 0, 1]]
    assert done.threshold == 0.5
    low = at(pair(values), level=0.0).mask
    assert low is not None and low.all()
    for wrong in (-0.1, 1.0):
        with pytest.raises(ConfigError, match=f"level = {wrong}; it should be"):
            make_chain([{"at": {"level": wrong}}])


def test_the_gate_goes_by_the_label_or_by_what_is_predicted() -> None:
    sure, unsure = pair(label=0, probability=0.8), pair(label=1, probability=0.2)
    assert [gate(p).kept for p in (sure, unsure)] == [False, True]
    predicted = [gate(p, labels=None, min_probability=0.5).kept for p in (sure, unsure)]
    assert predicted == [True, False]
    chain = make_chain([{"gate": {"labels": None, "min_probability": 0.5}}, {"otsu": {}}])
    assert np.asarray(chain(sure).mask).any() and not np.asarray(chain(unsure).mask).any()


def test_label_free_takes_the_cut_of_its_finding() -> None:
    cuts = {("evidence", family): Cut(family, 0.25) for family in FAMILIES}
    cuts |= {("stability", FAMILY): Cut("otsu", 1.0)}
    values = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    given = pair(values, cuts=cuts, scale=0.4)
    for family in FAMILIES:
        done = label_free(given, family=family)
        assert done.threshold == level(values, Cut(family, 0.25), 0.4)
        np.testing.assert_array_equal(done.mask, values > done.threshold)
    assert label_free(given).threshold == label_free(given, family=FAMILY).threshold
    by_otsu = label_free(given, criterion="stability").mask
    assert by_otsu is not None and (by_otsu == otsu(pair(values)).mask).all()
    empty = label_free(pair(np.zeros((8, 8), np.float32), cuts=cuts)).mask
    assert empty is not None and not empty.any()
    with pytest.raises(ConfigError, match="finding; give --thresholds the table that `dollmaker"):
        label_free(pair(values))
    with pytest.raises(ConfigError, match="unknown criterion"):
        make_chain([{"label_free": {"criterion": "magic"}}])
    with pytest.raises(ConfigError, match="family of step label_free 'size'; use one of: root"):
        make_chain([{"label_free": {"family": "size"}}])


def test_the_band_is_what_a_small_change_of_the_threshold_moves() -> None:
    values = np.linspace(0, 1, 101, dtype=np.float32)[None]
    cut = fraction_of_maximum(pair(values), fraction=0.5)
    mask = ignore_band(cut, change=0.1).mask
    assert mask is not None
    assert ((mask == 255) == ((values > 0.45) & (values <= 0.55))).all()
    assert (mask[mask != 255] == (values > 0.5)[mask != 255]).all()
    flat = np.full((4, 4), 0.5, np.float32)
    narrow = Pair(**{**vars(pair(flat)), "mask": np.ones((4, 4), np.uint8), "threshold": 0.5})
    assert ignore_band(narrow).mask is narrow.mask  # a mask is never ignored as a whole
    with pytest.raises(ConfigError, match="before any threshold"):
        ignore_band(pair())


def test_two_thresholds_leave_a_band_to_ignore() -> None:
    values = np.array([[0.0, 0.05, 0.2, 0.3, 0.31, 1.0]], np.float32)
    mask = two_threshold(pair(values)).mask
    assert mask is not None and mask.tolist() == [[0, 0, 255, 255, 1, 1]]


def test_gates_empty_the_mask_and_skip_the_rest() -> None:
    chain = make_chain([{"gate": {"labels": [1], "min_probability": 0.5}}, {"otsu": None}])
    assert chain(pair()).kept
    for change in ({"label": 0}, {"label": -1}, {"probability": 0.4}):
        done = chain(pair(**change))
        assert not done.kept
        assert done.mask is not None and done.mask.sum() == 0
    assert gate(pair(label=-1), labels=(1, -1)).kept


def test_clean_is_scikit_images_morphology() -> None:
    mask = np.random.default_rng(1).random((64, 64)) < 0.55
    mask[10:50, 10:50] = True
    mask[20:23, 20:23] = False  # a hole to fill
    done = clean(pair(mask=mask.astype(np.uint8)), opening=0, holes=10 / 4096, components=30 / 4096)
    expected = morphology.remove_small_holes(mask, max_size=10, connectivity=1)
    expected = morphology.remove_small_objects(expected, max_size=29, connectivity=1)
    border = np.zeros_like(mask)
    border[[0, -1]] = border[:, [0, -1]] = True  # holes at the border are no holes here
    assert done.mask is not None
    differ = (done.mask == 1) != expected
    assert not (differ & morphology.erosion(~border, np.ones((9, 9)))).any()
    assert done.mask[21, 21] == 1


def test_clean_never_removes_all_and_keeps_the_band() -> None:
    mask = np.zeros((32, 32), np.uint8)
    mask[4, 4] = mask[9:11, 9:11] = 1
    mask[20:, 20:] = 255
    done = clean(pair(mask=mask), opening=3, components=0.1).mask
    assert done is not None
    assert (done == 1).sum() == 4
    assert (done == 255).sum() == 144


def test_dense_crf_moves_the_mask_to_the_edge_of_the_image() -> None:
    image = np.full((1, 64, 64), 40, np.uint8)
    image[0, 16:48, 16:48] = 220
    mask = np.zeros((64, 64), np.uint8)
    mask[20:44, 20:44] = 1
    done = dense_crf(pair(mask=mask, image=image)).mask
    assert done is not None
    np.testing.assert_array_equal(done == 1, image[0] > 100)


def test_dense_crf_is_a_mean_field_written_out() -> None:
    """Two iterations on a tiny image against the dense formula, in the paper's normalisation."""
    rng = np.random.default_rng(3)
    image = rng.integers(0, 255, (1, 6, 7), dtype=np.uint8)
    mask = (rng.random((6, 7)) < 0.5).astype(np.uint8)
    options = {"bilateral_sxy": 3.0, "bilateral_srgb": 60.0, "iterations": 2}
    done = dense_crf(pair(mask=mask, image=image, map=np.zeros((6, 7), np.float32)), **options).mask
    foreground = np.where(mask == 1, 0.7, 0.3).ravel()
    unary = -np.log(np.stack([1 - foreground, foreground]))
    y, x = (axis.ravel()[:, None] for axis in np.mgrid[:6, :7])
    grey = image.ravel()[:, None].astype(float)
    kernels = []
    for features, weight in (((y / 3, x / 3), 3), ((y / 3, x / 3, *[grey / 60] * 3), 10)):
        squared = sum((f - f.T) ** 2 for f in features)
        kernel = np.exp(-squared / 2)
        norm = 1 / np.sqrt(kernel.sum(1) + 1e-20)
        kernels.append(weight * norm[:, None] * kernel * norm[None])
    q = np.exp(-unary) / np.exp(-unary).sum(0)
    for _ in range(2):
        energy = unary - sum((k @ q.T).T for k in kernels)
        q = np.exp(-energy) / np.exp(-energy).sum(0)
    assert done is not None
    sure = np.abs(q[1] - 0.5) > 0.1  # the lattice is an approximation
    assert sure.mean() > 0.7
    np.testing.assert_array_equal((done.ravel() == 1)[sure], (q[1] > 0.5)[sure])


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([{"magic": {}}], "unknown step 'magic'; use one of: gate, otsu"),
        ([{"quantile": {"p": 0.2}}], "unknown argument of step quantile 'p'; use one of: q"),
        ([{"gate": {}}], "no threshold"),
        ([{"clean": {}}], "before any threshold"),
        ([{"dense_crf": {}}], "before any threshold"),
        ([{"quantile": {"q": 2}}], "q = 2"),
        ([{"two_threshold": {"foreground": 0.1, "background": 0.5}}], "two_threshold needs"),
    ],
)
def test_wrong_chains_are_refused(steps: list[dict], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_chain(steps)(pair())


def test_every_step_returns_a_pair_of_the_same_size() -> None:
    thresholded = otsu(pair(cuts={("evidence", FAMILY): Cut("area", 0.1)}))
    for name, step in STEPS.items():
        done = step(thresholded)
        assert done.mask is not None and done.mask.shape == (64, 64), name
        assert set(np.unique(done.mask)) <= {0, 1, 255}


def test_quality_falls_with_each_of_its_parts() -> None:
    good = {"agreement": 0.9, "completeness": 0.1, "probability": 0.8, "area": 0.1}
    good["stability"] = 0.7
    best = quality(**good)
    assert best == pytest.approx(0.7 * (0.9 / 1.1 * 0.8) ** 0.25)
    worse = {"agreement": 0.5, "completeness": 0.7, "probability": 0.2, "stability": 0.3}
    for name, value in {**worse, "area": 0.0}.items():
        assert quality(**{**good, name: value}) < best
    unknown = {"completeness": float("nan"), "stability": float("nan")}
    assert quality(**{**good, **unknown}) == pytest.approx(0.72**0.25)


def test_stability_is_the_overlap_of_nearby_thresholds() -> None:
    values = np.linspace(0, 1, 1001, dtype=np.float32)[None]
    given = pair(values)
    assert stability(replace(given, threshold=0.5)) == pytest.approx(450 / 550, abs=0.01)
    assert np.isnan(stability(replace(given, threshold=float("inf"))))
    assert stability(replace(given, threshold=2.0)) == 0


def test_clean_keeps_parts_that_reach_the_peak() -> None:
    """Against scikit-image's thresholding with hysteresis, on smooth noise."""
    noise = np.random.default_rng(5).normal(size=(48, 64))
    values = filters.gaussian(noise, 2).astype(np.float32)
    values /= values.max()
    cut = at(pair(values, image=np.arange(48 * 64, dtype=np.uint8).reshape(1, 48, 64)), level=0.2)
    done = clean(cut, opening=0, holes=0, components=0, peak=0.8).mask
    below = np.nextafter(np.float32(0.8), np.float32(0))  # theirs is above, ours at least
    assert done is not None and cut.mask is not None
    np.testing.assert_array_equal(done, filters.apply_hysteresis_threshold(values, 0.2, below))
    assert 0 < done.sum() < cut.mask.sum()
    with pytest.raises(ConfigError, match=r"peak = 1\.5"):
        make_chain([{"clean": {"peak": 1.5}}])
