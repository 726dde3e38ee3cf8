"""The comparison in Markdown, and as pictures: scores with intervals, and masks of every recipe."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from matplotlib.figure import Figure

from dollmaker.binarize.label_free import CRITERIA, CRITERION
from dollmaker.compare.rules import HELD_OUT, PUBLISHED, RULES, TRAINED, TUNED
from dollmaker.config.whole import Config
from dollmaker.evaluate.masks import Folders, open_recipes, read_pair
from dollmaker.evaluate.means import MEAN
from dollmaker.measures.baselines import BASELINES
from dollmaker.measures.words import number, table
from dollmaker.pictures.charts import SERIES, chart
from dollmaker.pictures.overlay import MASK, TRUTH, Panel, outline, sheet, to_png
from dollmaker.pixels.geometry import Fit
from dollmaker.pixels.truth import Truth
from dollmaker.runtime.picks import evenly
from dollmaker.store.shards import ImageShards

#: Shares of the masks, best first by quality.
SHARES = (1.0, 0.75, 0.5, 0.25)

#: Rules of the chart, with their colours.
_SHOWN = {PUBLISHED: SERIES[0], CRITERION: SERIES[2], TUNED: SERIES[6]}

_TILE, _IMAGES = 132, 6


def write_report(
    config: Config,
    summary: pl.DataFrame,
    ruled: pl.DataFrame,
    sanity: Mapping[str, Mapping[str, Any]],
    tuned: int,
) -> str:
    """All tables of a comparison.

    ``ruled`` are the scored pairs under every rule, ``sanity`` the checks of each recipe, ``tuned``
    the number of patients whose true masks chose thresholds.
    """
    order = [*config.recipes, *BASELINES]
    parts = [
        f"# Recipes on {config.dataset}",
        "",
        "mIoU of pairs with a true mask, 95 % bootstrap intervals over patients; masks are asked "
        "for where the label says that the finding is there. Area: Spearman's correlation of the "
        "areas of masks and truth, mean over findings. "
        f"The true masks of {tuned} patients chose the tuned thresholds (all of these) and "
        f"of the few-shot rule ({config.compare.few} a finding); they are not scored. "
        f"{', '.join(CRITERIA)}: chosen without truth. As published: the recipe's own steps.",
    ]
    for target in summary["target"].unique(maintain_order=True):
        for part in (HELD_OUT, TRAINED):
            chosen = summary.filter(
                (pl.col("target") == target)
                & (pl.col("split") == part)
                & (pl.col("slice") == "full")
                & (pl.col("finding") == MEAN)
            )
            if not chosen.is_empty():
                title = f"## {target}, {part} images: mean over {chosen['mean_over'][0]}"
                parts += ["", title, "", *_scores(chosen, order)]
        parts += ["", f"## {target}: quality without truth", "", *_quality(ruled, target, order)]
    parts += ["", "## Sanity", "", *_sanity(sanity), ""]
    return "\n".join(parts)


def _scores(chosen: pl.DataFrame, order: Sequence[str]) -> list[str]:
    head = ("recipe", *RULES, "Dice", "hit rate", "AUPRC", "area", "s/image")
    names = ("dice", "hit_rate", "auprc", "area_correlation", "seconds")
    found = {(row["recipe"], row["rule"]): row for row in chosen.iter_rows(named=True)}
    lines = []
    for recipe in order:
        if own := found.get((recipe, PUBLISHED)):
            cells = [_interval(found.get((recipe, rule))) for rule in RULES]
            lines.append((recipe, *cells, *(number(own[name], 3) for name in names)))
    return table(head, lines)


def _quality(ruled: pl.DataFrame, target: str, order: Sequence[str]) -> list[str]:
    """Rank correlation with the true IoU, and the mIoU of the best masks by quality."""
    lines = []
    for recipe in order:
        rows = ruled.filter(
            (pl.col("recipe") == recipe)
            & (pl.col("target") == target)
            & (pl.col("rule") == PUBLISHED)
            & pl.col("quality").is_not_null()
        ).sort("quality", descending=True)
        if rows.is_empty():
            continue
        rank = rows.select(pl.corr("quality", "iou", method="spearman")).item()
        best: list[Any] = [
            rows["iou"][: max(1, round(share * len(rows)))].mean() for share in SHARES
        ]
        lines.append((recipe, *(number(v, 3) for v in (rank, *best))))
    return table(("recipe", "Spearman", *(f"best {share:.0%}" for share in SHARES)), lines)


def _sanity(sanity: Mapping[str, Mapping[str, Any]]) -> list[str]:
    names = ("same_masks", "randomised", "other", "insertion", "deletion", "masked_negatives")
    lines = [
        "| recipe | masks of random weights | maps of them | other finding | insertion | deletion "
        "| masks on negatives | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for recipe, facts in sanity.items():
        cells = [number(facts[name], 3) for name in names]
        lines.append(f"| {recipe} | " + " | ".join([*cells, facts["verdict"]]) + " |")
    return lines


def _interval(row: Mapping[str, Any] | None) -> str:
    if row is None or row["miou"] is None:
        return "-"
    return f"{row['miou']:.3f} ({row['miou_low']:.3f} to {row['miou_high']:.3f})"


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
            label = f"label-free ({rule})" if rule == CRITERION else rule
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
    config: Config, index: pl.DataFrame, pairs: pl.DataFrame, results: Path, truth: Truth
) -> bytes:
    """Rows: pairs spread over the true IoU of the released recipe. Columns: recipes; PNG.

    The truth is outlined in teal, masks in orange.
    """
    target = truth.targets[0]
    released = config.release.recipe
    rows = pairs.filter((pl.col("recipe") == released) & (pl.col("target") == target))
    held_out = rows.filter(pl.col("split") != "train")
    rows = (rows if held_out.is_empty() else held_out).sort("iou", "image_id", "finding")
    folders = Folders(
        images=results / "images", relevance=results / "relevance", masks=results / "masks"
    )
    pixels = ImageShards(folders.images)
    lines = []
    for pair in rows[evenly(len(rows), _IMAGES)].iter_rows(named=True):
        row = index.row(by_predicate=pl.col("image_id") == pair["image_id"], named=True)
        size: tuple[int, int, Fit] = row["width"], row["height"], config.prepare.fit
        image = pixels.read(row["shard"], row["row"])
        ground = Panel.of(*size, size=image.shape[-1], side=_TILE).image(image)
        area = truth.mask(row, pair["finding"], target)
        tile = ground if area is None else outline(ground, area, TRUTH)
        key = row["image_id"], pair["finding"]
        with open_recipes(config, folders, row["shard"]) as found:
            masks = [read_pair(recipe, recipe.place[key], *size).mask for recipe in found.values()]
        tiles = [tile, *(outline(tile, mask, MASK) for mask in masks)]
        lines.append(("\n".join(textwrap.wrap(pair["finding"], 17)), tiles))
    return to_png(sheet(lines, titles=["truth", *config.recipes], beside=True), colours=None)
