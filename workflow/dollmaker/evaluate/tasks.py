"""Fine-tuned segmenters on their tasks' test images, and what a start is worth over another.

Intervals are over what was drawn: patients and seeds. Other patients would give other scores, and
so would other training images and other random weights: a seed stands for both. Both are drawn with
replacement, independently (a crossed bootstrap, Owen 2007, "The pigeonhole bootstrap"); drawing
patients alone calls differences certain that another set of seeds turns around.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from dollmaker.measures import scores
from dollmaker.runtime.errors import ArtifactError
from dollmaker.store import tables

#: Name of the rows of the mean over classes.
MEAN = "mean"

#: Starts that the others are compared with.
REFERENCES = ("random", "imagenet", "classifier")

#: Tuning and n of the trivial baselines, whose names stand where starts do.
NOTHING = "-"

#: Columns of tasks.parquet: one row per task, init, tuning, n and class. ``miou_present`` is of the
#: images that hold the class, ``images_present`` in number (of the mean: that hold any).
TASKS: dict[str, pl.DataType | type[pl.DataType]] = {
    **dict.fromkeys(("task", "init", "tuning", "n"), pl.String),
    "n_images": pl.Int64,
    "class": pl.String,
    "images": pl.Int64,
    **dict.fromkeys(("miou", "miou_low", "miou_high"), pl.Float64),
    "images_present": pl.Int64,
    **dict.fromkeys(("miou_present", "miou_present_low", "miou_present_high"), pl.Float64),
    **dict.fromkeys(("dice", "dice_low", "dice_high"), pl.Float64),
    "seeds": pl.List(pl.Float64),
}

#: Columns of differences.parquet: mIoU of ``init`` minus that of ``reference``.
DIFFERENCES = {
    **dict.fromkeys(("task", "tuning", "n", "init", "reference", "class"), pl.String),
    **dict.fromkeys(("difference", "low", "high"), pl.Float64),
}

Floats = npt.NDArray[np.float64]
Patients = Sequence[str] | npt.NDArray[np.str_]


@dataclass(frozen=True)
class Runs:
    """All seeds of one task, start, tuning and number of images, on the same test images."""

    task: str
    init: str
    tuning: str
    n: str  #: Number of training images as configured; ``n_images`` is the number itself.
    n_images: int
    classes: list[str]  #: K names.
    images: list[str]  #: N test images, sorted.
    patients: npt.NDArray[Any]  #: Patient of each image (N).
    seeds: list[int]  #: S seeds, sorted.
    iou: Floats  #: (N, S, K), and so is ``dice``.
    dice: Floats
    present: npt.NDArray[np.bool_]  #: Whether an image holds a class, bool (N, K).


def read_runs(folders: Sequence[Path]) -> list[Runs]:
    """Read the scores of ``tasks/{task}/{init}-{tuning}`` folders.

    Returns:
        Those of the starts, in the order of the folders, then of each task its trivial baselines,
        once, with the tuning and n :data:`NOTHING`.

    Raises:
        ArtifactError: If a folder holds no scores, or those of an earlier version.
    """
    result: list[Runs] = []
    for folder in folders:
        init, _, tuning = folder.name.rpartition("-")
        file = folder / "scores.parquet"
        table = tables.read(file).with_columns(pl.col("n").cast(pl.String))
        if "present" not in table:
            raise ArtifactError(
                f"{file} lacks 'present': an earlier version wrote it; run it again."
            )
        for (n,), group in table.group_by("n", maintain_order=True):
            result.append(_runs(folder.parent.name, init, tuning, str(n), group))
    for task, folder in {folder.parent.name: folder for folder in reversed(folders)}.items():
        table = tables.read(folder / "baselines.parquet").with_columns(
            pl.lit(0, pl.Int64).alias("seed"), pl.lit(0, pl.Int64).alias("n_images")
        )
        for (name,), group in table.group_by("baseline", maintain_order=True):
            result.append(_runs(task, str(name), NOTHING, NOTHING, group))
    return result


def _runs(task: str, init: str, tuning: str, n: str, group: pl.DataFrame) -> Runs:
    classes = group["class"].unique(maintain_order=True).to_list()
    people = dict(group.select("image_id", "patient_id").sort("image_id").iter_rows())
    images, seeds = list(people), sorted(group["seed"].unique())
    places = {"image_id": images, "seed": seeds, "class": classes}
    at = tuple(_positions(group[column], known) for column, known in places.items())
    iou = np.full((len(images), len(seeds), len(classes)), np.nan)
    dice = iou.copy()
    for name, values in (("iou", iou), ("dice", dice)):
        values[at] = group[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    present = np.zeros((len(images), len(classes)), bool)
    present[at[0], at[2]] = group["present"].to_numpy()
    return Runs(
        task=task,
        init=init,
        tuning=tuning,
        n=n,
        n_images=int(group["n_images"][0]),
        classes=classes,
        images=images,
        patients=np.array([people[image] or image for image in images]),
        seeds=seeds,
        iou=iou,
        dice=dice,
        present=present,
    )


def _positions(values: pl.Series, known: Sequence[Any]) -> list[int]:
    place = {value: number for number, value in enumerate(known)}
    return [place[value] for value in values]


def score_tasks(runs: Sequence[Runs], replicates: int, seed: int) -> pl.DataFrame:
    """Mean IoU and Dice of each set of runs, a table with the columns :data:`TASKS`.

    The mean over images is taken per class and seed, then the mean over those. Where most images
    lack the class, a right "nothing" makes most of it, and drawing nothing at all scores well: so
    beside it stands the mean over the images that hold the class. ``seeds`` holds the mIoU of each
    seed.
    """
    rows = []
    for run in runs:
        for name, columns in _classes(run):
            iou, dice = run.iou[:, :, columns], run.dice[:, :, columns]
            present = run.present[:, columns]
            held = np.where(present[:, None], iou, np.nan)
            first, second, third = (
                mean_score(values, run.patients, replicates=replicates, seed=seed)
                for values in (iou, dice, held)
            )
            each = scores.nanmean(scores.nanmean(iou, axis=0), axis=1)
            rows.append(
                {
                    **{
                        key: getattr(run, key)
                        for key in ("task", "init", "tuning", "n", "n_images")
                    },
                    "class": name,
                    "images": len(run.images),
                    **first.columns("miou"),
                    "images_present": int(present.any(axis=1).sum()),
                    **third.columns("miou_present"),
                    **second.columns("dice"),
                    "seeds": [float(value) for value in each],
                }
            )
    return pl.DataFrame(rows, schema=TASKS, orient="row")


def compare_starts(runs: Sequence[Runs], replicates: int, seed: int) -> pl.DataFrame:
    """Differences of mIoU between starts, same task, tuning and n, on the same test images.

    A table with the columns :data:`DIFFERENCES`: every start against each of :data:`REFERENCES`
    that was run.
    """
    rows = []
    for run in runs:
        for other in runs:
            same = (run.task, run.tuning, run.n) == (other.task, other.tuning, other.n)
            if not same or other.init not in REFERENCES or other.init == run.init:
                continue
            shared = sorted(set(run.images) & set(other.images))
            left = [run.images.index(image) for image in shared]
            right = [other.images.index(image) for image in shared]
            seeds = sorted(set(run.seeds) & set(other.seeds))
            mine, its = ([r.seeds.index(s) for s in seeds] for r in (run, other))
            for name, columns in _classes(run):
                ours = run.iou[np.ix_(left, mine, columns)]
                theirs = other.iou[np.ix_(right, its, columns)]
                found = mean_score(
                    ours - theirs, run.patients[left], replicates=replicates, seed=seed
                )
                setting = (run.task, run.tuning, run.n, run.init, other.init, name)
                rows.append((*setting, found.point, found.low, found.high))
    return pl.DataFrame(rows, schema=DIFFERENCES, orient="row")


def _classes(run: Runs) -> list[tuple[str, list[int]]]:
    """The mean and each class, with its columns; one class alone is its own mean."""
    everything = list(range(len(run.classes)))
    each = [(name, [number]) for number, name in enumerate(run.classes)]
    return [(MEAN, everything), *each]


def mean_score(
    values: Floats, patients: Patients, *, replicates: int = 1000, seed: int = 0
) -> scores.Interval:
    """Mean score of a start, or difference of two, from those of N images, S seeds and K classes.

    The mean of ``values`` (N, S, K) is taken over images for each seed and class, then over
    classes, then over seeds. NaN, of which nothing is known, is passed over. The images of a
    patient (N,) are drawn together.

    Returns:
        The mean and its 95 % percentile interval; no interval (NaN) with one patient. With one seed
        it is over patients alone; with few it is somewhat too narrow.
    """
    means, drawn = crossed_means(values[:, None], patients, replicates, seed)
    return scores.interval_of(float(means[0]), drawn)


def crossed_means(
    values: Floats, patients: Patients, replicates: int, seed: int
) -> tuple[Floats, Floats]:
    """Means of M sets of scores (N, M, S, K), (M,), and those of replicates (R, M), drawn alike.

    As in :func:`mean_score`; one patient gives no replicate.
    """
    count, sets, seeds, classes = values.shape
    known = ~np.isnan(values)
    columns = (count, sets * seeds * classes)
    flat = np.where(known, values, 0.0).reshape(columns)
    counts = known.reshape(columns).astype(np.float64)

    def by_seed(weights: Floats) -> Floats:
        """Means of each seed, (r, M, S), for weights of the images (r, N)."""
        above, below = weights @ flat, weights @ counts
        means = np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)
        return np.asarray(scores.nanmean(means.reshape(-1, sets, seeds, classes), axis=3))

    rng = np.random.default_rng([seed, seeds])
    drawn = [np.empty((0, sets))]
    several = len(np.unique(np.asarray(patients, dtype=str))) > 1
    for weights in scores.resamples(count, patients, replicates if several else 0, seed):
        means = by_seed(weights)
        chosen = rng.integers(seeds, size=(len(means), 1, seeds))
        drawn.append(scores.nanmean(np.take_along_axis(means, chosen, axis=2), axis=2))
    whole = scores.nanmean(by_seed(np.ones((1, count)))[0], axis=1)
    return np.asarray(whole), np.concatenate(drawn)
