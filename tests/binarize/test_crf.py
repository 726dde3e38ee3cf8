"""DenseCRF against the mean field written out, over all pairs of pixels."""

import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from dollmaker.binarize.crf import OF_MAP, dense_crf, of_map
from dollmaker.binarize.fields import Kernels, lattice_field, mean_field
from dollmaker.binarize.pair import Pair
from dollmaker.binarize.steps import make_chain
from dollmaker.binarize.thresholds import fraction_of_maximum, otsu, quantile
from dollmaker.runtime.errors import ConfigError, ModelError

#: Of the lattice, in probability.
TOLERANCE = 0.02
SMALL = Kernels(bilateral_sxy=3.0, bilateral_srgb=60.0)


def written_out(start: np.ndarray, image: np.ndarray, kernels: Kernels, iterations: int) -> list:
    """Kraehenbuehl & Koltun's update in plain loops: Potts labels, symmetric normalisation."""
    height, width = start.shape
    pixels = [(y, x) for y in range(height) for x in range(width)]
    grey = image.astype(float)

    def smooth(p: tuple, q: tuple) -> float:
        distance = (p[0] - q[0]) ** 2 + (p[1] - q[1]) ** 2
        return math.exp(-distance / (2 * kernels.gaussian_sxy**2))

    def appearance(p: tuple, q: tuple) -> float:
        distance = (p[0] - q[0]) ** 2 + (p[1] - q[1]) ** 2
        colour = 3 * np.mean([(one[p] - one[q]) ** 2 for one in grey])
        exponent = distance / (2 * kernels.bilateral_sxy**2)
        return math.exp(-exponent - colour / (2 * kernels.bilateral_srgb**2))

    weights = {}
    for kernel, compat in (
        (smooth, kernels.gaussian_compat),
        (appearance, kernels.bilateral_compat),
    ):
        norm = {p: 1 / math.sqrt(sum(kernel(p, q) for q in pixels)) for p in pixels}
        for p in pixels:
            for q in pixels:
                weight = compat * norm[p] * kernel(p, q) * norm[q]
                weights[p, q] = weights.get((p, q), 0) + weight
    field = {p: (1 - start[p], start[p]) for p in pixels}
    fields = []
    for _ in range(iterations):
        new = {}
        for p in pixels:
            scores = []
            for label in (0, 1):
                unary = -math.log((1 - start[p], start[p])[label])
                message = sum(weights[p, q] * field[q][label] for q in pixels)
                scores.append(math.exp(-unary + message))
            new[p] = (scores[0] / sum(scores), scores[1] / sum(scores))
        field = new
        fields.append(np.array([field[p][1] for p in pixels]).reshape(height, width))
    return fields


