"""The audit: planted confounders are found, absent ones are not, patients stay in one part."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from dollmaker.config import settings as config
from dollmaker.config.whole import Config
from dollmaker.launch import pipeline
from dollmaker.pixels.geometry import Fit, box
from dollmaker.prepare import audit as module
from dollmaker.prepare.audit import (
    FOLDS,
    audit,
    border_features,
    deal,
    predictability,
    resampled,
    ridge,
    shape_features,
    warnings,
)
from dollmaker.runtime import cli
from dollmaker.store import provenance, tables
from dollmaker.store.shards import Shard, create_shard

IMAGES = 240
SIZE = 32


def moments(features: npt.NDArray[Any], labels: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    rows = np.column_stack([np.ones(len(labels)), features, labels])
    return rows.T @ rows


def test_ridge_agrees_with_the_definition() -> None:
    """The normal equations and the hat matrix, written out, for every penalty."""
    rng = np.random.default_rng(0)
    features = rng.normal(3, 2, (60, 5)) * [1, 10, 0.1, 1, 1]
    labels = (features[:, 0] + rng.normal(size=60) > 3).astype(float)
    scaled = (features - features.mean(axis=0)) / features.std(axis=0)
    centred, best = labels - labels.mean(), (np.inf, np.zeros(5))
    for penalty in 60 * module._PENALTIES:
        inverse = np.linalg.inv(scaled.T @ scaled + penalty * np.eye(5))
        hat = scaled @ inverse @ scaled.T
        left = np.square(centred - hat @ centred).sum()
        criterion = left / (60 - 1 - np.trace(hat)) ** 2
        best = min(best, (criterion, inverse @ scaled.T @ centred), key=lambda pair: pair[0])
    centre, weights = ridge(moments(features, labels))
    np.testing.assert_allclose(centre, features.mean(axis=0))
    np.testing.assert_allclose(weights, best[1] / features.std(axis=0), rtol=1e-6, atol=1e-9)


def test_a_feature_that_does_not_vary_has_no_weight() -> None:
    rng = np.random.default_rng(1)
    features = np.column_stack([np.full(50, 5.7), rng.normal(size=50)])
    _, weights = ridge(moments(features, (features[:, 1] > 0).astype(float)))
    assert weights[0] == 0 and weights[1] > 0


def test_patients_are_dealt_whole_and_evenly() -> None:
    rng = np.random.default_rng(2)
    patients = [f"p{n}" for n in rng.integers(0, 60, 400)]
    positive = rng.random(400) < 0.2
    parts = deal(patients, positive)
    assert parts is not None and set(parts) == set(range(FOLDS))
    of_patient = dict(zip(patients, parts, strict=True))
    assert [of_patient[patient] for patient in patients] == parts.tolist()
    for kind in (True, False):
        holders = {patient for patient, yes in zip(patients, positive, strict=True) if yes == kind}
        counts = np.bincount([of_patient[patient] for patient in holders], minlength=FOLDS)
        assert np.ptp(counts) <= 1
    order = rng.permutation(400)
    again = deal([patients[n] for n in order], positive[order])
    assert again is not None and np.array_equal(again, parts[order])
    assert deal([f"p{n}" for n in range(9)], np.arange(9) < 5) is None
    slices = deal([f"p{n // 2}" for n in range(12)], np.arange(12) % 2 == 0)  # all have both
    assert slices is not None and set(slices) == set(range(FOLDS))


def test_what_a_patient_shows_in_all_images_is_not_learned() -> None:
    """A random feature that all images of a patient share tells nothing of other patients."""
    rng = np.random.default_rng(3)
    patients = np.repeat(np.arange(40), 25)
    features = rng.normal(size=(40, 30))[patients].astype(np.float32)
    labels = (rng.random(40) < 0.5).astype(np.int8)[patients]
    names = [str(n) for n in patients]
    (whole,) = predictability(features, labels, names, [range(30)], 0)
    assert whole.low < 0.5 < whole.high
    # Without the patients, as if every image were another's, it tells all.
    each = [str(n) for n in range(1000)]
    assert predictability(features, labels, each, [range(30)], 0)[0].point > 0.95


def made(seed: int = 0, tell: float = 0.0) -> tuple[npt.NDArray[np.float32], Any, list[str]]:
    """Features of 20 columns, of which the first follows the label as much as told."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, IMAGES).astype(np.int8)
    features = rng.normal(size=(IMAGES, 20)).astype(np.float32)
    features[:, 0] += tell * labels
    return features, labels, [f"p{n // 2}" for n in range(IMAGES)]


