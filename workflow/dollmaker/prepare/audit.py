"""The audit of the images: does a label show in what an image has beside its content?

A set in which the patients with a finding come of another hospital, another machine or another
collection can be told by its borders or by the shape of its files. A classifier learns that first,
and its maps then explain it. Users must see it before they train. What an image says beside its
content are few and plain features, whose numbers are our choice. How much of a label they give away
says a ridge regression (Hoerl and Kennard 1970) with its penalty by generalised cross-validation
(Golub et al. 1979), fitted on four fifths of the patients and scored on the last, five times.
"""

import hashlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from dollmaker.config.whole import Config
from dollmaker.measures.scores import Interval, auroc_interval
from dollmaker.pixels.geometry import Box, Fit, box, inside
from dollmaker.store import provenance, tables
from dollmaker.store.depth import to_eight_bits
from dollmaker.store.shards import Array, Shard
from dollmaker.store.tables import read_index

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: Width of the border as a share of the picture's shorter side.
_DEPTH = 0.04

#: Values that each of the four sides is resampled to.
_VALUES = 32

#: Pixels up to the first count as black, from the second as white.
_BLACK, _WHITE = 8, 247

#: What is looked at -> as a sentence calls it.
PARTS = {
    "border": "the border alone tells",
    "shape": "shape and size of the files alone tell",
    "both": "border, shape and size of the files together tell",
}

_REMEDY = (
    "audit: unless the finding itself reaches the border, a classifier can learn where images come "
    "from instead of it; take images with and without it from the same sources and views, see "
    "docs/explanation/confounding.md."
)

#: An AUC from the first on, whose interval begins above the second, is alarming.
_ALARMING, _SURELY = 0.7, 0.6

#: Images that are read at a time, and rows that are held in double precision.
_BLOCK, _ROWS = 256, 8192

#: Parts that the patients are dealt into.
FOLDS = 5

#: Penalties that are tried, for each image and feature of unit variance.
_PENALTIES = np.logspace(-5, 3, 33)

#: Replicates of the bootstrap over patients, whose price at 224,000 images is minutes.
_REPLICATES = 300


def audit_images(config: Config, index_file: Path, images: Path, output: Path) -> None:
    """Tell how well border and shape predict each label; warn of those that they give away.

    Labels are those that classifiers learn: uncertain ones do not count, and those that are not
    mentioned are absent where ``classify.blank`` says so.

    Args:
        config: The resolved configuration.
        index_file: The index.
        images: Folder of the image shards.
        output: The table to write, one row a finding and part: images, positives, patients, auc
            with low and high (NaN where it cannot be said), alarming.
    """
    index, names = read_index(index_file)
    index = index.sort("shard", "row")
    border = np.concatenate(list(_borders(index, images, config.prepare.fit)))
    shape = shape_features(index["width"].to_numpy(), index["height"].to_numpy())
    blank = 0 if config.classify.blank == "zeros" else -1  # which does not count
    rows = audit(
        np.concatenate([border, shape], axis=1),
        border.shape[1],
        labels={name: index[name].fill_null(blank).to_numpy().astype(np.int8) for name in names},
        patients=index["patient_id"].to_list(),
        seed=config.seed,
    )
    settings = {"fit": config.prepare.fit, "blank": config.classify.blank}
    header = provenance.header("audit", settings, seed=config.seed)
    tables.write(pl.DataFrame(rows, schema=_ROW, orient="row"), output, header)
    for sentence in warnings(rows):
        print(sentence, file=sys.stderr)


_ROW: dict[str, Any] = {
    **dict.fromkeys(("finding", "part"), pl.String),
    **dict.fromkeys(("images", "positives", "patients"), pl.Int64),
    **dict.fromkeys(("auc", "low", "high"), pl.Float64),
    "alarming": pl.Boolean,
}


def _borders(index: pl.DataFrame, folder: Path, fit: Fit) -> Iterator[Floats]:
    """Features of the borders, block by block in the order of the index."""
    for (name,), mine in index.group_by("shard", maintain_order=True):
        with Shard(folder / f"{name}.h5", "images") as shard:
            for block in mine.iter_slices(_BLOCK):
                pixels = shard.read("image", block["row"].to_list())
                widths, heights = (block[side].to_numpy() for side in ("width", "height"))
                yield border_features(pixels, widths, heights, fit)


def audit(
    features: Floats,
    split: int,
    *,
    labels: dict[str, npt.NDArray[np.int8]],
    patients: Sequence[str],
    seed: int,
) -> list[dict[str, Any]]:
    """How well features (N, P) predict labels, one row a finding and part; AUCs have four digits.

    Args:
        features: (N, P), first of the border, then of the shape.
        split: Number of columns that are of the border.
        labels: Finding -> (N) of 1 and 0; other values do not count.
        patients: Patient of each row.
        seed: Seed of the intervals.
    """
    width = features.shape[1]
    columns = {"border": range(split), "shape": range(split, width), "both": range(width)}
    people = np.asarray(patients, object)
    rows = []
    for name, label in labels.items():
        known = np.isin(label, (0, 1))
        facts = {
            "finding": name,
            "images": int(known.sum()),
            "positives": int((label == 1).sum()),
            "patients": len(set(people[known])),
        }
        found = predictability(features, label, patients, list(columns.values()), seed)
        for part, interval in zip(columns, found, strict=True):
            auc, low, high = (round(float(value), 4) for value in interval)
            alarming = auc >= _ALARMING and low > _SURELY
            row = {"part": part, "auc": auc, "low": low, "high": high, "alarming": alarming}
            rows.append({**facts, **row})
    return rows


