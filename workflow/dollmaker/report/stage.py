"""The stage: gather, draw, write the page, the summary and the figures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from dollmaker.evaluate.classifiers import COMMITTEE, MACRO
from dollmaker.measures.words import headline_split
from dollmaker.pictures.charts import Chart
from dollmaker.pictures.sheet import to_png
from dollmaker.report import examples as task_examples
from dollmaker.report import figures, gallery
from dollmaker.report.examples import Examples
from dollmaker.report.gallery import Gallery
from dollmaker.report.gather import Results, gather
from dollmaker.report.page import render
from dollmaker.report.summary import summarize
from dollmaker.store import tables
from dollmaker.store.files import atomic_path, write_json, write_text


def report(
    config: dict[str, Any],
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
        figures_folder: The folder to write with the main figures (PNG).

    Raises:
        ArtifactError: If the index is missing or a file is damaged.
        DataError: If the truth is not as described.
    """
    results = gather(config, results_folder, data_root)
    summary = summarize(results)
    charts = make_charts(results)
    galleries = gallery.make_galleries(results)
    made = {task: task_examples.make_examples(runs) for task, runs in results.tasks.items()}
    examples = {task: value for task, value in made.items() if value is not None}
    write_figures(figures_folder, charts, galleries, examples)
    write_json(summary_file, summary)
    write_text(output, render(results, summary, charts, galleries, examples))


def make_charts(results: Results) -> dict[str, Chart]:
    """All charts by name.

    ``classifier-curves``, ``reliability``, ``recipes``, ``segmenter`` and ``task-{task}``.
    """
    charts = {}
    curves = {name: model.get("curve") or [] for name, model in results.members.items()}
    if any(curves.values()):
        charts["classifier-curves"] = figures.classifier_curves(curves)
    known = results.scores.get("classifiers", pl.DataFrame())
    if "bin_counts" in known.columns:
        whole = known.filter(pl.col("member") == COMMITTEE, pl.col("finding") == MACRO)
        charts["reliability"] = figures.reliability({r["split"]: r for r in whole.to_dicts()})
    masks = results.scores.get("masks", pl.DataFrame())
    split = headline_split(masks)
    if split is not None and results.truth is not None:
        headline = (pl.col("split") == split) & (pl.col("target") == results.truth.targets[0])
        charts["recipes"] = figures.recipe_chart(figures.mean_rows(masks.filter(headline)))
    if results.segmenter and results.segmenter.get("curve"):
        charts["segmenter"] = figures.segmenter_curve(results.segmenter["curve"])
    for task, runs in results.tasks.items():
        files = {run: folder / "curve.parquet" for run, folder in runs.items()}
        there = {run: tables.read(file) for run, file in files.items() if file.exists()}
        if there:
            charts[f"task-{task}"] = figures.task_curves(there)
    return charts


def write_figures(
    folder: Path,
    charts: Mapping[str, Chart],
    galleries: Mapping[str, Gallery],
    examples: Mapping[str, Examples],
) -> None:
    """Write the charts (on light ground), ``gallery-{recipe}.png`` and ``examples-{task}.png``."""
    with atomic_path(folder) as part:
        part.mkdir()
        for name, chart in charts.items():
            (part / f"{name}.png").write_bytes(chart.light)
        for recipe, shown in galleries.items():
            if shown.best:
                (part / f"gallery-{recipe}.png").write_bytes(gallery.sheet(shown))
        for task, rows in examples.items():
            (part / f"examples-{task}.png").write_bytes(to_png(task_examples.sheet(rows)))
