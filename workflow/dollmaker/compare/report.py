"""The comparison in Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from dollmaker.binarize.label_free import CRITERIA
from dollmaker.compare.rules import HELD_OUT, PUBLISHED, RULES, TRAINED
from dollmaker.evaluate.means import MEAN
from dollmaker.measures.baselines import BASELINES
from dollmaker.measures.words import number

#: Shares of the masks, best first by quality.
SHARES = (1.0, 0.75, 0.5, 0.25)


def write_report(
    config: Mapping[str, Any],
    summary: pl.DataFrame,
    ruled: pl.DataFrame,
    sanity: Mapping[str, Mapping[str, Any]],
    tuned: int,
) -> str:
    """All tables of a comparison.

    Args:
        config: The resolved configuration, with all recipes.
        summary: Table of recipes.
        ruled: Scored pairs under every rule.
        sanity: Recipe -> its checks.
        tuned: Number of patients whose true masks chose thresholds.
    """
    order = [*config["recipes"], *BASELINES]
    parts = [
        f"# Recipes on {config['dataset']}",
        "",
        "mIoU of pairs with a true mask, 95 % bootstrap intervals over patients; masks are asked "
        "for where the label says that the finding is there. Area: Spearman's correlation of the "
        "areas of masks and truth, mean over findings. "
        f"The true masks of {tuned} patients chose the tuned thresholds (all of these) and "
        f"of the few-shot rule ({config['compare']['few']} a finding); they are not scored. "
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
    lines = [
        "| recipe | " + " | ".join(RULES) + " | Dice | hit rate | AUPRC | area | s/image |",
        "|---|" + "---|" * (len(RULES) + 5),
    ]
    table = {(row["recipe"], row["rule"]): row for row in chosen.iter_rows(named=True)}
    for recipe in order:
        if (recipe, PUBLISHED) not in table:
            continue
        own = table[recipe, PUBLISHED]
        cells = [_interval(table.get((recipe, rule))) for rule in RULES]
        names = ("dice", "hit_rate", "auprc", "area_correlation", "seconds")
        more = [number(own[name], 3) for name in names]
        lines.append(f"| {recipe} | " + " | ".join([*cells, *more]) + " |")
    return lines


def _quality(ruled: pl.DataFrame, target: str, order: Sequence[str]) -> list[str]:
    """Rank correlation with the true IoU, and the mIoU of the best masks by quality."""
    lines = [
        "| recipe | Spearman | " + " | ".join(f"best {share:.0%}" for share in SHARES) + " |",
        "|---|---|" + "---|" * len(SHARES),
    ]
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
        lines.append(f"| {recipe} | " + " | ".join(number(v, 3) for v in (rank, *best)) + " |")
    return lines


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