def warnings(rows: Sequence[dict[str, Any]]) -> list[str]:
    """One sentence for each finding that is given away, and a last one on what to do.

    The part that gives it away best speaks; ``both`` only where neither part is alarming alone.
    """
    sentences = []
    for name in dict.fromkeys(row["finding"] for row in rows):
        mine = [row for row in rows if row["finding"] == name and row["alarming"]]
        alone = [row for row in mine if row["part"] != "both"] or mine
        if alone:
            worst = max(alone, key=lambda row: row["auc"])
            interval = f"[{worst['low']:.2f}, {worst['high']:.2f}]"
            said = f"{PARTS[worst['part']]} {name!r} with AUC {worst['auc']:.2f} {interval}."
            sentences.append(f"audit: {said}")
    return [*sentences, _REMEDY] if sentences else []


def border_features(images: Array, widths: Array, heights: Array, fit: Fit) -> Floats:
    """The border of pictures: the outer 4 %, inside the bars of a letterbox.

    Images are (N, C, S, S) in levels, of which 8 bits count; widths and heights, those of the
    sources in pixels (N), tell where pictures lie in their squares.

    Returns:
        (N, 4 * 32 * C + 2 * C + 2), of each channel the mean over the depth along the upper, lower,
        left and right side, then mean and deviation of the border, 0..255; then the shares of it
        that are black and white, 0..1.
    """
    images = to_eight_bits(images)
    count, channels, size = images.shape[:3]
    features = np.zeros((count, (4 * _VALUES + 2) * channels + 2), np.float32)
    shapes = np.column_stack([widths, heights]).astype(np.int64)
    kinds, kind = np.unique(shapes, axis=0, return_inverse=True)
    for number, (width, height) in enumerate(kinds.tolist()):
        rows = np.flatnonzero(kind.reshape(-1) == number)
        features[rows] = _of_one_shape(images[rows], box(width, height, size, fit))
    return features


def _of_one_shape(images: npt.NDArray[np.uint8], where: Box) -> Floats:
    pictures = inside(images, where)
    depth = max(1, round(_DEPTH * min(pictures.shape[-2:])))
    strips = [
        pictures[..., :depth, :],
        pictures[..., -depth:, :],
        pictures[..., :depth].swapaxes(-1, -2),
        pictures[..., -depth:].swapaxes(-1, -2),
    ]
    profiles = [resampled(strip.mean(axis=-2, dtype=np.float32)) for strip in strips]
    upright = [strip[..., depth:-depth] for strip in strips[2:]]  # the corners are in the first two
    ring = np.concatenate(
        [part.reshape(*part.shape[:2], -1) for part in (*strips[:2], *upright)], axis=2
    )
    black, white = (ring <= _BLACK).all(axis=1), (ring >= _WHITE).all(axis=1)
    columns = [
        *(profile.reshape(len(images), -1) for profile in profiles),
        *(ring.mean(axis=2, dtype=np.float32), ring.std(axis=2, dtype=np.float32)),
        np.stack([black.mean(axis=1), white.mean(axis=1)], axis=1),
    ]
    return np.concatenate(columns, axis=1, dtype=np.float32)


def resampled(values: Floats, count: int = _VALUES) -> Floats:
    """Lines (..., L) as ``count`` values: the mean of each of as many parts of equal length."""
    length = values.shape[-1]
    total = np.zeros((*values.shape[:-1], length + 1))
    np.cumsum(values, axis=-1, out=total[..., 1:], dtype=np.float64)
    edges = np.linspace(0, length, count + 1)
    first = np.minimum(edges.astype(np.int64), length - 1)
    at = total[..., first] + (edges - first) * values[..., first]
    return np.asarray(np.diff(at, axis=-1) * (count / length), np.float32)


def shape_features(widths: Array, heights: Array) -> Floats:
    """Shape and size of the source files, by their widths and heights in pixels (N).

    Returns:
        (N, 6): aspect ratio (width / height), its logarithm and the size of that (how far from
        square), the logarithms of width, height and number of pixels.
    """
    wide, high = np.log(np.asarray(widths, float)), np.log(np.asarray(heights, float))
    ratio = wide - high
    columns = [np.exp(ratio), ratio, np.abs(ratio), wide, high, wide + high]
    return np.column_stack(columns).astype(np.float32)


