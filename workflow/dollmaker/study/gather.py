"""The runs of a study in tables: scores, differences, steps and costs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from dollmaker.evaluate.tasks import NOTHING, compare_starts, read_runs, score_tasks
from dollmaker.runtime.errors import ArtifactError, DataError
from dollmaker.store import tables
from dollmaker.store.files import read_json
from dollmaker.study.budgets import steps_of_runs

#: Starts that the others are compared with.
REFERENCES = ("random", "imagenet", "classifier")

#: The tuning that stands for the one that each start's validation images prefer.
BEST = "best"

_COSTS = (
    "trainable",
    "encoder_trainable_share",
    "optimizer_mb",
    "step_seconds",
    "adapter_mb",
    "learning_rate",
)
_RUN = ("architecture", "task", "init", "tuning", "n")


def gather(
    study: Path,
    runs: Sequence[str],
    budgets: Mapping[str, Mapping[int, str]],
    replicates: int,
    seed: int,
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Scores of all runs, differences between starts, and steps by whole runs.

    With more than one tuning there is one more, ``best``: of each start, for each n, the one whose
    final validation mIoU is the highest (mean over seeds). So is told what a start is worth to
    somebody who chooses, and not only in a tuning that may suit it or not.

    Args:
        study: Folder of the study.
        runs: Folders in it, ``{architecture}/{task}/{init}-{tuning}``.
        budgets: Tunings that differ in steps alone (:func:`dollmaker.study.grid.budgets`).
        replicates: Of the bootstrap.
        seed: Likewise.

    Returns:
        ``study``: one row per run, n and class, as tasks.parquet, with architecture, ``chosen``
        (the tuning that ``best`` stands for) and costs (means over seeds), and rows of the trivial
        baselines. ``differences``: mIoU of a start minus that of a reference, paired over patients
        and seeds. ``steps``: :func:`dollmaker.study.budgets.steps_of_runs`.
    """
    scores, differences, steps = [], [], []
    for architecture in dict.fromkeys(run.split("/")[0] for run in runs):
        folders = [study / run for run in runs if run.startswith(f"{architecture}/")]
        everything, curves, costs = read_runs(folders), _curves(folders), _costs(folders)
        found = [run for run in everything if run.tuning != NOTHING]
        baselines = [run for run in everything if run.tuning == NOTHING]
        steps.append(steps_of_runs(architecture, found, budgets, replicates, seed, REFERENCES))
        best = _preferred(curves)
        if best is not None:
            names = {(r["task"], r["init"], r["n"]): r["tuning"] for r in best.to_dicts()}
            found += [
                replace(run, tuning=BEST)
                for run in found
                if names[run.task, run.init, run.n] == run.tuning
            ]
            chosen = costs.join(best, on=list(_RUN[1:]), how="semi", maintain_order="left")
            costs = pl.concat(
                [costs, chosen.with_columns(pl.lit(BEST).alias("tuning"), chosen="tuning")]
            )
        name = pl.lit(architecture).alias("architecture")
        keys = list(_RUN[1:])
        scores.append(
            score_tasks([*found, *baselines], replicates, seed)
            .join(costs, on=keys, how="left")
            .select(name, pl.all())
        )
        compared = compare_starts(found, replicates, seed, references=REFERENCES)
        differences.append(compared.select(name, pl.all()))
    return pl.concat(scores), pl.concat(differences), pl.concat(steps)


def _key(folder: Path) -> dict[str, str]:
    init, _, tuning = folder.name.rpartition("-")
    return {"task": folder.parent.name, "init": init, "tuning": tuning}


def _curves(folders: Sequence[Path]) -> pl.DataFrame:
    parts = []
    for folder in folders:
        key = _key(folder)
        table = tables.read(folder / "curve.parquet").with_columns(pl.col("n").cast(pl.String))
        parts.append(table.select(*(pl.lit(v).alias(k) for k, v in key.items()), pl.all()))
    return pl.concat(parts)


def _preferred(curves: pl.DataFrame) -> pl.DataFrame | None:
    """Task, init, n and the tuning with the highest final validation mIoU; None if one is all."""
    key = ["task", "init", "n"]
    if curves["tuning"].n_unique() == 1:
        return None
    return (
        curves.filter(pl.col("step") == pl.col("step").max().over(*key, "tuning"))
        .group_by(*key, "tuning", maintain_order=True)
        .agg(pl.col("valid_miou").mean().fill_nan(-1.0))
        .sort("valid_miou", descending=True, maintain_order=True)
        .unique(key, keep="first", maintain_order=True)
        .select(*key, "tuning")
    )


def _costs(folders: Sequence[Path]) -> pl.DataFrame:
    rows: list[dict[str, Any]] = []
    for folder in folders:
        try:
            for run in read_json(folder / "runs.json")["runs"]:
                rows.append({**_key(folder), "n": run["n"], **{name: run[name] for name in _COSTS}})
        except KeyError as error:
            file = folder / "runs.json"
            raise ArtifactError(
                f"{file} lacks {error}: an earlier version wrote it; run it again."
            ) from None
    return (
        pl.DataFrame(rows, infer_schema_length=None)
        .group_by("task", "init", "tuning", "n", maintain_order=True)
        .agg(pl.col(name).mean() for name in _COSTS)
        .with_columns(pl.lit(None, pl.String).alias("chosen"))
    )


def check_hygiene(index: pl.DataFrame, study: Path, runs: Sequence[str]) -> dict[str, Any]:
    """Assert that no patient and no image of a task's test images was seen before.

    Seen is every patient of the index's splits train and valid: classifiers and pre-trainings use
    those and no others. Images are compared by name as well, for tasks that name patients in
    another way or not at all.

    Returns:
        ``seen`` (patients of train and valid) and ``tasks``: task -> its test patients; for the
        report.

    Raises:
        DataError: With the first patient or image that was seen, or if starts of a task were
            scored on other images or masks.
    """
    before = index.filter(pl.col("split") != "test")
    seen, images = (set(before[name].unique()) for name in ("patient_id", "image_id"))
    contents: dict[str, str] = {}
    tested: dict[str, int] = {}
    for run in runs:
        task = run.split("/")[1]
        content = tables.read_header(study / run / "scores.parquet")["inputs"].get("task", "")
        if contents.setdefault(task, content) != content:
            raise DataError(
                f"task {task}: {study / run} was run with other images or masks than the runs "
                f"before it; delete the folders of {task} under {study} and run the study again."
            )
        if task in tested:
            continue
        scored = tables.read(study / run / "scores.parquet")
        patients = set(scored["patient_id"].unique())
        both = sorted(patients & seen)
        what = "patient"
        if not both:
            both, what = sorted(set(scored["image_id"].unique()) & images), "image"
        if both:
            raise DataError(
                f"task {task}: test {what} {both[0]!r} ({len(both)} in all) was in the training "
                f"or validation images of the classifiers; set tasks.{task}.valid and test to "
                "null, so that the task keeps the data set's splits."
            )
        tested[task] = len(patients)
    return {"seen": len(seen), "tasks": tested}
