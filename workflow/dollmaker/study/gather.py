"""The runs of a study in tables: scores, differences, steps and costs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from dollmaker.evaluate.tasks import (
    NOTHING,
    REFERENCES,
    Runs,
    compare_starts,
    crossed_means,
    read_runs,
    score_tasks,
)
from dollmaker.measures.words import finite
from dollmaker.runtime.errors import ArtifactError, DataError
from dollmaker.store import tables
from dollmaker.store.files import read_json

#: The tuning that stands for the one that each start's validation images prefer.
BEST = "best"

#: Share of the best score that has to be reached.
SHARE = 0.95

#: Columns of study_steps.parquet: one row per start and reference.
STEPS: dict[str, pl.DataType | type[pl.DataType]] = {
    "architecture": pl.String,
    "task": pl.String,
    "tuning": pl.String,
    "n": pl.String,
    "init": pl.String,
    "budgets": pl.List(pl.Int64),
    "miou": pl.List(pl.Float64),
    "steps": pl.Float64,
    "reference": pl.String,
    "ratio": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
}

_COSTS = (
    "trainable",
    "encoder_trainable_share",
    "optimizer_mb",
    "step_seconds",
    "adapter_mb",
    "learning_rate",
)
_RUN = ["task", "init", "tuning", "n"]

Floats = npt.NDArray[np.float64]


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

    Runs are folders of the study, ``{architecture}/{task}/{init}-{tuning}``; budgets are tunings
    that differ in steps alone, as :func:`dollmaker.study.grid.budgets` gives them.

    Returns:
        ``study``: one row per run, n and class, as tasks.parquet, with architecture, ``chosen``
        (the tuning that ``best`` stands for) and costs (means over seeds), and rows of the trivial
        baselines. ``differences``: mIoU of a start minus that of a reference, paired over patients
        and seeds. ``steps``: :func:`steps_of_runs`.
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
            names = set(best.select("task", "init", "n", "tuning").iter_rows())
            chosen_runs = [r for r in found if (r.task, r.init, r.n, r.tuning) in names]
            found += [replace(run, tuning=BEST) for run in chosen_runs]
            chosen = costs.join(best, on=_RUN, how="semi", maintain_order="left")
            chosen = chosen.with_columns(pl.lit(BEST).alias("tuning"), chosen="tuning")
            costs = pl.concat([costs, chosen])
        name = pl.lit(architecture).alias("architecture")
        scored = score_tasks([*found, *baselines], replicates, seed)
        scores.append(scored.join(costs, on=_RUN, how="left").select(name, pl.all()))
        differences.append(compare_starts(found, replicates, seed).select(name, pl.all()))
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
        .group_by(_RUN, maintain_order=True)
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


# --- steps by whole runs, of tunings that differ in their steps alone -----------------------------


def steps_of_runs(
    architecture: str,
    runs: Sequence[Runs],
    budgets: Mapping[str, Mapping[int, str]],
    replicates: int,
    seed: int,
    references: Sequence[str],
) -> pl.DataFrame:
    """Steps until whole runs reach 95 % of the best score of the longest ones.

    The middle of a long run says little about a short one: its learning rate is still high there,
    and may suit another length. Here every budget of steps has runs of its own, and the test mIoU
    at their ends makes the curve, straight between the budgets. The best is that of all starts
    after the largest budget. Who is there after the smallest has needed that many steps: nothing
    was measured before.

    The interval of the ratio draws patients and seeds, the same for both starts, and the goal anew
    each time; where nothing is known of a draw it is passed over. A reference that never gets there
    counts with the largest budget, and a start that never does is infinitely slow: neither flatters
    the start.

    Runs are all of the architecture; of a task and n all are on the same images and seeds. Budgets
    are as for :func:`gather`, ``references`` the starts that the others are compared with.

    Returns:
        A table with the columns :data:`STEPS`; ``steps``, ``ratio``, ``low`` and ``high`` are null
        where they are infinite, the last three where a start is the reference, and the last two
        with one patient. Empty without budgets.
    """
    rows = []
    by_name = {(run.task, run.n, run.init, run.tuning): run for run in runs}
    for name, tunings in budgets.items():
        order = dict(sorted(tunings.items()))
        for task, n in dict.fromkeys((run.task, run.n) for run in runs):
            inits = list(dict.fromkeys(run.init for run in runs if (run.task, run.n) == (task, n)))
            mine = [[by_name[task, n, init, each] for each in order.values()] for init in inits]
            # (N, I * B, S, K): all starts and budgets are drawn alike.
            iou = np.stack([run.iou for row in mine for run in row], axis=1)
            flat, replicated = crossed_means(iou, mine[0][0].patients, replicates, seed)
            once, drawn = (m.reshape(-1, len(inits), len(order)) for m in (flat[None], replicated))
            steps = _steps(list(order), once[0])
            known = np.isfinite(drawn[:, :, -1]).any(axis=1)
            slow = [_steps(list(order), miou) for miou in drawn[known]]
            there: list[str | None] = [each for each in references if each in inits]
            for k, init in enumerate(inits):
                common = {
                    "architecture": architecture,
                    "task": task,
                    "tuning": name,
                    "n": n,
                    "init": init,
                    "budgets": list(order),
                    "miou": once[0, k].tolist(),
                    "steps": finite(steps[k]),
                }
                for reference in there or [None]:
                    at = None if reference is None else inits.index(reference)
                    ratio = _ratio(steps, slow, k, at, max(order))
                    rows.append({**common, "reference": reference, **ratio})
    return pl.DataFrame(rows, schema=STEPS, orient="row")


def _steps(budgets: Sequence[int], miou: Floats) -> list[float]:
    """Steps of every start, from its scores (I, B); infinite where it never gets there."""
    target = SHARE * float(np.fmax.reduce(miou[:, -1]))
    lines = (zip(budgets, line, strict=True) for line in miou)
    return [max(first_crossing(points, target), budgets[0]) for points in lines]


def first_crossing(points: Iterable[tuple[float, float]], target: float) -> float:
    """Where a broken line through (0, 0) and the points first reaches a target; else infinite.

    Points whose value is NaN are passed over. A target that is not over 0 is never reached.
    """
    last_step, last = 0.0, 0.0
    for step, value in points:
        if value >= target > 0:
            return last_step + (target - last) / (value - last) * (step - last_step)
        if value == value:
            last_step, last = step, value
    return float("inf")


def _ratio(
    once: Sequence[float],
    drawn: Sequence[Sequence[float]],
    start: int,
    reference: int | None,
    last: int,
) -> dict[str, float | None]:
    unknown: dict[str, float | None] = {"ratio": None, "low": None, "high": None}
    if reference is None or reference == start:
        return unknown
    ratio = once[start] / min(once[reference], last)
    ratios = [each[start] / min(each[reference], last) for each in drawn]
    if not ratios:
        return {**unknown, "ratio": finite(ratio)}
    # No interpolation: some may be infinite.
    low = np.quantile(ratios, 0.025, method="lower")
    high = np.quantile(ratios, 0.975, method="higher")
    return {"ratio": finite(ratio), "low": finite(low), "high": finite(high)}
