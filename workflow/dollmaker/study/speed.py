"""How many steps a start needs: the first crossing of a share of the best score."""

from collections.abc import Mapping

import numpy as np
import polars as pl

#: Share of the best start's final score that has to be reached.
SHARE = 0.95

#: Columns of the table of steps: one row per run folder, n and seed.
STEPS = {
    "init": pl.String,
    "n": pl.String,
    "seed": pl.Int64,
    "steps": pl.Float64,
    "reached": pl.Boolean,
}


def steps_to_share(curves: Mapping[str, pl.DataFrame], share: float = SHARE) -> pl.DataFrame:
    """Steps until the validation mIoU reaches a share of the best final one.

    The best is the highest final validation mIoU among all starts of the same n and seed (one
    task, architecture and tuning), so that a start that ends low is not called fast. Between
    evaluations the curve is taken as straight, from zero at step zero. A run that never gets there
    counts with all its steps and is marked, and so do all where none has learned anything.

    Args:
        curves: Start -> its curve.parquet (columns n, seed, step, valid_miou).
        share: Share of the best.

    Returns:
        A table with the columns :data:`STEPS`.
    """
    table = pl.concat(
        curve.select(
            pl.lit(init).alias("init"), pl.col("n").cast(pl.String), "seed", "step", "valid_miou"
        )
        for init, curve in curves.items()
    )
    rows = []
    for (n, seed), group in table.group_by("n", "seed", maintain_order=True):
        ends = group.filter(pl.col("step") == pl.col("step").max().over("init"))
        target = share * float(np.fmax.reduce(ends["valid_miou"].to_numpy()))
        for (init,), curve in group.group_by("init", maintain_order=True):
            points = curve.sort("step").select("step", "valid_miou").rows()
            steps, reached = first_crossing(points, target)
            rows.append((init, n, seed, steps, reached))
    return pl.DataFrame(rows, schema=STEPS, orient="row")


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
