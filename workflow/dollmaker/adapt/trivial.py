"""What a mask is worth in a task that was drawn by nobody: the rows beside those of the starts."""

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from dollmaker.adapt.tasks import Task
from dollmaker.adapt.truth import SCORED, SourceMasks, overlap
from dollmaker.measures.baselines import BASELINES, guess

#: Draws nothing: on images that mostly lack the class it beats many networks.
EMPTY = "empty"

#: Columns of baselines.parquet: one row per baseline, test image and class.
COLUMNS = {"baseline": pl.String, **SCORED}


def score_baselines(task: Task) -> pl.DataFrame:
    """Scores of ``empty`` and of the baselines of masks, as those of a network.

    Returns:
        A table with the columns :data:`COLUMNS`.
    """
    rows = []
    for row in task.rows("test"):
        truth = task.true(row)
        masks = {n: _draw(n, task.images[row], truth, task) for n in (EMPTY, *BASELINES)}
        for k, cls in enumerate(task.classes):
            present, ignored = truth.read(k)
            image = (task.image_ids[row], task.patients[row], cls, bool(present.any()))
            for name, mask in masks.items():
                iou, dice = overlap(mask, present, ignored)
                rows.append((name, *image, float(iou), float(dice)))
    return pl.DataFrame(rows, schema=COLUMNS, orient="row")


def _draw(
    name: str, image: npt.NDArray[Any], truth: SourceMasks, task: Task
) -> npt.NDArray[np.bool_]:
    if name == EMPTY:
        return np.zeros((truth.height, truth.width), bool)
    return guess(name, image, truth.width, truth.height, task.fit).mask
