"""The results of runs: kept one by one, then written as the folder of a task."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from dollmaker.adapt.source_scores import SCORED, SourceMasks, overlap
from dollmaker.adapt.tasks import Task
from dollmaker.adapt.train import Run, mean_iou
from dollmaker.measures.baselines import BASELINES, guess
from dollmaker.measures.words import finite
from dollmaker.pixels.masks import surround
from dollmaker.runtime.errors import ArtifactError
from dollmaker.runtime.picks import evenly
from dollmaker.store import tables
from dollmaker.store.files import atomic_path, write_json

#: Number of test images in examples.npz.
EXAMPLES = 6

_KEYS: dict[str, Any] = {"n": pl.String, "n_images": pl.Int64, "seed": pl.Int64}

#: Columns of curve.parquet: one row per run and evaluation.
CURVE = {**_KEYS, "step": pl.Int64, **dict.fromkeys(("epoch", "loss", "valid_miou"), pl.Float64)}

#: Columns of scores.parquet: one row per run, test image and class; ``present``: whether the image
#: holds the class.
SCORES = {**_KEYS, **SCORED}

#: Columns of baselines.parquet: one row per baseline, test image and class.
BASELINE_SCORES = {"baseline": pl.String, **SCORED}

#: The baseline that draws nothing: on images that mostly lack the class it beats many networks.
EMPTY = "empty"

#: Those of a run.
_ARRAYS = ("predictions", "iou", "dice", "present")


def keep(run: Run, file: Path, keys: Mapping[str, Any]) -> None:
    """Write a run atomically, with the keys (n, n_images, seed) that tell it from others."""
    words = json.dumps({"keys": dict(keys), "curve": run.curve, "cost": run.cost})
    arrays = {name: getattr(run, name) for name in _ARRAYS}
    with atomic_path(file) as part, part.open("wb") as handle:
        np.savez_compressed(handle, allow_pickle=False, words=np.array(words), **arrays)


def take(file: Path) -> tuple[dict[str, Any], Run]:
    """Read what :func:`keep` wrote: the keys and the run; an ``ArtifactError`` if it is damaged."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            words = json.loads(str(arrays["words"]))
            own = {name: arrays[name] for name in _ARRAYS}
            return words["keys"], Run(curve=words["curve"], cost=words["cost"], **own)
    except Exception as error:  # any damage of the file
        raise ArtifactError(f"{file} is damaged ({error}); delete it and run again.") from None


def kept(file: Path) -> bool:
    """Whether an earlier attempt left a run whole; a damaged file is removed."""
    if not file.exists():
        return False
    try:
        take(file)
    except ArtifactError:
        file.unlink()
        return False
    return True


def write_results(
    folder: Path,
    task: Task,
    runs: Sequence[tuple[dict[str, Any], Run]],
    tried: Sequence[dict[str, Any]],
    header: dict[str, Any],
) -> None:
    """Write the tables curve, scores and baselines, runs.json and examples.npz into a folder.

    Runs come with their keys. Of the learning rates that were tried it is written which validation
    mIoU chose among them.
    """
    test = task.rows("test")
    baselines = score_baselines(task)
    curve = [{**keys, **point} for keys, run in runs for point in run.curve]
    scores = [
        {
            **keys,
            "image_id": task.image_ids[row],
            "patient_id": task.patients[row],
            "class": name,
            "present": bool(run.present[i, k]),
            "iou": float(run.iou[i, k]),
            "dice": float(run.dice[i, k]),
        }
        for keys, run in runs
        for i, row in enumerate(test)
        for k, name in enumerate(task.classes)
    ]
    tables.write(pl.DataFrame(curve, schema=CURVE), folder / "curve.parquet", header)
    tables.write(pl.DataFrame(scores, schema=SCORES), folder / "scores.parquet", header)
    tables.write(baselines, folder / "baselines.parquet", header)
    described = [
        {**keys, **run.cost, "test_miou": finite(mean_iou(run.iou, run.present))}
        for keys, run in runs
    ]
    attempts = [{**entry, "valid_miou": finite(entry["valid_miou"])} for entry in tried]
    write_json(folder / "runs.json", {"header": header, "runs": described, "tried": attempts})
    chosen = evenly(len(test), EXAMPLES)
    rows = test[chosen]
    masks = [surround(task.masks[row], task.boxes[row], 0) for row in rows]
    with (folder / "examples.npz").open("wb") as handle:
        np.savez_compressed(
            handle,
            allow_pickle=False,
            image=task.images[rows],
            truth=np.stack(masks),
            image_id=np.array([task.image_ids[row] for row in rows], dtype=np.str_),
            classes=np.array(task.classes, dtype=np.str_),
            **{
                f"prediction_{keys['n']}": run.predictions[chosen]
                for keys, run in runs
                if keys["seed"] == 0
            },
        )


def score_baselines(task: Task) -> pl.DataFrame:
    """Scores of ``empty`` and of the baselines of masks, as those of a network."""
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
    return pl.DataFrame(rows, schema=BASELINE_SCORES, orient="row")


def _draw(
    name: str, image: npt.NDArray[Any], truth: SourceMasks, task: Task
) -> npt.NDArray[np.bool_]:
    if name == EMPTY:
        return np.zeros((truth.height, truth.width), bool)
    return guess(name, image, truth.width, truth.height, task.fit).mask
