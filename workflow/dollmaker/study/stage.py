"""The stage: the tables scores/study*.parquet and the folder study/report.

Its README.md says what every start is worth, with intervals.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from dollmaker.config.whole import Config
from dollmaker.evaluate.tasks import MEAN, NOTHING
from dollmaker.measures.words import number, table
from dollmaker.pictures.overlay import to_png
from dollmaker.report.figures import amount_curves, task_curves
from dollmaker.report.pictures import examples_sheet, make_examples
from dollmaker.runtime.errors import DataError
from dollmaker.store import provenance, tables
from dollmaker.store.files import atomic_path, write_json, write_text
from dollmaker.store.tables import read_index
from dollmaker.study import grid
from dollmaker.study.gather import BEST, check_hygiene, gather

_INTRO = """# What a start is worth

mIoU of the test images (mean over classes), mean over seeds, at the size of the sources, [95 %
interval over patients and seeds]; a right "nothing" counts 1. *Where present*: of the images that
hold the class alone. Last stand masks that nobody drew: nothing, the whole image and the like.
*Against imagenet*: difference of mIoU on the same test images and seeds, paired bootstrap over
patients and seeds; bold where the interval excludes zero (with many rows, some do by chance).
*Rate*: the learning rate; of several the one with the best validation mIoU, mean over seeds.
Each pre-training was run once, and rates were chosen once: neither is in the intervals.
"""

_BEST = """Rows of the tuning *best* have, for each start and n, the tuning whose final validation
mIoU is the highest (mean over seeds; in brackets): what a start is worth to somebody who chooses,
with validation images beside the training images.
"""


_STEPS = """Steps by whole runs (the test mIoU at the end of each, straight lines between): to 95 %
of the best start's after the most steps. A ratio's interval is over patients and seeds; a start
that is there after the shortest runs counts with their steps, a reference that never gets there
with all its own; - is a start that never does.
"""


def write_study(config: Config, index_file: Path, study: Path, scores: Path, output: Path) -> None:
    """Tell what a start is worth, from the runs of a study.

    Args:
        config: The resolved configuration.
        index_file: The index, for the check that no test patient was seen.
        study: Folder of the runs.
        scores: Folder that receives study.parquet, study_differences.parquet, study_steps.parquet.
        output: Folder to make: README.md, hygiene.json and pictures.

    Raises:
        DataError: If a test patient was seen in training.
        ArtifactError: If a run is missing or damaged.
    """
    runs = grid.runs(config)
    if not runs:
        raise DataError("the study has no run: the configuration has no task; add one to tasks.")
    index, _ = read_index(index_file)
    hygiene = check_hygiene(index, study, runs)
    replicates, seed = config.evaluate.bootstrap, config.seed
    scored, differences, steps = gather(study, runs, grid.budgets(config), replicates, seed)
    header = provenance.header("study", config.study.dump(), seed=config.seed)
    tables.write(scored, scores / "study.parquet", header)
    tables.write(differences, scores / "study_differences.parquet", header)
    tables.write(steps, scores / "study_steps.parquet", header)
    with atomic_path(output) as folder:
        folder.mkdir(parents=True)
        write_text(folder / "README.md", write_page(scored, differences, steps, hygiene))
        write_json(folder / "hygiene.json", hygiene)
        for (architecture, task), group in scored.group_by(
            "architecture", "task", maintain_order=True
        ):
            name = f"{architecture}-{task}"
            starts = group.filter(pl.col("tuning") != NOTHING)
            (folder / f"{name}-amounts.png").write_bytes(amount_curves(starts).light)
            place = study / str(architecture) / str(task)
            # The runs of BEST lie in folders of other tunings.
            own = starts.filter(pl.col("tuning") != BEST)
            for (tuning,), rows in own.group_by("tuning", maintain_order=True):
                inits = rows["init"].unique(maintain_order=True)
                folders = {f"{init}-{tuning}": place / f"{init}-{tuning}" for init in inits}
                _draw(folder, f"{name}-{tuning}", folders)


def _draw(folder: Path, name: str, runs: dict[str, Path]) -> None:
    """The curves of the starts of one tuning, and what they draw in the same images."""
    curves = {run: tables.read(path / "curve.parquet") for run, path in runs.items()}
    (folder / f"{name}-epochs.png").write_bytes(task_curves(curves).light)
    examples = make_examples(runs)
    if examples is not None:
        (folder / f"{name}-examples.png").write_bytes(to_png(examples_sheet(examples)))


# --- README.md ----------------------------------------------------------------------------------


def write_page(
    study: pl.DataFrame,
    differences: pl.DataFrame,
    steps: pl.DataFrame,
    hygiene: Mapping[str, Any],
) -> str:
    """All tables: scores of the runs, differences between starts, steps by whole runs.

    ``hygiene`` is what :func:`dollmaker.study.gather.check_hygiene` found.
    """
    tested = ", ".join(f"{task} {count}" for task, count in hygiene["tasks"].items())
    parts = [
        _INTRO,
        f"Patients of the test images ({tested}) and the {hygiene['seen']} patients that "
        "classifiers and pre-trainings saw: none in common (checked).\n",
    ]
    means = study.filter(pl.col("class") == MEAN)
    if BEST in means["tuning"]:
        parts.append(_BEST)
    imagenet = differences.filter(pl.col("class") == MEAN, reference="imagenet")
    against = {_run(row): row for row in imagenet.to_dicts()}
    head = ("tuning", "n", "start", "rate", "mIoU", "where present", "against imagenet")
    for (architecture, task), group in means.group_by("architecture", "task", maintain_order=True):
        lines = []
        for _, rows in group.group_by("tuning", "n", maintain_order=True):
            for row in rows.sort("miou", descending=True).to_dicts():
                lines.append(_cells(row, against.get(_run(row))))
        parts += [f"## {task}, {architecture}\n", *table(head, lines), ""]
        mine = steps.filter(pl.col("architecture") == architecture, pl.col("task") == task)
        if not mine.is_empty():
            parts += _budgets(mine)
        parts += _costs(group)
    return "\n".join(parts) + "\n"


def _run(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(row[key] for key in ("architecture", "task", "init", "tuning", "n"))


def _cells(row: Mapping[str, Any], against: Mapping[str, Any] | None) -> Sequence[object]:
    score, present = (
        f"{row[name]:.3f} [{row[f'{name}_low']:.3f}, {row[f'{name}_high']:.3f}]"
        for name in ("miou", "miou_present")
    )
    difference = "-"
    if against is not None:
        difference = f"{against['difference']:+.3f} [{against['low']:+.3f}, {against['high']:+.3f}]"
        if against["low"] > 0 or against["high"] < 0:
            difference = f"**{difference}**"
    tuning = row["tuning"] if row["chosen"] is None else f"{row['tuning']} ({row['chosen']})"
    drawn = row["tuning"] != NOTHING  # by a network, and not by a rule
    rate = f"{row['learning_rate']:g}" if drawn else "-"
    images = row["n_images"] if drawn else "-"
    return tuning, images, row["init"], rate, score, present, difference


def _budgets(steps: pl.DataFrame) -> list[str]:
    parts = [_STEPS]
    for (tuning,), group in steps.group_by("tuning", maintain_order=True):
        after = [f"after {budget}" for budget in group["budgets"][0]]
        lines = []
        for (n, init), rows in group.group_by("n", "init", maintain_order=True):
            first = rows.row(0, named=True)
            to = _needed(first["steps"], first["budgets"])
            against = {row["reference"]: _ratio(row) for row in rows.to_dicts()}
            ratios = [against.get(name, "-") for name in ("random", "imagenet")]
            scores = [f"{miou:.3f}" for miou in first["miou"]]
            lines.append((f"n = {n}", init, *scores, to, *ratios))
        head = (str(tuning), "start", *after, "steps to 95 %", "of random's", "of imagenet's")
        parts += [*table(head, lines), ""]
    return parts


def _needed(steps: float | None, budgets: Sequence[int]) -> str:
    if steps is None:
        return f">{budgets[-1]}"
    return f"at most {budgets[0]}" if steps == budgets[0] else f"{steps:.0f}"


def _ratio(row: Mapping[str, Any]) -> str:
    """A ratio with its interval; the reference itself has neither."""
    if row["ratio"] is None and row["low"] is None:
        return "-"
    ratio, low, high = (number(row[name]) for name in ("ratio", "low", "high"))
    return f"{ratio} [{low}, {high}]"


def _costs(group: pl.DataFrame) -> list[str]:
    every = (
        group.filter(~pl.col("tuning").is_in([BEST, NOTHING]))
        .group_by("tuning", maintain_order=True)
        .agg(
            pl.col("trainable", "encoder_trainable_share", "optimizer_mb", "step_seconds").median(),
            # Of random starts the whole network belongs to the task: the smallest is the base's.
            pl.col("adapter_mb").min(),
        )
    )
    lines = [
        (
            row["tuning"],
            f"{row['trainable']:,.0f}",
            f"{100 * row['encoder_trainable_share']:.1f} %",
            f"{row['optimizer_mb']:.3g} MB",
            f"{row['step_seconds']:.2f} s",
            f"{row['adapter_mb']:.3g} MB",
        )
        for row in every.to_dicts()
    ]
    head = ("trained parameters", "of the encoder", "optimiser", "a step", "file of a task")
    return [*table(("tuning", *head), lines), ""]
