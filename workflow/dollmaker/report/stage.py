"""The stage: gather, draw, write the page, the summary and the figures.

summary.json has the headline numbers, for machines. Every number is finite or null.
"""

from pathlib import Path

import polars as pl

from dollmaker.config.whole import Config
from dollmaker.evaluate.classifiers import COMMITTEE, MACRO
from dollmaker.evaluate.means import MEAN
from dollmaker.measures.baselines import BASELINES, MEAN_MAP, SEGMENTER
from dollmaker.measures.words import finite, headline_split
from dollmaker.pictures.overlay import to_png
from dollmaker.release.parts import Row, Tree
from dollmaker.report import pictures
from dollmaker.report.figures import make_charts
from dollmaker.report.gather import Results, gather
from dollmaker.report.page import render
from dollmaker.store.files import atomic_path, write_json, write_text

#: Slice of the headline.
SLICE = "full"


def report(
    config: Config,
    *,
    results_folder: Path,
    data_root: Path,
    output: Path,
    summary_file: Path,
    figures_folder: Path,
) -> None:
    """Write report.html and summary.json.

    Args:
        config: The resolved configuration.
        results_folder: ``results/{dataset}``; what is absent there is left out.
        data_root: Folder of the source data, for the truth in the pictures.
        output: The page to write (HTML).
        summary_file: The summary to write (JSON).
        figures_folder: The folder to write with the main figures (PNG): the charts on light
            ground, ``gallery-{recipe}.png`` and ``examples-{task}.png``.

    Raises:
        ArtifactError: If the index is missing or a file is damaged.
        DataError: If the truth is not as described.
    """
    results = gather(config, results_folder, data_root)
    summary = summarize(results)
    charts = make_charts(results)
    galleries = pictures.make_galleries(results)
    made = {task: pictures.make_examples(runs) for task, runs in results.tasks.items()}
    examples = {task: shown for task, shown in made.items() if shown is not None}
    with atomic_path(figures_folder) as part:
        part.mkdir()
        for name, chart in charts.items():
            (part / f"{name}.png").write_bytes(chart.light)
        for recipe, gallery in galleries.items():
            if gallery.best:
                (part / f"gallery-{recipe}.png").write_bytes(pictures.gallery_sheet(gallery))
        for task, shown in examples.items():
            sheet = pictures.examples_sheet(shown)
            (part / f"examples-{task}.png").write_bytes(to_png(sheet))
    write_json(summary_file, summary)
    write_text(output, render(results, summary, charts, galleries, examples))


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
