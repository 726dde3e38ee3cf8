"""What a run has to do, from the source's tables alone: no image is opened."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from dollmaker.adapt.listing import list_images
from dollmaker.attribute.selection import select_images, select_pairs
from dollmaker.classify.data import label_matrix
from dollmaker.prepare.sources import check_findings, make_plan
from dollmaker.prepare.splits import assign
from dollmaker.runtime.errors import DataError
from dollmaker.segment.data import list_targets
from dollmaker.store import findings

_SPLITS = ("train", "valid", "test")


@dataclass(frozen=True, kw_only=True)
class Source:
    """The images of a data set before any is decoded.

    Attributes:
        index: The plan of prepare, one row an image, with ``shard`` and ``row``.
        findings: All findings.
        localized: Those that get maps.
        tasks: Task -> split -> number of images.
        root: Folder of the source.
        seconds: Seconds to generate it, for phantoms that do not exist yet; else 0.
        counted_from: What was counted.
    """

    index: pl.DataFrame
    findings: list[str]
    localized: list[str]
    tasks: dict[str, dict[str, int]]
    root: Path
    seconds: float = 0.0
    counted_from: str = "the source's tables"


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What a run has to do.

    Attributes:
        images: Split -> images.
        patients: Patients of all splits.
        explained: Images that the attribution looks at.
        maps: Finding -> pairs to explain; a lower bound if ``most`` is larger.
        most: Most pairs there can be. With ``attribute.min_probability`` only the trained committee
            knows their number; otherwise the sum of ``maps``.
        segment: Split (train, valid) -> images the segmenter learns from or is scored on, at most.
        tasks: Task -> split -> images.
    """

    images: dict[str, int]
    patients: int
    explained: int
    maps: dict[str, int]
    most: int
    segment: dict[str, int]
    tasks: dict[str, dict[str, int]]

    @property
    def pairs(self) -> int:
        """Pairs to explain, all findings together."""
        return sum(self.maps.values())


def read_source(config: dict[str, Any], root: Path) -> Source:
    """List the source's images, and count those of the tasks.

    Raises:
        DataError: If a folder or table is missing or not as described.
        ConfigError: If a configured finding does not exist.
    """
    plan, names = make_plan(config, root)
    check_findings(names, config)
    index = with_places(plan, config["prepare"]["shards"])
    known = dict(index.select("patient_id", "split").iter_rows())
    return Source(
        index=index,
        findings=names,
        localized=findings.localized(names, config["attribute"]["findings"]),
        tasks={name: _count_task(name, config, root, known) for name in config["tasks"]},
        root=root,
    )


def with_places(plan: pl.DataFrame, shards: int) -> pl.DataFrame:
    """A plan as the index will be if no image is broken: each image once, with shard and row."""
    plan = plan.unique("image_id", keep="first", maintain_order=True)
    rows = np.arange(len(plan))
    return plan.with_columns(
        pl.Series("shard", [f"{number:04d}" for number in rows * shards // len(plan)]),
        pl.Series("row", rows),
    )


def count(source: Source, config: dict[str, Any]) -> Counts:
    """Count what every stage has to do.

    Raises:
        DataError: If there is nothing to explain.
    """
    index, localized = source.index, source.localized
    chosen = select_images(index, localized, config["attribute"])
    labels = label_matrix(chosen, localized)
    pairs = select_pairs(labels, None, None)
    threshold = config["attribute"]["min_probability"]
    if not pairs.any() and threshold is None:
        raise DataError(
            "no image of the explained splits has a positive label of a finding to localize; "
            "correct attribute.splits, attribute.findings or the table."
        )
    return Counts(
        images={split: int((index["split"] == split).sum()) for split in _SPLITS},
        patients=index["patient_id"].n_unique(),
        explained=len(chosen),
        maps={name: int(pairs[:, k].sum()) for k, name in enumerate(localized)},
        most=int(pairs.sum()) if threshold is None else pairs.size,
        segment=_count_segment(index, chosen, localized, config["classify"]["blank"]),
        tasks=source.tasks,
    )


def spread_by_pairs(source: Source, config: dict[str, Any], number: int) -> pl.DataFrame:
    """A few images that stand for those to explain: quantiles of their number of findings."""
    chosen = select_images(source.index, source.localized, config["attribute"])
    pairs = select_pairs(label_matrix(chosen, source.localized), None, None).sum(1)
    order = np.argsort(pairs, kind="stable")
    places: list[int] = order[midpoints(len(chosen), number)].tolist()
    return chosen[places]


def midpoints(length: int, number: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Positions in the middles of ``number`` equal parts of a list; all, if it is shorter."""
    number = min(length, number)
    return ((np.arange(number) + 0.5) * length / max(number, 1)).astype(np.int64)


def _count_segment(
    index: pl.DataFrame, chosen: pl.DataFrame, localized: list[str], blank: Any
) -> dict[str, int]:
    """Images of the segmenter's training, as if every mask were kept."""
    result = {}
    for split in ("train", "valid"):
        seen = chosen.filter(pl.col("split") == split)
        rows, columns = np.nonzero(select_pairs(label_matrix(seen, localized), None, None))
        table = {
            "image_id": seen["image_id"].to_numpy()[rows],
            "finding": np.array(localized, dtype=object)[columns],
            "quality": np.ones(len(rows), np.float32),
        }
        mine = index.filter(pl.col("split") == split)
        result[split] = len(list_targets(mine, localized, table, blank=blank, source="the plan"))
    return result


def _count_task(
    name: str, config: Mapping[str, Any], root: Path, known: Mapping[str, str]
) -> dict[str, int]:
    """Images of a task by split; its masks are not opened."""
    options, prepare = config["tasks"][name], config["prepare"]
    patients = list_images(name, options, root).patients
    valid, test = (
        prepare[key] if options[key] is None else options[key] for key in ("valid", "test")
    )
    own = options["valid"] is None and options["test"] is None
    splits = [(known.get(p) if own else None) or assign(p, valid, test) for p in patients]
    return {split: splits.count(split) for split in _SPLITS}