def tiny(seed: int = 0, channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Two smooth regions, and a start that is wrong in places: float32 (6, 5), uint8 (C, 6, 5)."""
    rng = np.random.default_rng(seed)
    left = np.mgrid[:6, :5][1] < 2
    image = np.where(left, 60, 150) + rng.integers(-15, 15, (channels, 6, 5))
    start = np.clip(np.where(left, 0.65, 0.35) + rng.normal(0, 0.15, (6, 5)), 0.1, 0.9)
    return start.astype(np.float32), image.astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(3))
def test_the_lattice_is_close_to_the_mean_field_written_out(seed: int, channels: int) -> None:
    start, image = tiny(seed, channels)
    weak = Kernels(
        gaussian_compat=0.5, bilateral_compat=1.0, bilateral_sxy=3.0, bilateral_srgb=60.0
    )
    for number, expected in enumerate(written_out(start, image, weak, 3), 1):
        found = lattice_field(start, image, weak, number)
        assert np.abs(found - expected).max() < TOLERANCE
        assert np.abs(expected - start).max() > 3 * TOLERANCE  # there was something to compute


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_sampled_mean_field_is_exact_with_every_pixel(channels: int) -> None:
    starts, images = zip(*(tiny(seed, channels) for seed in range(3)), strict=True)
    found = mean_field(
        torch.from_numpy(np.stack(starts)),
        torch.from_numpy(np.stack(images)),
        SMALL,
        iterations=4,
        stride=1,
    )
    for number, (start, image) in enumerate(zip(starts, images, strict=True)):
        expected = written_out(start, image, SMALL, 4)[-1]
        np.testing.assert_allclose(found[number].numpy(), expected, atol=2e-5)


def scene(seed: int = 0, size: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """A disk in a noisy image, and a rough start: float32 (H, W), uint8 (3, H, W)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    disk = (y - size / 2) ** 2 + (x - size / 2) ** 2 < (size / 4) ** 2
    image = np.where(disk, 160, 90) + rng.normal(0, 5, (3, size, size))
    shifted = (y - size / 2) ** 2 + (x - size / 2 - 4) ** 2 < (size / 4) ** 2
    return np.where(shifted, 0.7, 0.3).astype(np.float32), image.clip(0, 255).astype(np.uint8)


def test_sampled_and_lattice_decide_alike() -> None:
    for seed in range(3):
        start, image = scene(seed)
        one = lattice_field(start, image, Kernels(), 10) > 0.5
        other = mean_field(torch.from_numpy(start)[None], torch.from_numpy(image)[None])[0] > 0.5
        overlap = (one & other.numpy()).sum() / (one | other.numpy()).sum()
        assert overlap > 0.9


def pair(mask: np.ndarray, image: np.ndarray, **changes: object) -> Pair:
    fields = {"map": np.where(mask == 1, 0.9, 0.1).astype(np.float32), "image": image}
    fields |= {"label": 1, "probability": 0.9, "mask": mask.astype(np.uint8)}
    return Pair(**{**fields, **changes})  # type: ignore[arg-type]


STILL = {"gaussian_compat": 0.0, "bilateral_compat": 0.0, "iterations": 1}


def test_a_mask_without_pairwise_energy_stays() -> None:
    values = np.random.default_rng(0).random((6, 5)).astype(np.float32)
    mask = (values > 0.8).astype(np.uint8)
    assert (dense_crf(pair(mask, tiny()[1], map=values), **STILL).mask == mask).all()


def test_where_a_pixel_starts_from_the_map() -> None:
    """The rule, written out: p = sigmoid(2 log(a / t)) within 0.02 and 0.95."""
    values = np.array([[-0.5, 0.0, 0.01, 0.1], [0.2, 0.3, 0.9, 1.0]], np.float32)
    t = 0.2
    for value, found in zip(values.ravel(), of_map(values, t).ravel(), strict=True):
        p = 0.0 if value <= 0 else 1 / (1 + math.exp(-2 * math.log(value / t)))
        assert found == pytest.approx(min(max(p, 0.02), 0.95), rel=1e-5)
    np.testing.assert_allclose(of_map(values, 0.0), np.where(values > 0, 0.95, 0.02))


def test_the_map_needs_no_mask_and_starts_half_at_its_top_share() -> None:
    values = np.random.default_rng(0).permutation(900).reshape(30, 30).astype(np.float32) / 900
    image = np.random.default_rng(1).integers(0, 255, (1, 30, 30), dtype=np.uint8)
    given = Pair(map=values, image=image, label=1, probability=0.9)
    for q in (0.1, 0.2, 0.5):
        done = dense_crf(given, unary="map", q=q, **STILL)
        assert done.mask is not None and done.mask.mean() == pytest.approx(q, abs=1e-3)
        assert done.threshold == pytest.approx(1 - q, abs=2e-3)
        np.testing.assert_array_equal(done.mask == 1, values > done.threshold)


def test_a_map_starts_at_the_threshold_of_the_step_before() -> None:
    start, image = scene()
    given = pair(start > 0.5, image, map=(start - 0.3).astype(np.float32))
    for chosen in (otsu, quantile):
        cut = chosen(replace(given, mask=None))
        done = dense_crf(cut, unary="map", q=0.9)
        wanted = OF_MAP.enlarged(max(given.map.shape) / 128)
        field = lattice_field(of_map(given.map, cut.threshold), image, wanted, 5)
        np.testing.assert_array_equal(done.mask, field > 0.5)
        assert done.threshold == cut.threshold


def test_the_share_may_be_of_the_lit_pixels() -> None:
    values = np.random.default_rng(0).random((40, 40)).astype(np.float32)
    image = np.random.default_rng(1).integers(0, 5, (3, 40, 40), np.uint8)  # as JPEG leaves it
    image[1, 10:30, 10:30] = 90  # a brain on black
    values *= image[1] > 5
    given = Pair(map=values, image=image, label=1, probability=0.9)
    mask = dense_crf(given, unary="map", within="lit", **STILL).mask
    assert mask is not None and mask[10:30, 10:30].mean() == pytest.approx(0.2, abs=0.01)


def test_one_channel_may_be_all_that_is_looked_at() -> None:
    start, image = scene()
    noise = np.random.default_rng(1).integers(0, 255, image.shape, dtype=np.uint8)
    mixed = np.concatenate([noise[:1], image[:1], noise[1:2]])
    given = pair(start > 0.5, mixed, map=(start - 0.3).astype(np.float32))
    alone = pair(start > 0.5, image[:1], map=given.map)
    for unary in ("mask", "map"):
        one = dense_crf(given, unary=unary, channel=1).mask
        np.testing.assert_array_equal(one, dense_crf(alone, unary=unary).mask)


def test_the_kernels_of_a_map_grow_with_the_picture() -> None:
    start, image = scene(size=64)
    given = pair(start > 0.5, image, map=(start - 0.3).astype(np.float32))
    found = dense_crf(given, unary="map").mask
    half = Kernels(**{**vars(OF_MAP), "gaussian_sxy": 1.0, "bilateral_sxy": 10.0})
    t = float(np.quantile(given.map, 0.8))
    np.testing.assert_array_equal(found, lattice_field(of_map(given.map, t), image, half, 5) > 0.5)
    assert half == OF_MAP.enlarged(0.5)


def test_a_map_of_which_nothing_is_left_gets_the_mask_before_or_otsus() -> None:
    values = np.zeros((48, 48), np.float32)
    values[::12, ::12] = 1.0  # single pixels on an even ground
    image = np.full((1, 48, 48), 80, np.uint8)
    given = Pair(map=values, image=image, label=1, probability=0.9)
    strong = dense_crf(given, unary="map", q=0.001, gaussian_compat=50.0)
    by_otsu = otsu(given)
    np.testing.assert_array_equal(strong.mask, by_otsu.mask)
    assert strong.threshold == by_otsu.threshold
    cut = fraction_of_maximum(given, fraction=0.9)
    kept = dense_crf(cut, unary="map", gaussian_compat=50.0)
    np.testing.assert_array_equal(kept.mask, cut.mask)
    assert kept.mask is not None and kept.mask.any()


@pytest.mark.parametrize("unary", ["mask", "map"])
@pytest.mark.parametrize("solver", ["lattice", "sampled"])
def test_every_way_finds_the_disk(unary: str, solver: str) -> None:
    start, image = scene()
    blurred = gaussian_filter((start > 0.5).astype(np.float32), 3)
    given = pair(start > 0.5, image, map=blurred)
    done = dense_crf(given, unary=unary, solver=solver, bilateral_srgb=10.0)
    truth = image.mean(0) > 125
    found = np.asarray(done.mask) == 1
    assert (found & truth).sum() / (found | truth).sum() > 0.9


def test_ignored_pixels_are_decided_by_the_image() -> None:
    _, image = scene()
    truth = image.mean(0) > 125
    mask = np.where(np.random.default_rng(0).random(truth.shape) < 0.5, 255, truth)
    found = np.asarray(dense_crf(pair(mask, image), bilateral_srgb=10.0).mask) == 1
    assert (found & truth).sum() / (found | truth).sum() > 0.9


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"certainty": 0.5}, "certainty = 0.5; it should be"),
        ({"certainty": 1.0}, "certainty = 1.0; it should be"),
        ({"iterations": 0}, "iterations = 0; it should be"),
        ({"unary": "both"}, "unary of step dense_crf 'both'; use one of: mask, map"),
        ({"levels": True, "unary": "map"}, "levels or keep with unary = map; use"),
        ({"keep": 0.5, "unary": "map"}, "levels or keep with unary = map; use"),
        ({"q": 0.0, "unary": "map"}, "q = 0.0; it should be"),
        ({"within": "brain"}, "within of step dense_crf 'brain'; use one of: picture, lit"),
        ({"channel": 3}, "channel = 3, but images have 3; count from 0"),
        ({"solver": "exact"}, "solver of step dense_crf 'exact'; use one of: lattice, sampled"),
    ],
)
def test_wrong_options_are_refused(options: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_chain([{"dense_crf": options}])(
            pair(np.ones((6, 5)), tiny()[1], map=np.eye(6, 5, dtype=np.float32))
        )


def test_an_empty_mask_stays_empty() -> None:
    given = pair(np.zeros((6, 5)), tiny()[1])
    assert dense_crf(given) is given


def two_disks() -> tuple[np.ndarray, np.ndarray]:
    """A map of two masks (1 and 0.6, a hole in the first), and an image that shows both."""
    y, x = np.mgrid[:48, :48]
    disks = [(y - 14) ** 2 + (x - middle) ** 2 < 64 for middle in (12, 36)]
    image = np.where(disks[0], 200, np.where(disks[1], 140, 60)).astype(np.uint8)[None]
    values = np.where(disks[0], 1.0, np.where(disks[1], 0.6, 0.0)).astype(np.float32)
    values[13:15, 11:13] = 0
    return values, image


def test_each_level_goes_through_alone_and_the_union_is_the_mask() -> None:
    values, image = two_disks()
    options = {"certainty": 0.731, "gaussian_compat": 7.0, "fill": True}
    done = dense_crf(pair(values > 0.5, image, map=values), levels=True, **options)
    parts = [
        dense_crf(pair(values == level, image, map=values), **options).mask == 1  # type: ignore[operator]
        for level in (np.float32(1), np.float32(0.6))
    ]
    np.testing.assert_array_equal(done.mask == 1, parts[0] | parts[1])
    assert parts[0][14, 12] and parts[1].any()


def test_a_level_that_the_image_does_not_bear_out_is_dropped_alone() -> None:
    values, image = two_disks()
    image[:, :, 24:] = 60  # nothing is to be seen where the second mask is
    values[:, 24:] = 0
    values[20:46:5, 26:46:5] = 0.6  # single pixels, which vanish
    given = pair(values > 0.5, image, map=values)
    done = dense_crf(given, levels=True, fill=True, keep=0.5, certainty=0.731)
    assert done.mask is not None
    assert done.mask[14, 12] and not done.mask[:, 24:].any()
    lost = np.where(values == np.float32(0.6), values, 0)
    nothing = dense_crf(pair(lost > 0.5, image, map=lost), levels=True, keep=0.5)
    assert nothing.mask is not None and not nothing.mask.any()
    kept = dense_crf(pair(lost > 0.5, image, map=lost), keep=0.5)  # without levels nothing is lost
    np.testing.assert_array_equal(kept.mask == 1, lost > 0.5)


def test_levels_of_a_map_of_many_values_are_refused() -> None:
    values = np.linspace(0.1, 1, 48 * 48, dtype=np.float32).reshape(48, 48)
    given = pair(values > 0.5, two_disks()[1], map=values)
    with pytest.raises(ConfigError, match=r"the map has \d+ values inside the mask; use"):
        dense_crf(given, levels=True)


def test_holes_are_filled_on_request() -> None:
    start, image = scene()
    mask = start > 0.5
    mask[22:26, 26:30] = False
    still = {"gaussian_compat": 0.0, "bilateral_compat": 0.0, "iterations": 1}
    assert not np.asarray(dense_crf(pair(mask, image), **still).mask)[24, 28]
    np.testing.assert_array_equal(
        dense_crf(pair(mask, image), fill=True, **still).mask == 1, start > 0.5
    )


def test_without_pydensecrf_the_sentence_names_the_other_solver(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    start, image = np.full((8, 8), 0.4, np.float32), np.zeros((1, 8, 8), np.uint8)
    with pytest.raises(ModelError, match=r"does not build on Python 3\.13.*solver: sampled"):
        lattice_field(start, image, Kernels(), 1)
    with pytest.raises(ModelError, match="solver: sampled"):  # before the first job
        make_chain([{"dense_crf": {"unary": "map"}}])
    make_chain([{"dense_crf": {"unary": "map", "solver": "sampled"}}])
