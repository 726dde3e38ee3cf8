"""The comparison as pictures: scores with intervals, and the same images cut by every recipe."""

import io
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import polars as pl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from skimage.segmentation import find_boundaries

from dollmaker.compare.rules import HELD_OUT, PUBLISHED, TUNED
from dollmaker.evaluate.masks import open_recipes, read_pair
from dollmaker.evaluate.means import MEAN
from dollmaker.evaluate.truth import Truth
from dollmaker.measures.baselines import BASELINES
from dollmaker.pixels.geometry import Fit, unfit_map
from dollmaker.store.depth import to_show
from dollmaker.store.shards import ImageShards

#: Rules shown, with their colours (Okabe and Ito 2008).
_SHOWN = {PUBLISHED: "#3f7fd6", "stability": "#009e73", TUNED: "#8c8f99"}

_TILE, _LABEL, _IMAGES = 132, 108, 6

Pixels = npt.NDArray[np.uint8]


def scores_chart(summary: pl.DataFrame, target: str) -> bytes:
    """MIoU of every recipe under three rules, on the images that no classifier saw; PNG."""
    rows = summary.filter(
        (pl.col("target") == target) & (pl.col("slice") == "full") & (pl.col("finding") == MEAN)
    )
    part = HELD_OUT if HELD_OUT in rows["split"] else rows["split"][0]
    rows = rows.filter(pl.col("split") == part)
    own = rows.filter(pl.col("rule") == PUBLISHED)
    recipes = own.filter(~pl.col("recipe").is_in(list(BASELINES))).sort("miou")["recipe"].to_list()
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(7.2, 0.9 + 0.36 * len(recipes)), layout="constrained")
        FigureCanvasAgg(figure)
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
                axes.axvline(value[0], color="#d55e00", ls=style, lw=1, label=name)
        axes.set_yticks(range(len(recipes)), recipes)
        axes.set_xlim(left=0)
        axes.set_xlabel(f"mIoU, {target}, {part} images")
        axes.grid(axis="x", alpha=0.3)
        axes.legend(fontsize=8, frameon=False, loc="lower right")
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=140)
    return stream.getvalue()


def mask_sheet(
    config: dict[str, Any], index: pl.DataFrame, pairs: pl.DataFrame, results: Path, truth: Truth
) -> bytes:
    """Rows: pairs spread over the true IoU of the released recipe. Columns: recipes; PNG.

    The truth is outlined in green, masks in red.
    """
    target = truth.targets[0]
    released = config["release"]["recipe"]
    rows = pairs.filter((pl.col("recipe") == released) & (pl.col("target") == target))
    held_out = rows.filter(pl.col("split") != "train")
    rows = (rows if held_out.is_empty() else held_out).sort("iou", "image_id", "finding")
    picks = np.unique(np.linspace(0, len(rows) - 1, min(_IMAGES, len(rows))).round().astype(int))
    names = list(config["recipes"])
    sheet = Image.new("RGB", (_LABEL + _TILE * (1 + len(names)), 22 + _TILE * len(picks)), "white")
    pen = ImageDraw.Draw(sheet)
    for column, name in enumerate(["truth", *names]):
        pen.text((_LABEL + column * _TILE + 4, 5), name, fill="black")
    pixels = ImageShards(results / "images")
    for line, pick in enumerate(picks.tolist()):
        pair = rows.row(pick, named=True)
        row = index.row(by_predicate=pl.col("image_id") == pair["image_id"], named=True)
        size = (row["width"], row["height"], config["prepare"]["fit"])
        stored = pixels.read(row["shard"], row["row"])
        colour = np.broadcast_to(to_show(stored), (3, *stored.shape[1:])).astype(np.float32)
        image = np.stack([unfit_map(channel, *size) for channel in colour], -1)
        area = truth.mask(row, pair["finding"], target)
        pen.text((4, 26 + line * _TILE), f"{pair['finding'][:17]}", fill="black")
        masks = [None, *_masks(config, results, row, pair["finding"])]
        for column, mask in enumerate(masks):
            tile = Image.fromarray(_outlined(image.clip(0, 255).astype(np.uint8), area, mask))
            sheet.paste(tile, (_LABEL + column * _TILE, 22 + line * _TILE))
    stream = io.BytesIO()
    sheet.save(stream, format="PNG")
    return stream.getvalue()


def _masks(
    config: dict[str, Any], results: Path, row: dict[str, Any], finding: str
) -> list[npt.NDArray[np.bool_]]:
    """The masks of all recipes at the size of the source."""
    size: tuple[int, int, Fit] = row["width"], row["height"], config["prepare"]["fit"]
    with open_recipes(config, results / "masks", results / "relevance", row["shard"]) as recipes:
        pair = row["image_id"], finding
        return [read_pair(recipe, recipe.place[pair], *size).mask for recipe in recipes.values()]


def _outlined(image: Pixels, truth: Any, mask: Any) -> Pixels:
    """A tile with outlines, drawn after enlarging so that they stay thin."""
    side = max(image.shape[:2])
    new = (round(image.shape[1] * _TILE / side), round(image.shape[0] * _TILE / side))
    small = np.asarray(Image.fromarray(image).resize(new, Image.Resampling.BILINEAR)).copy()
    for area, colour in ((truth, (60, 220, 90)), (mask, (255, 60, 50))):
        if area is not None:
            big = np.asarray(Image.fromarray(area).resize(new, Image.Resampling.NEAREST))
            small[find_boundaries(big, mode="inner")] = colour
    tile = np.zeros((_TILE, _TILE, 3), np.uint8)
    tile[: small.shape[0], : small.shape[1]] = small
    return tile
