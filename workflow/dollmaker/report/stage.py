"""The stage: gather, draw, write the page, the summary and the figures."""

from pathlib import Path

from dollmaker.config.whole import Config
from dollmaker.pictures.overlay import to_png
from dollmaker.report import pictures
from dollmaker.report.figures import make_charts
from dollmaker.report.gather import gather
from dollmaker.report.page import render
from dollmaker.report.summary import summarize
from dollmaker.store.files import atomic_path, write_json, write_text


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
