"""Which image-finding pairs are explained."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from dollmaker.classify.data import label_matrix
from dollmaker.store.findings import PRESENT


def select_images(
    index: pl.DataFrame, findings: Sequence[str], options: dict[str, Any]
) -> pl.DataFrame:
    """The images to look at: of the configured splits, at most ``max_images`` of each.

    They are chosen from the whole index, whatever the number of shards. With a limit, images with a
    positive label are taken, spread evenly over the index.

    Args:
        index: The whole index.
        findings: Findings to localize.
        options: Section ``attribute``.
    """
    chosen = index.filter(pl.col("split").is_in(options["splits"]))
    limit = options["max_images"]
    if options["with_truth"]:
        chosen = chosen.filter(pl.col("mask").is_not_null())
    if options["min_probability"] is None:
        positive = (label_matrix(chosen, findings) == PRESENT).any(1)
        chosen = chosen.filter(pl.Series(positive))
    if limit is None:
        return chosen
    parts = []
    for split in options["splits"]:
        rows = chosen.filter(pl.col("split") == split)
        keep = np.unique(np.linspace(0, len(rows) - 1, min(limit, len(rows))).round().astype(int))
        parts.append(rows[keep.tolist()] if len(rows) else rows)
    return pl.concat(parts).sort("shard", "row")


def select_pairs(
    labels: npt.NDArray[np.int8],
    probabilities: npt.NDArray[np.float32] | None,
    min_probability: float | None,
) -> npt.NDArray[np.bool_]:
    """Pairs to explain, (N, K): label present, or probability high enough.

    Args:
        labels: (N, K).
        probabilities: The committee's, (N, K); needed with ``min_probability``.
        min_probability: Threshold, or ``None`` for labels only.
    """
    chosen = labels == PRESENT
    if min_probability is not None and probabilities is not None:
        chosen = chosen | (probabilities >= min_probability)
    return np.asarray(chosen)
