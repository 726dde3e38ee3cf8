"""The audit of the images: does a label show in what an image has beside its content?

A set in which the patients with a finding come of another hospital, another machine or another
collection can be told by its borders or by the shape of its files. A classifier learns that first,
and its maps then explain it. Users must see it before they train. What an image says beside its
content are few and plain features, whose numbers are our choice, so that a ridge regression on them
(:mod:`dollmaker.prepare.confounding`) says how much of a label they give away.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from dollmaker.config.whole import Config
from dollmaker.pixels.geometry import Box, Fit, box, inside
from dollmaker.prepare.confounding import predictability
from dollmaker.store import provenance, tables
from dollmaker.store.depth import to_eight_bits
from dollmaker.store.index import read_index
from dollmaker.store.shards import Shard

Floats = npt.NDArray[np.float32]

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

#: Images that are read at a time.
_BLOCK = 256


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
    rows = audit(
        np.concatenate([border, shape], axis=1),
        border.shape[1],
        labels={name: _labels(index[name], config.classify.blank) for name in names},
        patients=index["patient_id"].to_list(),
        seed=config.seed,
    )
    settings = {"fit": config.prepare.fit, "blank": config.classify.blank}
    header = provenance.header("audit", settings, seed=config.seed)
    tables.write(pl.DataFrame(rows, schema=_ROW, orient="row"), output, header)
    for sentence in warnings(rows):
        print(sentence, file=sys.stderr)


_ROW: dict[str, Any] = {
    "finding": pl.String,
    "part": pl.String,
    "images": pl.Int64,
    "positives": pl.Int64,
    "patients": pl.Int64,
    "auc": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "alarming": pl.Boolean,
}


def _borders(index: pl.DataFrame, folder: Path, fit: Fit) -> Iterator[npt.NDArray[np.float32]]:
    """Features of the borders, block by block in the order of the index."""
    for (name,), mine in index.group_by("shard", maintain_order=True):
        with Shard(folder / f"{name}.h5", "images") as shard:
            for block in mine.iter_slices(_BLOCK):
                pixels = shard.read("image", block["row"].to_list())
                widths, heights = (block[side].to_numpy() for side in ("width", "height"))
                yield border_features(pixels, widths, heights, fit)


def _labels(column: pl.Series, blank: str) -> npt.NDArray[np.int8]:
    """Labels as they are learned: 1, 0, and -1 for what does not count."""
    return column.fill_null(0 if blank == "zeros" else -1).to_numpy().astype(np.int8)


def audit(
    features: npt.NDArray[np.float32],
    split: int,
    *,
    labels: dict[str, npt.NDArray[np.int8]],
    patients: Sequence[str],
    seed: int,
) -> list[dict[str, Any]]:
    """How well features predict labels.

    Args:
        features: (N, P).
        split: Number of columns that are of the border; the rest is of the shape.
        labels: Finding -> (N) of 1 and 0; other values do not count.
        patients: Patient of each row.
        seed: Seed of the intervals.

    Returns:
        One row a finding and part. AUCs have four digits.
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


def border_features(
    images: npt.NDArray[Any],
    widths: npt.NDArray[Any],
    heights: npt.NDArray[Any],
    fit: Fit,
) -> Floats:
    """The border of pictures: the outer 4 %, inside the bars of a letterbox.

    Args:
        images: (N, C, S, S) in levels, pictures in their squares; 8 bits of them count.
        widths: Width of each source in pixels (N).
        heights: Height of each source in pixels (N).
        fit: How the sources lie in the squares.

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
        *(np.stack([black.mean(axis=1), white.mean(axis=1)], axis=1),),
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


def shape_features(widths: npt.NDArray[Any], heights: npt.NDArray[Any]) -> Floats:
    """Shape and size of the source files, by their widths and heights in pixels (N).

    Returns:
        (N, 6): aspect ratio (width / height), its logarithm and the size of that (how far from
        square), the logarithms of width, height and number of pixels.
    """
    wide, high = np.log(np.asarray(widths, float)), np.log(np.asarray(heights, float))
    ratio = wide - high
    columns = [np.exp(ratio), ratio, np.abs(ratio), wide, high, wide + high]
    return np.column_stack(columns).astype(np.float32)
