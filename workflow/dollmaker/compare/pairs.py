"""One row per recipe and pair with truth: its published mask, and every threshold's mask."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from dollmaker.binarize.choice import Cuts, chosen_of
from dollmaker.binarize.cuts import level_of_each
from dollmaker.evaluate.masks import RecipeShards, open_recipes, read_pair
from dollmaker.evaluate.means import compare_mask
from dollmaker.evaluate.truth import Truth
from dollmaker.measures.baselines import BASELINES, guess
from dollmaker.pixels.geometry import Fit, box, inside, window
from dollmaker.store.findings import BLANK, PRESENT
from dollmaker.store.shards import ImageShards

#: Columns of the table of pairs. ``iou_at``, ``dice_at`` and ``area_at`` (share of the source) are
#: of the candidates of the recipe's table of thresholds, in its order; trivial baselines have none.
PAIRS: dict[str, Any] = {
    "recipe": pl.String,
    "target": pl.String,
    "split": pl.String,
    "image_id": pl.String,
    "patient_id": pl.String,
    "finding": pl.String,
    "truth_area": pl.Float64,
    "mask_area": pl.Float64,
    "iou": pl.Float64,
    "dice": pl.Float64,
    "hit": pl.Float64,
    "auprc": pl.Float64,
    "quality": pl.Float64,
    "iou_at": pl.List(pl.Float32),
    "dice_at": pl.List(pl.Float32),
    "area_at": pl.List(pl.Float32),
}

Mask = npt.NDArray[np.bool_]


def score_pairs(
    config: Mapping[str, Any],
    index: pl.DataFrame,
    findings: Sequence[str],
    images: Path,
    relevance: Path,
    masks: Path,
    truth: Truth,
    cuts: Mapping[str, Cuts],
) -> pl.DataFrame:
    """Score every positive pair with truth that all recipes explained.

    Args:
        config: The resolved configuration, with all recipes.
        index: The index.
        findings: The findings that are localized.
        images: Folder of the image shards.
        relevance: Folder with one folder of relevance shards per recipe.
        masks: Folder with one folder of mask shards per recipe.
        truth: The truth.
        cuts: Recipe -> thresholds chosen without truth.

    Returns:
        A table with the columns :data:`PAIRS`; trivial baselines are recipes too.

    Raises:
        ArtifactError: If masks and relevance shards do not hold the same pairs.
    """
    rows: list[dict[str, Any]] = []
    pixels = ImageShards(images)
    explained = index.filter(pl.col("split").is_in(config["attribute"]["splits"]))
    for shard in sorted(explained["shard"].unique()):
        with open_recipes(config, masks, relevance, shard) as recipes:
            scales = {name: recipe.maps.table()["scale"] for name, recipe in recipes.items()}
            for row in explained.filter(pl.col("shard") == shard).iter_rows(named=True):
                rows += _score_image(config, row, findings, pixels, recipes, scales, truth, cuts)
    return pl.DataFrame(rows, schema=PAIRS, orient="row")


def _score_image(
    config: Mapping[str, Any],
    row: Mapping[str, Any],
    findings: Sequence[str],
    pixels: ImageShards,
    recipes: Mapping[str, RecipeShards],
    scales: Mapping[str, npt.NDArray[np.float32]],
    truth: Truth,
    cuts: Mapping[str, Cuts],
) -> Iterator[dict[str, Any]]:
    size: tuple[int, int, Fit] = (row["width"], row["height"], config["prepare"]["fit"])
    for finding in findings:
        label = row[finding]
        pair = (row["image_id"], finding)
        if (BLANK if label is None else label) != PRESENT:
            continue
        if not all(pair in recipe.place for recipe in recipes.values()):
            continue
        areas = {name: truth.mask(row, finding, name) for name in truth.targets}
        known = {name: area for name, area in areas.items() if area is not None and area.any()}
        if not known:
            continue
        facts = {key: row[key] for key in ("image_id", "patient_id", "split")}
        facts["finding"] = finding
        for name, recipe in recipes.items():
            place = recipe.place[pair]
            stored = recipe.maps.read("map", place).astype(np.float32)
            inner = inside(stored, box(size[0], size[1], len(stored), size[2]))
            candidates = chosen_of(cuts[name], finding).candidates
            levels = level_of_each(candidates, inner, float(scales[name][place]))
            proposal = read_pair(recipe, place, *size)
            quality = float(recipe.table["quality"][place])
            drawn = shown_only(proposal.values, *size)
            for target, area in known.items():
                iou, dice, share = at_levels(drawn, levels, area)
                yield (
                    {"recipe": name, "target": target, "quality": quality}
                    | facts
                    | compare_mask(proposal.mask, proposal.values, area)
                    | {"iou_at": iou.tolist(), "dice_at": dice.tolist()}
                    | {"area_at": share.tolist()}
                )
        image = pixels.read(row["shard"], row["row"])
        for name in BASELINES:
            proposal = guess(name, image, *size)
            for target, area in known.items():
                scored = compare_mask(proposal.mask, proposal.values, area)
                yield {"recipe": name, "target": target} | facts | scored


def shown_only(
    values: npt.NDArray[np.float32], width: int, height: int, fit: Fit
) -> npt.NDArray[np.float32]:
    """A map (height, width) with what a crop does not show under every level: no mask is there."""
    whole = np.full_like(values, -np.inf)
    where = window(width, height, fit)
    inside(whole, where)[...] = inside(values, where)
    return whole


def at_levels(
    values: npt.NDArray[np.float32], levels: npt.NDArray[np.float64], area: Mask
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """IoU, Dice and area of ``values > level`` for many levels (L,), by one pass over the pixels.

    Args:
        values: The map (H, W).
        levels: Thresholds in any order.
        area: The truth, bool (H, W).
    """
    order = np.argsort(levels)
    above = np.searchsorted(levels[order], values.ravel(), side="left")
    count = np.bincount(above, minlength=len(levels) + 1)
    inside = np.bincount(above, weights=area.ravel(), minlength=len(levels) + 1)
    size, both = np.empty(len(levels)), np.empty(len(levels))
    size[order] = count[::-1].cumsum()[::-1][1:]
    both[order] = inside[::-1].cumsum()[::-1][1:]
    true = float(area.sum())
    iou, dice = both / np.maximum(size + true - both, 1), 2 * both / np.maximum(size + true, 1)
    return iou, dice, size / values.size
