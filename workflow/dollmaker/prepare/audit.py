"""The audit of the images: does a label show in what an image has beside its content?

A set in which the patients with a finding come of another hospital, another machine or another
collection can be told by its borders or by the shape of its files. A classifier learns that first,
and its maps then explain it. Users must see it before they train.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from dollmaker.config.whole import Config
from dollmaker.pixels.geometry import Fit
from dollmaker.prepare.border import border_features, shape_features
from dollmaker.prepare.confounding import predictability
from dollmaker.store import provenance, tables
from dollmaker.store.index import read_index
from dollmaker.store.shards import Shard

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
