"""Pseudo-masks of a run against truth: one row per pair, for every recipe and trivial baseline.

With candidate thresholds, each threshold's mask is scored, too: for the comparison of recipes.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from dollmaker.binarize.cuts import level_of_each
from dollmaker.binarize.label_free import Chosen, Cuts, chosen_of
from dollmaker.config.whole import Config
from dollmaker.evaluate.guesses import MeanMap, Segmenter
from dollmaker.evaluate.means import PAIRS, compare_mask
from dollmaker.measures.baselines import BASELINES, MEAN_MAP, SEGMENTER, Guess, guess
from dollmaker.pixels.geometry import Fit, box, inside, level_set, source_map, source_mask, window
from dollmaker.pixels.truth import Truth
from dollmaker.runtime.progress import Progress
from dollmaker.store.findings import BLANK, PRESENT
from dollmaker.store.shards import ImageShards, Shard, tables_of_pairs

Row = Mapping[str, Any]
Mask = npt.NDArray[np.bool_]
Map = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

_AT = ("iou_at", "dice_at", "area_at")

#: Columns of the pairs of a comparison: these are of the candidates of the recipe's table of
#: thresholds, in its order (areas as share of the source); trivial baselines have none.
PAIRS_AT: dict[str, Any] = {**PAIRS, **dict.fromkeys(_AT, pl.List(pl.Float32))}


@dataclass(frozen=True)
class RecipeShards:
    """One recipe's masks and maps of one shard, read pair by pair."""

    masks: Shard
    maps: Shard
    table: Mapping[str, npt.NDArray[Any]]
    scales: npt.NDArray[Any]
    place: Mapping[tuple[str, str], int]
    images: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Folders:
    """Where shards lie, of relevance and masks in a folder for each recipe, and the segmenter."""

    images: Path
    relevance: Path
    masks: Path
    segmenter: Path | None = None


def score_pairs(
    config: Config,
    index: pl.DataFrame,
    findings: Sequence[str],
    folders: Folders,
    truth: Truth | None,
    cuts: Mapping[str, Cuts] | None = None,
) -> pl.DataFrame:
    """Score every pair with truth, for every recipe, the segmenter and every trivial baseline.

    A pair that a recipe did not explain counts as an empty mask with a map without contrast. With
    ``attribute.max_images`` only images with an explained pair are scored: the others were never
    asked for. Segmenter and baselines are gated as the released recipe: they see the labels that it
    sees, so that all say where a finding is, and none whether.

    ``cuts`` are the thresholds of each recipe that were chosen without truth. With them only pairs
    are scored whose label and truth say that the finding is there and that all recipes explained,
    and masks are as their recipes drew them.

    Returns:
        A table with the columns :data:`PAIRS`, with ``cuts`` :data:`PAIRS_AT`; empty without truth.

    Raises:
        ArtifactError: If masks and relevance shards do not hold the same pairs.
        DataError: If a true mask is damaged.
    """
    rows: list[dict[str, Any]] = []
    if truth is not None:
        explained = index.filter(pl.col("split").is_in(config.attribute.splits))
        images, fit = ImageShards(folders.images), config.prepare.fit
        shards = sorted(explained["shard"].unique())
        segmenter = Segmenter(folders.segmenter, fit) if folders.segmenter else None
        files = (_files(config, config.release.recipe, folders, shard) for shard in shards)
        mean_map = MeanMap(files, fit) if cuts is None else None
        scorer = _Scorer(config, findings, images, truth, cuts, segmenter, mean_map)
        progress = Progress("score masks", len(explained))
        for shard in shards:
            with open_recipes(config, folders, shard) as recipes:
                for row in explained.filter(pl.col("shard") == shard).iter_rows(named=True):
                    rows += scorer.score(row, recipes)
                    progress.add(1)
    return pl.DataFrame(rows, schema=PAIRS if cuts is None else PAIRS_AT, orient="row")


@contextmanager
def open_recipes(config: Config, folders: Folders, shard: str) -> Iterator[dict[str, RecipeShards]]:
    """Masks and maps of every recipe of the configuration, of one shard.

    Raises:
        ArtifactError: If masks and relevance shards do not hold the same pairs.
    """
    with ExitStack() as stack:
        recipes = {}
        for name in config.recipes:
            masks_file, maps_file = _files(config, name, folders, shard)
            masks = stack.enter_context(Shard(masks_file, "masks"))
            maps = stack.enter_context(Shard(maps_file, "relevance"))
            recipes[name] = _recipe(masks, maps)
        yield recipes


def _files(config: Config, recipe: str, folders: Folders, shard: str) -> tuple[Path, Path]:
    name = f"{shard}.h5"
    return folders.masks / recipe / name, folders.relevance / config.donor(recipe) / name


def _recipe(masks: Shard, maps: Shard) -> RecipeShards:
    table, other = tables_of_pairs(masks, maps)
    pairs = list(zip(table.get("image_id", ()), table.get("finding", ()), strict=True))
    place = {pair: row for row, pair in enumerate(pairs)}
    scales = other.get("scale", np.zeros(0, np.float32))
    return RecipeShards(masks, maps, table, scales, place, frozenset(image for image, _ in pairs))


