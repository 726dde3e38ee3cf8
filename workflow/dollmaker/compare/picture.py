"""The comparison as pictures: scores with intervals, and the same images cut by every recipe."""

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from dollmaker.compare.rules import HELD_OUT, PUBLISHED, TUNED
from dollmaker.evaluate.masks import open_recipes, read_pair
from dollmaker.evaluate.means import MEAN
from dollmaker.evaluate.truth import Truth
from dollmaker.measures.baselines import BASELINES
from dollmaker.pictures.charts import SERIES, chart
from dollmaker.pictures.overlay import MASK, TRUTH, Panel, outline
from dollmaker.pictures.sheet import sheet, to_png
from dollmaker.pixels.geometry import Fit
from dollmaker.store.shards import ImageShards

#: Rules shown, with their colours.
_SHOWN = {PUBLISHED: SERIES[0], "stability": SERIES[2], TUNED: SERIES[6]}

_TILE, _IMAGES = 132, 6


def scores_chart(summary: pl.DataFrame, target: str) -> bytes:
    """MIoU of every recipe under three rules, on the images that no classifier saw; PNG."""
    rows = summary.filter(
        (pl.col("target") == target) & (pl.col("slice") == "full") & (pl.col("finding") == MEAN)
    )
    part = HELD_OUT if HELD_OUT in rows["split"] else rows["split"][0]
    rows = rows.filter(pl.col("split") == part)
    own = rows.filter(pl.col("rule") == PUBLISHED)
    recipes = own.filter(~pl.col("recipe").is_in(list(BASELINES))).sort("miou")["recipe"].to_list()

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for shift, (rule, colour) in zip((0.2, 0.0, -0.2), _SHOWN.items(), strict=True):
            found = {r["recipe"]: r for r in rows.filter(pl.col("rule") == rule).to_dicts()}
            for place, recipe in enumerate(recipes):
                if recipe in found:
                    row, y = found[recipe], place + shift
                    axes.plot([row["miou_low"], row["miou_high"]], [y, y], color=colour, lw=1.2)
                    axes.plot(row["miou"], y, "o", color=colour, ms=4.5)
            label = {"stability": "label-free (stability)"}.get(rule, rule)
            axes.plot([], [], "o-", color=colour, ms=4.5, lw=1.2, label=label)
        for name, style in zip(BASELINES, ("--", ":", "-."), strict=True):
            value = own.filter(pl.col("recipe") == name)["miou"]
            if len(value):
                axes.axvline(value[0], color=SERIES[1], ls=style, lw=1, label=name)
        axes.set_yticks(range(len(recipes)), recipes)
        axes.set_xlim(left=0)
        axes.set_xlabel(f"mIoU, {target}, {part} images")
        axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)

    return chart(draw, (7.2, 1.3 + 0.36 * len(recipes))).light


def mask_sheet(
    config: dict[str, Any], index: pl.DataFrame, pairs: pl.DataFrame, results: Path, truth: Truth
) -> bytes:
    """Rows: pairs spread over the true IoU of the released recipe. Columns: recipes; PNG.

    The truth is outlined in teal, masks in orange.
    """
    target = truth.targets[0]
    released = config["release"]["recipe"]
    rows = pairs.filter((pl.col("recipe") == released) & (pl.col("target") == target))
    held_out = rows.filter(pl.col("split") != "train")
    rows = (rows if held_out.is_empty() else held_out).sort("iou", "image_id", "finding")
    picks = np.unique(np.linspace(0, len(rows) - 1, min(_IMAGES, len(rows))).round().astype(int))
    pixels = ImageShards(results / "images")
    lines = []
    for pair in rows[picks.tolist()].iter_rows(named=True):
        row = index.row(by_predicate=pl.col("image_id") == pair["image_id"], named=True)
        size: tuple[int, int, Fit] = row["width"], row["height"], config["prepare"]["fit"]
        image = pixels.read(row["shard"], row["row"])
        ground = Panel.of(*size, size=image.shape[-1], side=_TILE).image(image)
        area = truth.mask(row, pair["finding"], target)
        tile = ground if area is None else outline(ground, area, TRUTH)
        key = row["image_id"], pair["finding"]
        with open_recipes(config, results / "masks", results / "relevance", row["shard"]) as found:
            masks = [read_pair(recipe, recipe.place[key], *size).mask for recipe in found.values()]
        tiles = [tile, *(outline(tile, mask, MASK) for mask in masks)]
        lines.append(("\n".join(textwrap.wrap(pair["finding"], 17)), tiles))
    return to_png(sheet(lines, titles=["truth", *config["recipes"]], beside=True), colours=None)
