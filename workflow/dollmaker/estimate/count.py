"""What a run has to do, from the source's tables alone: no image is opened."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from dollmaker.adapt.listing import list_images
from dollmaker.attribute.selection import select_images
from dollmaker.classify.data import label_matrix
from dollmaker.config.masks import SampleConfig
from dollmaker.config.whole import Config
from dollmaker.prepare.listing import assign
from dollmaker.runtime.errors import DataError
from dollmaker.store.findings import ABSENT, BLANK, PRESENT

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What a run has to do.

    Attributes:
        images: Split -> images.
        pairs: Pairs to explain; a lower bound if ``most`` is larger.
        most: Most pairs there can be: with ``attribute.min_probability`` only the trained committee
            knows their number.
        sample: Maps of a recipe's sample.
        segment: Split -> images of the segmenter's training, if every mask is kept.
        tasks: Task -> split -> images.
    """

    images: dict[str, int]
    pairs: int
    most: int
    sample: int
    segment: dict[str, int]
    tasks: dict[str, dict[str, int]]


def count(config: Config, index: pl.DataFrame, localized: list[str], root: Path) -> Counts:
    """Count what every stage has to do.

    Args:
        config: The resolved configuration.
        index: The images of the source.
        localized: Findings that get maps.
        root: Folder of the source.

    Raises:
        DataError: If there is nothing to explain, or a task is not as described.
    """
    options, splits = config.attribute, index["split"].to_numpy()
    chosen = select_images(index, localized, options.dump())
    positive = label_matrix(chosen, localized) == PRESENT
    if not positive.any() and options.min_probability is None:
        raise DataError(
            "no image of the explained splits has a positive label of a finding to localize; "
            "correct attribute.splits, attribute.findings or the table."
        )
    labels = label_matrix(index, localized)
    # The segmenter learns from images with masks, and from those that show what absence looks like.
    absent = (ABSENT, BLANK) if config.classify.blank == "zeros" else (ABSENT,)
    learned = ~(labels == PRESENT).any(1) & np.isin(labels, absent).any(1)
    learned |= np.isin(index["row"], chosen.filter(pl.Series(positive.any(1)))["row"])
    drawn = labels[np.isin(splits, config.sample.splits)]
    return Counts(
        images={split: int((splits == split).sum()) for split in SPLITS},
        pairs=int(positive.sum()),
        most=int(positive.sum()) if options.min_probability is None else positive.size,
        sample=_count_sample(drawn, config.sample),
        segment={split: int(learned[splits == split].sum()) for split in ("train", "valid")},
        tasks={name: _count_task(config, name, root, index) for name in config.tasks},
    )


def _count_sample(labels: Any, options: SampleConfig) -> int:
    """Maps as they are and mirrored; of the checked ones three random ones and another finding."""
    positive, absent = (labels == PRESENT).sum(0), np.isin(labels, (ABSENT, BLANK)).sum(0)
    plain = np.minimum(positive, options.positives) + np.minimum(absent, options.checks)
    return int((2 * plain + 4 * np.minimum(positive, options.checks)).sum())


def _count_task(config: Config, name: str, root: Path, index: pl.DataFrame) -> dict[str, int]:
    """Images of a task by split; its masks are not opened."""
    options, prepare = config.tasks[name], config.prepare
    listed = list_images(name, options.dump(), root, config.allow_links)
    own = options.valid is None and options.test is None
    known = dict(index.select("patient_id", "split").iter_rows()) if own else {}
    valid = prepare.valid if options.valid is None else options.valid
    test = prepare.test if options.test is None else options.test
    splits = [known.get(patient) or assign(patient, valid, test) for patient in listed.patients]
    return {split: splits.count(split) for split in SPLITS}