@dataclass(frozen=True)
class _Scorer:
    """What all images are scored with."""

    config: Config
    findings: Sequence[str]
    images: ImageShards
    truth: Truth
    cuts: Mapping[str, Cuts] | None
    segmenter: Segmenter | None
    mean_map: MeanMap | None

    def score(self, row: Row, recipes: Mapping[str, RecipeShards]) -> Iterator[dict[str, Any]]:
        """Rows of one image."""
        released = recipes[self.config.release.recipe]
        if self.config.attribute.max_images is not None and row["image_id"] not in released.images:
            return
        known = {finding: self._known(row, finding, recipes) for finding in self.findings}
        asked = [finding for finding, areas in known.items() if areas]
        drawn = self._guesses(row, asked, released)
        size = row["width"], row["height"], self.config.prepare.fit
        for finding in asked:
            pair = row["image_id"], finding
            for name in (*recipes, *drawn):
                recipe = recipes.get(name, released)
                place = recipe.place.get(pair)
                facts = _facts(row, name, finding, recipe, place)
                if place is None:
                    for target, area in known[finding].items():
                        if area.any():
                            yield facts | {"target": target} | _unexplained(area)
                    continue
                scores_at = None
                if name in recipes:
                    proposal = read_pair(recipe, place, *size)
                    if self.cuts is not None:
                        chosen = chosen_of(self.cuts[name], finding)
                        levels = _levels(recipe, place, chosen, row, size[2])
                        scores_at = partial(at_levels, shown_only(proposal.values, *size), levels)
                else:
                    proposal = drawn[name][finding]
                    facts["quality"] = None
                least = self.config.evaluate.min_probability
                kept = bool(recipe.table["kept"][place]) and not facts["probability"] < least
                mask = proposal.mask if self.cuts is not None else proposal.mask & kept
                for target, area in known[finding].items():
                    scored = compare_mask(mask, proposal.values, area)
                    if scores_at:
                        each = (values.tolist() for values in scores_at(area))
                        scored |= dict(zip(_AT, each, strict=True))
                    yield facts | {"target": target} | scored

    def _known(
        self, row: Row, finding: str, recipes: Mapping[str, RecipeShards]
    ) -> dict[str, Mask]:
        """The true areas of a pair that is scored, by target."""
        pair = row["image_id"], finding
        if self.cuts is not None and not (
            row[finding] == PRESENT and all(pair in recipe.place for recipe in recipes.values())
        ):
            return {}
        areas = {name: self.truth.mask(row, finding, name) for name in self.truth.targets}
        some = self.cuts is None
        return {n: area for n, area in areas.items() if area is not None and (some or area.any())}

    def _guesses(
        self, row: Row, asked: Sequence[str], released: RecipeShards
    ) -> dict[str, dict[str, Guess]]:
        """What segmenter and baselines draw of the findings that are asked for and explained."""
        places = {finding: released.place.get((row["image_id"], finding)) for finding in asked}
        places = {finding: at for finding, at in places.items() if at is not None}
        trained = {SEGMENTER: self.segmenter, MEAN_MAP: self.mean_map}
        names = (*(name for name, one in trained.items() if one), *BASELINES)
        drawn: dict[str, dict[str, Guess]] = {name: {} for name in names}
        if not places:
            return drawn
        width, height = row["width"], row["height"]
        image = self.images.read(row["shard"], row["row"])
        if self.segmenter:
            drawn[SEGMENTER] = self.segmenter.draw(image, places, width, height)
        if self.mean_map:
            for finding, at in places.items():
                own = released.maps.read("map", at), float(released.table["area"][at])
                mean = self.mean_map.guess(row["image_id"], finding, *own, width, height)
                drawn[MEAN_MAP][finding] = mean
        for name in BASELINES:
            one = guess(name, image, width, height, self.config.prepare.fit)
            drawn[name] = dict.fromkeys(places, one)
        return drawn


def _facts(
    row: Row, recipe_name: str, finding: str, recipe: RecipeShards, place: int | None
) -> dict[str, Any]:
    found = place is not None
    return {
        "recipe": recipe_name,
        **{key: row[key] for key in ("split", "image_id", "patient_id")},
        "finding": finding,
        "label": BLANK if row[finding] is None else row[finding],
        "probability": float(recipe.table["probability"][place]) if found else None,
        "explained": found,
        "quality": float(recipe.table["quality"][place]) if found else None,
    }


def read_pair(recipe: RecipeShards, place: int, width: int, height: int, fit: Fit) -> Guess:
    """The pair's mask and map at the size of the source, just as a release holds the mask.

    Pixels to ignore are background.
    """
    values = recipe.maps.read("map", place)
    threshold = float(recipe.table["threshold"][place])
    levels = level_set(recipe.masks.read("mask", place), values, threshold)
    mask = source_mask(levels, width, height, fit)
    return Guess(mask, source_map(values, width, height, fit))


def _levels(recipe: RecipeShards, place: int, chosen: Chosen, row: Row, fit: Fit) -> Floats:
    """The candidate thresholds of a pair, as values of its map."""
    stored = recipe.maps.read("map", place).astype(np.float32)
    inner = inside(stored, box(row["width"], row["height"], len(stored), fit))
    scale = float(recipe.scales[place])
    return level_of_each(chosen.candidates, inner, scale)


def shown_only(values: Map, width: int, height: int, fit: Fit) -> Map:
    """A map (height, width) with what a crop does not show under every level: no mask is there."""
    whole = np.full_like(values, -np.inf)
    where = window(width, height, fit)
    inside(whole, where)[...] = inside(values, where)
    return whole


def at_levels(values: Map, levels: Floats, area: Mask) -> tuple[Floats, Floats, Floats]:
    """IoU, Dice and area of ``values > level`` (H, W) against the truth, for many levels (L,).

    Levels are in any order; the pixels are passed once.
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


def _unexplained(area: Mask) -> dict[str, float]:
    """Scores of an empty mask and of a map that is the same everywhere."""
    share = float(area.mean())
    nothing = dict.fromkeys(("mask_area", "iou", "dice", "hit"), 0.0)
    return {"truth_area": share, **nothing, "auprc": share}
