"""Bounds of the masks' IoU in a release: the column ``iou_bound``, and bounds.json behind it."""

import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from dollmaker.measures.conformal import DRAWS, LEAST, bounds_of, calibrate
from dollmaker.release.parts import BOUND, SCHEMA, SPLITS, Tree, find_parts
from dollmaker.runtime.errors import ArtifactError
from dollmaker.store import tables
from dollmaker.store.files import read_json
from dollmaker.store.sums import require_listed

if TYPE_CHECKING:  # who reads a release has no pydantic
    from dollmaker.config.whole import Config

#: Name of the file.
BOUNDS = "bounds.json"

#: What a mask without a bound has.
RANK_ONLY = "rank only"


def calibrate_release(
    config: "Config", table: pl.DataFrame, pairs: pl.DataFrame, target: str | None
) -> Tree | None:
    """What bounds.json says: the calibration of every finding that released masks have truth of.

    It is made of all rows of the release, pairs.parquet of the evaluation, and the first target of
    the truth, if there is any.

    Returns:
        ``confidence``, ``target``, ``min_probability`` (masks under it are scored as empty: they
        neither calibrate nor have a bound), ``least_patients``, ``draws`` and ``calibrations``
        (:func:`dollmaker.measures.conformal.calibrate`); ``None`` where no released mask has truth.
    """
    if target is None:
        return None
    options = config.evaluate
    known = pairs.filter("explained", recipe=config.release.recipe, target=target)
    masks = _counted(table, options.min_probability).join(
        known.select("image_id", "finding", "iou"), on=["image_id", "finding"]
    )
    if masks.is_empty():
        return None
    whose = masks.with_columns(pl.col("patient_id").fill_null(pl.col("image_id")))
    return {
        "confidence": options.confidence,
        "target": target,
        "min_probability": options.min_probability,
        "least_patients": LEAST,
        "draws": DRAWS,
        "calibrations": calibrate(whose, options.confidence, config.seed),
    }


def add_bounds(table: pl.DataFrame, facts: Tree) -> pl.DataFrame:
    """Rows of a release with the column ``iou_bound`` that bounds.json gives them."""
    bounds = bounds_of(table, facts["calibrations"])
    counted = _counted(table.with_row_index("_row"), facts["min_probability"])["_row"]
    inside = pl.int_range(pl.len()).is_in(counted.implode())
    return table.with_columns(bounds).with_columns(pl.when(inside).then(BOUND).alias(BOUND))


def _counted(table: pl.DataFrame, min_probability: float) -> pl.DataFrame:
    """Rows that are scored as they are; those without a probability are."""
    return table.filter(~(pl.col("probability") < min_probability).fill_null(value=False))


def write_tables(labels: Path, folder: Path, facts: Tree | None) -> None:
    """The files of ``data/`` of a release: those of the labels, with bounds where there are any."""
    (folder / "data").mkdir()
    bounded = facts is not None and any(row["margin"] is not None for row in facts["calibrations"])
    for source in (path for split in SPLITS for path in find_parts(labels, "data", split)):
        target = folder / "data" / source.name
        if facts is None or not bounded:
            shutil.copyfile(source, target)
            continue
        tables.write(add_bounds(tables.read(source), facts), target, tables.read_header(source))


def read_bounds(folder: Path) -> Tree | None:
    """What bounds.json of a release says; ``None`` where quality only ranks.

    Raises:
        ArtifactError: If it is damaged, or missing though SHA256SUMS lists it.
    """
    require_listed(folder, BOUNDS)
    if not (folder / BOUNDS).is_file():
        return None
    facts = read_json(folder / BOUNDS)
    try:
        good = isinstance(facts["confidence"], float)
        add_bounds(pl.DataFrame(schema=SCHEMA), facts)
    except (KeyError, TypeError, AttributeError, pl.exceptions.PolarsError):
        good = False
    if not good:
        raise ArtifactError(f"{folder / BOUNDS} is not that of a release; get the release again.")
    found: Tree = facts
    return found


def wrong_bounds(table: pl.DataFrame, facts: Tree | None) -> bool:
    """Whether the bounds of a table are others than bounds.json gives."""
    if BOUND not in table.columns:
        return facts is not None and not add_bounds(table, facts)[BOUND].is_null().all()
    return facts is None or not add_bounds(table, facts)[BOUND].equals(table[BOUND])


def tell(bound: float | None, confidence: float | None) -> str:
    """A bound in words, e.g. ``IoU at least 0.42 (90 %)``; two digits, rounded down."""
    if bound is None or confidence is None:
        return RANK_ONLY
    return f"IoU at least {math.floor(round(bound * 1e4) / 100) / 100:.2f} ({percent(confidence)})"


def percent(share: float) -> str:
    """A share in percent, e.g. ``90 %``."""
    return f"{100 * share:.4g} %"
