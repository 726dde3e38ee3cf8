"""summary.json: the headline numbers, for machines. Every number is finite or null."""

import polars as pl

from dollmaker.evaluate.classifiers import COMMITTEE, MACRO
from dollmaker.evaluate.means import MEAN
from dollmaker.measures.baselines import BASELINES, MEAN_MAP, SEGMENTER
from dollmaker.measures.words import finite, headline_split
from dollmaker.release.parts import Row, Tree
from dollmaker.report.gather import Results

#: Slice of the headline.
SLICE = "full"


def summarize(results: Results) -> Tree:
    """The nested summary; sections that were not run are empty."""
    return {
        "dataset": results.config.dataset,
        "classifier": _classifier(results),
        "masks": _masks(results),
        "tasks": _tasks(results),
        "seconds": {stage: finite(value) for stage, value in results.seconds.items()},
    }


def _classifier(results: Results) -> Tree:
    table = results.table("classifiers")
    split = headline_split(table)
    if split is None:
        return {}
    here = table.filter(split=split)
    committee = {row["finding"]: row for row in here.filter(member=COMMITTEE).to_dicts()}
    macro = here.filter(pl.col("member") != COMMITTEE, finding=MACRO)
    return {
        "macro_auroc": finite(committee[MACRO]["auroc"]),
        "macro_auroc_low": finite(committee[MACRO]["auroc_low"]),
        "macro_auroc_high": finite(committee[MACRO]["auroc_high"]),
        "ece": finite(committee[MACRO].get("ece")),
        "split": split,
        "findings": {
            name: finite(row["auroc"]) for name, row in committee.items() if name != MACRO
        },
        "members": {row["member"]: finite(row["auroc"]) for row in macro.to_dicts()},
    }


def _masks(results: Results) -> Tree:
    table = results.table("masks")
    split = headline_split(table)
    if split is None or results.truth is None:
        return {}
    headline = results.truth.targets[0]
    here = table.filter(split=split, slice=SLICE)
    summary: Tree = {}
    for recipe in (*results.config.recipes, SEGMENTER, MEAN_MAP, *BASELINES):
        mine = here.filter(recipe=recipe)
        means = {row["target"]: row for row in mine.filter(finding=MEAN).to_dicts()}
        if headline not in means:
            continue
        each = mine.filter(pl.col("finding") != MEAN, target=headline)
        summary[recipe] = {
            **_numbers(means[headline]),
            "split": split,
            "target": headline,
            "slice": SLICE,
            "mean_over": means[headline]["mean_over"],
            "gated_by": means[headline]["gated_by"],
            "pairs": means[headline]["n"],
            "findings": {row["finding"]: finite(row["miou"]) for row in each.to_dicts()},
            "targets": {name: _numbers(row) for name, row in means.items()},
        }
    return summary


def _numbers(row: Row) -> Tree:
    names = ("miou", "dice", "hit_rate", "auprc", "area_correlation")
    numbers = {name: finite(row[name]) for name in names}
    return numbers | {"low": finite(row["miou_low"]), "high": finite(row["miou_high"])}


def _tasks(results: Results) -> Tree:
    table = results.table("tasks")
    summary: Tree = {}
    for row in table.filter(**{"class": MEAN}).to_dicts() if len(table) else ():
        place = summary.setdefault(row["task"], {}).setdefault(row["init"], {})
        place.setdefault(row["tuning"], {})[row["n"]] = {
            "miou": finite(row["miou"]),
            "low": finite(row["miou_low"]),
            "high": finite(row["miou_high"]),
            "dice": finite(row["dice"]),
            "seeds": [finite(value) for value in row["seeds"]],
        }
    return summary