def test_a_planted_confounder_is_found_where_it_is() -> None:
    features, labels, patients = made(tell=8)
    rows = audit(features, 15, labels={"F": labels}, patients=patients, seed=0)
    found = {row["part"]: row for row in rows}
    assert found["border"]["auc"] > 0.98 and found["border"]["alarming"]
    assert found["both"]["auc"] > 0.98 and found["both"]["alarming"]
    assert found["shape"]["low"] < 0.5 < found["shape"]["high"] and not found["shape"]["alarming"]
    counts = {"images": IMAGES, "positives": int(labels.sum()), "patients": IMAGES // 2}
    assert all(row | counts == row for row in rows)
    first, remedy = warnings(rows)
    assert "the border alone tells 'F' with AUC 1.00 [" in first and "confounding.md" in remedy


def test_noise_predicts_nothing() -> None:
    """Over many draws the AUC is 0.5 in the mean, and the interval misses it about as it may."""
    found = []
    for seed in range(40):
        features, labels, patients = made(seed)
        found += predictability(features, labels, patients, [range(20)], seed)
    points = np.array([interval.point for interval in found])
    assert abs(points.mean() - 0.5) < 0.02
    assert sum(interval.low > 0.5 for interval in found) <= 4
    features, labels, patients = made()
    assert warnings(audit(features, 15, labels={"F": labels}, patients=patients, seed=0)) == []


def test_labels_that_nothing_can_be_said_of_are_null() -> None:
    features, labels, patients = made(tell=8)
    few = np.zeros(IMAGES, np.int8)
    few[:8] = 1  # of four patients
    kinds = {"none": 0 * labels, "all": 0 * labels + 1, "few": few, "unknown": 0 * labels - 1}
    for row in audit(features, 15, labels=kinds, patients=patients, seed=0):
        assert np.isnan([row["auc"], row["low"], row["high"]]).all() and not row["alarming"]
    alike = np.ones((IMAGES, 4), np.float32)
    (nothing,) = predictability(alike, labels, patients, [range(4)], 0)
    assert np.isnan(nothing.point)


def test_labels_that_are_not_known_do_not_count() -> None:
    features, labels, patients = made(tell=3)
    unknown = np.random.default_rng(5).random(IMAGES) < 0.3
    some = np.where(unknown, -1, labels).astype(np.int8)
    kept = [patient for patient, no in zip(patients, unknown, strict=True) if not no]
    wanted = predictability(features[~unknown], labels[~unknown], kept, [range(20)], 0)
    assert predictability(features, some, patients, [range(20)], 0) == wanted


def test_only_the_best_part_speaks_and_both_only_when_alone() -> None:
    row = {"low": 0.7, "high": 0.9, "alarming": True}
    rows = [
        {"finding": "A", "part": "border", "auc": 0.75, **row},
        {"finding": "A", "part": "shape", "auc": 0.8, **row},
        {"finding": "A", "part": "both", "auc": 0.9, **row},
        {"finding": "B", "part": "border", "auc": 0.9, **row, "alarming": False},
        {"finding": "C", "part": "both", "auc": 0.8, **row},
    ]
    first, second, _ = warnings(rows)
    assert first.startswith("audit: shape and size of the files alone tell 'A' with AUC 0.80 [0.70")
    assert second.startswith("audit: border, shape and size of the files together tell 'C'")


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """Two shards of images whose sources are wide where the finding is, and one row left out."""
    rng = np.random.default_rng(6)
    labels = [int(n) for n in rng.integers(0, 2, IMAGES)]
    header, half = provenance.header("prepare", {}), IMAGES // 2
    for shard in range(2):
        with create_shard(tmp_path / f"images/000{shard}.h5", "images", header) as writer:
            pixels = rng.integers(0, 255, (half, 1, SIZE, SIZE), dtype=np.uint8)
            writer.append({"image_id": [f"{shard}-{n}" for n in range(half)]}, image=pixels)
    index = pl.DataFrame(
        {
            "image_id": [f"{n // half}-{n % half}" for n in range(IMAGES)],
            "patient_id": [f"p{n}" for n in range(IMAGES)],
            "width": [120 if label else 90 for label in labels],
            "height": [100] * IMAGES,
            "shard": [f"000{n // half}" for n in range(IMAGES)],
            "row": [n % half for n in range(IMAGES)],
            "wide": pl.Series([1 if label else None for label in labels], dtype=pl.Int8),
            "other": pl.Series(rng.permuted([-1, 0, 1] * (IMAGES // 3)), dtype=pl.Int8),
        }
    )
    kept = index.filter(pl.col("row") != 7).sample(fraction=1.0, shuffle=True, seed=0)
    tables.write(kept, tmp_path / "index.parquet", {**header, "findings": ["wide", "other"]})
    return tmp_path


def settings(blank: str) -> str:
    source = {"file": "t.csv", "images": "i", "image_column": "a", "label_column": "b"}
    full = config.resolved(
        {
            "dataset": "x",
            "source": {"kind": "table", "table": source},
            "classify": {"blank": blank},
        }
    ).dump()
    return pipeline.stage_config(Config.model_validate(full), "audit")


def run(folder: Path, blank: str) -> dict[tuple[str, str], dict[str, Any]]:
    words = ["prepare-audit", "--config", settings(blank), "--index", f"{folder}/index.parquet"]
    words += ["--images", f"{folder}/images", "--output", f"{folder}/audit.parquet"]
    assert cli.main(words) == 0
    rows = tables.read(folder / "audit.parquet").to_dicts()
    return {(row["finding"], row["part"]): row for row in rows}


def test_the_command(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(prepared, "zeros")
    assert len(found) == 6
    wide = found["wide", "shape"]
    assert (wide["auc"], wide["alarming"], wide["images"]) == (1.0, True, IMAGES - 2)
    assert not found["wide", "border"]["alarming"] and not found["other", "both"]["alarming"]
    assert found["other", "shape"]["images"] < 0.7 * IMAGES
    said = capsys.readouterr().err
    assert "shape and size of the files alone tell 'wide' with AUC 1.00 [1.00, 1.00]." in said
    assert "'other'" not in said
    header = tables.read_header(prepared / "audit.parquet")
    assert header["stage"] == "audit" and header["config"]["blank"] == "zeros"


def test_labels_that_are_not_mentioned_count_as_they_are_learned(prepared: Path) -> None:
    found = run(prepared, "ignore")
    wide = found["wide", "shape"]
    assert wide["images"] == wide["positives"] and np.isnan(wide["auc"])


def test_images_and_labels_of_the_index_are_joined_by_shard_and_row(prepared: Path) -> None:
    index = tables.read(prepared / "index.parquet").sort("shard", "row")
    blocks = list(module._borders(index, prepared / "images", "resize"))
    means = np.concatenate(blocks)[:, 4 * 32]
    with Shard(prepared / "images/0001.h5", "images") as shard:
        picture = shard.read("image", 119)[0]
    ring = np.ones((SIZE, SIZE), bool)
    ring[1:-1, 1:-1] = False
    assert index.row(-1, named=True)["image_id"] == "1-119"
    assert means[-1] == pytest.approx(picture[ring].mean(), rel=1e-5)


def test_shape_alone_of_images_of_one_shape_is_null() -> None:
    _, labels, patients = made()
    shapes = shape_features(np.full(IMAGES, 320), np.full(IMAGES, 256))
    (nothing,) = predictability(shapes, labels, patients, [range(6)], 0)
    assert np.isnan(nothing.point)


SQUARE = 50
VALUES = 32


def borders(image: npt.NDArray[np.uint8], width: int, height: int, fit: Fit) -> list[float]:
    """The definition, pixel by pixel, of one image (C, S, S)."""
    left, top, right, bottom = box(width, height, image.shape[-1], fit)
    depth = max(1, round(0.04 * min(right - left, bottom - top)))
    rows, columns = range(top, bottom), range(left, right)
    sides = [
        [[(y, x) for y in rows[:depth]] for x in columns],
        [[(y, x) for y in rows[-depth:]] for x in columns],
        [[(y, x) for x in columns[:depth]] for y in rows],
        [[(y, x) for x in columns[-depth:]] for y in rows],
    ]
    ring = sorted({place for side in sides for line in side for place in line})
    found = []
    for side in sides:
        for channel in image:
            line = [float(np.mean([channel[place] for place in places])) for places in side]
            fine = np.repeat(line, VALUES)  # every part of a line is as many of its pieces
            found += fine.reshape(VALUES, -1).mean(axis=1).tolist()
    pixels = np.array([[channel[place] for place in ring] for channel in image], float)
    found += [*pixels.mean(axis=1), *pixels.std(axis=1)]
    return [*found, (pixels <= 8).all(axis=0).mean(), (pixels >= 247).all(axis=0).mean()]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("fit", ["letterbox", "resize", "crop"])
def test_the_border_by_hand(channels: int, fit: Fit) -> None:
    sources = [(90, 60), (60, 90), (300, 4), (75, 75), (90, 60)]
    rng = np.random.default_rng(0)
    levels = np.array([0, 5, 8, 9, 120, 246, 247, 255], np.uint8)
    images = rng.choice(levels, (len(sources), channels, SQUARE, SQUARE))
    images[0] = 3
    widths, heights = np.array(sources).T
    ours = border_features(images, widths, heights, fit)
    wanted = [borders(image, *source, fit) for image, source in zip(images, sources, strict=True)]
    np.testing.assert_allclose(ours, wanted, rtol=1e-4, atol=1e-3)


def test_what_lies_within_and_in_the_bars_is_not_looked_at() -> None:
    image = np.random.default_rng(1).integers(0, 255, (1, 1, SQUARE, SQUARE), dtype=np.uint8)
    other = image.copy()
    left, top, right, bottom = box(90, 60, SQUARE, "letterbox")
    other[..., :top, :] = other[..., bottom:, :] = 200
    other[..., top + 1 : bottom - 1, left + 1 : right - 1] = 7
    source = np.array([90]), np.array([60])
    one, two = (border_features(pixels, *source, "letterbox") for pixels in (image, other))
    assert np.array_equal(one, two)


@pytest.mark.parametrize("length", [1, 2, 31, 32, 33, 100])
def test_a_line_is_resampled_by_parts_of_equal_length(length: int) -> None:
    values = np.random.default_rng(2).normal(size=(3, length)).astype(np.float32)
    fine = np.repeat(values, VALUES, axis=1).reshape(3, VALUES, length)
    np.testing.assert_allclose(resampled(values), fine.mean(axis=2), atol=1e-5)


def test_shapes_by_hand() -> None:
    found = shape_features(np.array([200, 100]), np.array([100, 200]))
    ln = np.log
    wanted = [[2, ln(2), ln(2), ln(200), ln(100), ln(2e4)]]
    wanted += [[0.5, -ln(2), ln(2), ln(100), ln(200), ln(2e4)]]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
