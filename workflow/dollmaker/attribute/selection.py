"""Which image-finding pairs are explained: those of the data set, and those of the sample."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from dollmaker.classify.labels import label_matrix
from dollmaker.config.masks import AttributeConfig, SampleConfig
from dollmaker.runtime.errors import DataError
from dollmaker.runtime.picks import evenly
from dollmaker.store.findings import ABSENT, BLANK, PRESENT


def select_images(
    index: pl.DataFrame, findings: Sequence[str], options: AttributeConfig
) -> pl.DataFrame:
    """The images to look at: of the configured splits, at most ``max_images`` of each.

    They are chosen from the whole index, whatever the number of shards. With a limit, images with a
    positive label of a finding are taken, spread evenly over the index.
    """
    chosen = index.filter(pl.col("split").is_in(options.splits))
    limit = options.max_images
    if options.with_truth:
        chosen = chosen.filter(pl.col("mask").is_not_null())
    if options.min_probability is None:
        positive = (label_matrix(chosen, findings) == PRESENT).any(1)
        chosen = chosen.filter(pl.Series(positive))
    if limit is None:
        return chosen
    parts = []
    for split in options.splits:
        rows = chosen.filter(pl.col("split") == split)
        parts.append(rows[evenly(len(rows), limit)] if len(rows) else rows)
    return pl.concat(parts).sort("shard", "row")


def select_pairs(
    labels: npt.NDArray[np.int8],
    probabilities: npt.NDArray[np.float32],
    min_probability: float | None,
) -> npt.NDArray[np.bool_]:
    """Pairs to explain: label present, or the committee's probability high enough; all (N, K)."""
    chosen = labels == PRESENT
    if min_probability is not None:
        chosen = chosen | (probabilities >= min_probability)
    return np.asarray(chosen)


def draw_negatives(
    index: pl.DataFrame, names: Sequence[str], count: int, seed: int
) -> pl.DataFrame:
    """At most so many training images without any of some findings, by a hash of their ids.

    Those where one is known to be absent come first, those where nothing is known are the last
    resort.

    Raises:
        DataError: If there is none.
    """
    training = index.filter(split="train")
    labels = label_matrix(training, names)
    clear, known = (labels != PRESENT).all(1), (labels == ABSENT).any(1)
    free = training.filter(pl.Series(clear & known if (clear & known).any() else clear))
    if not len(free):
        raise DataError(
            f"every training image has one of {', '.join(names)}, so that the baseline negatives "
            "has no image; choose other baselines for the recipe."
        )
    ids = free["image_id"].to_list()
    first = sorted(range(len(ids)), key=lambda row: _key(f"{seed}/negative/{ids[row]}"))[:count]
    return free[sorted(first)]


def _key(text: str) -> bytes:
    """What a draw sorts by."""
    return hashlib.sha256(text.encode()).digest()


@dataclass(frozen=True, order=True)
class Drawn:
    """A pair of the sample: row of the index, number and name of the finding."""

    row: int
    number: int
    finding: str
    positive: bool
    checked: bool


def draw_pairs(
    index: pl.DataFrame, names: Sequence[str], options: SampleConfig, seed: int
) -> list[Drawn]:
    """The pairs of the sample, by row of the whole index, for the findings that are localized.

    They are drawn by a hash of (seed, finding, image), whatever the number of shards.

    Raises:
        DataError: If there is no positive pair.
    """
    allowed = index["split"].is_in(options.splits).to_numpy()
    labels = label_matrix(index, names)
    ids = index["image_id"].to_list()
    chosen: list[Drawn] = []
    for k, finding in enumerate(names):
        keys = {row: _key(f"{seed}/{finding}/{ids[row]}") for row in np.flatnonzero(allowed)}
        for positive, wanted in ((True, (PRESENT,)), (False, (ABSENT, BLANK))):
            rows = sorted((row for row in keys if labels[row, k] in wanted), key=keys.__getitem__)
            most = options.positives if positive else options.checks
            chosen += [
                Drawn(int(row), k, finding, positive, positive and place < options.checks)
                for place, row in enumerate(rows[:most])
            ]
    if not any(pair.positive for pair in chosen):
        raise DataError(
            f"no image of the splits {', '.join(options.splits)} has a finding that is "
            "localized; set sample.splits."
        )
    return sorted(chosen)