def predictability(
    features: Floats,
    labels: npt.NDArray[np.int8],
    patients: Sequence[str],
    parts: Sequence[Sequence[int]],
    seed: int,
) -> list[Interval]:
    """AUC with which sets of features predict a label, with 95 % intervals over patients.

    Args:
        features: (N, P).
        labels: (N) of 1 and 0; other rows are left out.
        patients: Patient of each row.
        parts: Sets of columns of the features.
        seed: Seed of the bootstrap.

    Returns:
        One interval for each set: NaN where fewer than five patients have an image with the label,
        or one without it, and where none of the features varies.
    """
    known = np.isin(labels, (0, 1))
    truth, people = labels[known].astype(np.float64), np.asarray(patients, object)[known]
    found = [Interval(np.nan, np.nan, np.nan)] * len(parts)
    fold = deal(people.tolist(), truth > 0)
    if fold is None:
        return found
    rows = np.flatnonzero(known)
    moments = _moments(features, rows, truth, fold)
    groups = np.unique(people.astype(str), return_inverse=True)[1]
    for k, columns in enumerate(parts):
        scores = _scores(features, rows, fold, moments, np.asarray(columns))
        if scores.any():
            found[k] = auroc_interval(truth, scores, groups, replicates=_REPLICATES, seed=seed)
    return found


def deal(patients: Sequence[str], positive: npt.NDArray[np.bool_]) -> Ints | None:
    """Deal patients into parts, evenly those with a positive image and those with a negative one.

    They are dealt one after the other: first those with positive images alone, last those with
    negative ones alone, so that both kinds are runs. Within these the order is that of a hash of
    the patient, so that it follows nothing in the table.

    Returns:
        The part of each row, 0..4 (N); ``None`` if there are too few patients of either kind for
        every part to have one.
    """
    pairs = list(zip(patients, positive.tolist(), strict=True))
    with_one = {patient for patient, yes in pairs if yes}
    without = {patient for patient, yes in pairs if not yes}
    if min(len(with_one), len(without)) < FOLDS:
        return None
    groups = (with_one - without, with_one & without, without - with_one)
    order = [patient for group in groups for patient in sorted(group, key=_place)]
    dealt = {patient: n % FOLDS for n, patient in enumerate(order)}
    return np.array([dealt[patient] for patient in patients])


def _place(patient: str) -> str:
    return hashlib.sha256(f"dollmaker audit {patient}".encode()).hexdigest()


def _moments(features: Floats, rows: Ints, truth: Doubles, fold: Ints) -> Doubles:
    """Sums of products of (1, features, label) over the rows of each part, (5, P + 2, P + 2)."""
    width = features.shape[1] + 2
    moments = np.zeros((FOLDS, width, width))
    for part in range(FOLDS):
        mine = np.flatnonzero(fold == part)
        for start in range(0, len(mine), _ROWS):
            chosen = mine[start : start + _ROWS]
            block = np.column_stack([np.ones(len(chosen)), features[rows[chosen]], truth[chosen]])
            moments[part] += block.T @ block
    return moments


def _scores(features: Floats, rows: Ints, fold: Ints, moments: Doubles, columns: Ints) -> Doubles:
    """What a regression on the other parts says of each row, as a deviation from their mean.

    The mean of the labels in those parts is left out: where a part has more positives than its
    share the others have fewer, so that it would order the rows against their labels.
    """
    chosen = [0, *(columns + 1).tolist(), moments.shape[1] - 1]
    mine = moments[:, chosen][:, :, chosen]
    scores = np.zeros(len(rows))
    for part in range(FOLDS):
        held = np.flatnonzero(fold == part)
        centre, weights = ridge(mine.sum(axis=0) - mine[part])
        for start in range(0, len(held), _ROWS):
            block = held[start : start + _ROWS]
            scores[block] = (features[rows[block]][:, columns] - centre) @ weights
    return scores


def ridge(moments: Doubles) -> tuple[Doubles, Doubles]:
    """A ridge regression from Z'Z of the rows Z = (1, features, label), (P + 2, P + 2).

    Features are scaled to unit variance, one that does not vary has no weight. The penalty is the
    one of the least n RSS / (n - 1 - t)^2, t the effective number of features.

    Returns:
        The features' means (P), and their weights (P): label - its mean = (features - means) w.
    """
    count, mean = moments[0, 0], moments[0, 1:] / moments[0, 0]
    spread = moments[1:, 1:] - count * np.outer(mean, mean)
    variance = np.diag(spread)[:-1] / count
    # A constant column leaves rounding errors of its squares.
    varies = variance > 1e-9 * (1 + mean[:-1] ** 2)
    scale = np.where(varies, 1 / np.sqrt(np.where(varies, variance, 1)), 0)
    values, vectors = np.linalg.eigh(spread[:-1, :-1] * np.outer(scale, scale))
    values = values.clip(0)
    along, total = vectors.T @ (spread[:-1, -1] * scale), spread[-1, -1]
    penalty = count * _PENALTIES[:, None]
    shares = values / (values + penalty)
    left = total - (along**2 / (values + penalty) * (2 - shares)).sum(axis=1)
    criterion = left / (count - 1 - shares.sum(axis=1)).clip(1e-9) ** 2
    best = penalty[int(np.argmin(criterion))]
    return mean[:-1], scale * (vectors @ (along / (values + best)))
