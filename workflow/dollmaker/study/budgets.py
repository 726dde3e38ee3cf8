"""How many steps a start needs, by whole runs: tunings that differ in their steps alone."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from dollmaker.evaluate.tasks import Runs, crossed_means
from dollmaker.measures.words import finite

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

Floats = npt.NDArray[np.float64]


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

    Args:
        architecture: Name of the architecture.
        runs: All runs of the architecture; of a task and n all on the same images and seeds.
        budgets: Name -> steps -> tuning, as :func:`dollmaker.study.grid.budgets` gives them.
        replicates: Bootstrap replicates.
        seed: Seed of the bootstrap.
        references: Starts that the others are compared with.

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
    found = (first_crossing(list(zip(budgets, line, strict=True)), target) for line in miou)
    return [max(steps, budgets[0]) if reached else float("inf") for steps, reached in found]


def first_crossing(points: list[tuple[float, float]], target: float) -> tuple[float, bool]:
    """Where a broken line through (0, 0) and the points first reaches a target, and whether.

    Points whose value is NaN are passed over. A target that is not over 0 is never reached.
    """
    last_step, last = 0.0, 0.0
    for step, value in points:
        if value >= target > 0:
            return last_step + (target - last) / (value - last) * (step - last_step), True
        if value == value:
            last_step, last = step, value
    return max((step for step, _ in points), default=0.0), False


def _ratio(
    once: Sequence[float],
    drawn: Sequence[Sequence[float]],
    start: int,
    reference: int | None,
    last: int,
) -> dict[str, float | None]:
    if reference is None or reference == start:
        return {"ratio": None, "low": None, "high": None}
    ratio = once[start] / min(once[reference], last)
    ratios = [each[start] / min(each[reference], last) for each in drawn]
    if not ratios:
        return {"ratio": finite(ratio), "low": None, "high": None}
    # No interpolation: some may be infinite.
    low = np.quantile(ratios, 0.025, method="lower")
    high = np.quantile(ratios, 0.975, method="higher")
    return {"ratio": finite(ratio), "low": finite(low), "high": finite(high)}
