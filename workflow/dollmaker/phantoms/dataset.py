"""Write phantoms as a data set: CheXpert's tree, CheXlocalize's truth, two downstream tasks.

Every patient follows from (seed, kind, patient number) alone: neither the number of images nor
that of workers changes a byte of it.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import count, islice
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from dollmaker.phantoms.patient import (
    Patient,
    Sign,
    certain_labels,
    draw_sign,
    draw_signs,
    draw_story,
    labeller_labels,
    sample_patient,
)
from dollmaker.phantoms.study import Picture, render_frontal, render_lateral
from dollmaker.runtime.errors import ConfigError
from dollmaker.store import rle
from dollmaker.store.files import atomic_path, require_new, write_json, write_text
from dollmaker.store.findings import CHEXPERT

ROOT = "CheXpert-v1.0-small"
COLUMNS = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT)
ORGAN_BITS = {"lungs": 1, "heart": 2, "clavicles": 4}

_KINDS = {"train": 0, "valid": 1, "organs": 2, "infection": 3}  # separate patients for each purpose
_FIRST_VALID = 64541  # CheXpert's numbering goes on where train ends
_VALID_SHARE = 0.15
_LATERAL_SHARE = 0.19  # of studies; 12 % of views when some have one study, some several
_QUALITY = 92
_POSE = ("field", "roll", "yaw", "shift", "exposure", "contrast")

Split = Literal["train", "valid"]
Task = Literal["organs", "infection"]
_TASKS: tuple[Task, ...] = ("organs", "infection")
Labels = dict[str, int | None]
Rle = dict[str, object]


@dataclass(frozen=True)
class View:
    """One picture to make, with all that decides it."""

    path: str  # relative to the output
    patient: Patient
    signs: dict[str, Sign]
    labels: Labels
    lateral: bool
    shape: tuple[int, int]
    seed: int


def write_dataset(
    output: Path,
    images: int = 1000,
    size: int = 128,
    seed: int = 0,
    task_images: int = 120,
    workers: int = 1,
) -> None:
    """Generate radiographs in CheXpert's form, with pixel truth, whole or not at all.

    Args:
        output: Folder to make; an older one of phantoms is made anew.
        images: CheXpert-style views, frontal and lateral together; about 15 % become valid.csv.
        size: Long side of a picture in pixels, 32 to 1024.
        seed: Decides everything.
        task_images: Pictures of each downstream task, `organs` and `infection`; 0 for none.
        workers: Processes that render.

    Raises:
        ConfigError: If a number is out of range.
        DataError: If something else is at the output.
    """
    _check(images=images, size=size, seed=seed, task_images=task_images, workers=workers)
    if not (output / ROOT).is_dir():
        require_new(output)
    valid = max(1, round(_VALID_SHARE * images))
    splits: dict[Split, list[View]] = {
        "train": list(islice(_views("train", size, seed), images - valid)),
        "valid": list(islice(_views("valid", size, seed), valid)),
    }
    tasks = {task: list(islice(_task_views(task, size, seed), task_images)) for task in _TASKS}
    jobs = [view for views in (*splits.values(), *tasks.values()) for view in views]
    with atomic_path(output.resolve()) as folder:
        truths = list(_render_all(jobs, folder, workers))
        start = 0
        for split, views in splits.items():
            found = zip(views, truths[start : start + len(views)], strict=True)
            write_json(
                folder / "truth" / f"{split}.json",
                {_image_id(view): truth for view, truth in found if not view.lateral},
            )
            write_text(folder / ROOT / f"{split}.csv", _table(COLUMNS, map(_row, views)))
            start += len(views)
        for task, task_views in tasks.items():
            if task_views:
                table = _table(("image", "mask", "patient_id"), map(_task_row, task_views))
                write_text(folder / task / "index.csv", table)


def _check(*, images: int, size: int, seed: int, task_images: int, workers: int) -> None:
    if images < 2:
        raise ConfigError(f"images is {images}; ask for at least 2, one to train, one to test.")
    if not 32 <= size <= 1024:
        raise ConfigError(f"size is {size}; choose a long side from 32 to 1024 pixels.")
    if seed < 0 or task_images < 0:
        raise ConfigError("seed and task images must not be negative; use 0 or more.")
    if workers < 1:
        raise ConfigError(f"workers is {workers}; use 1 or more.")


# --- planning -----------------------------------------------------------------------------------


def _views(split: Split, size: int, seed: int) -> Iterator[View]:
    """All views of all patients of a split, without end."""
    for number in count(1):
        rng = np.random.default_rng([seed, _KINDS[split], number])
        story, ap = draw_story(rng)
        patient = sample_patient(rng, ap=ap)
        name = f"patient{number + (_FIRST_VALID - 1 if split == 'valid' else 0):05d}"
        studies = 1 + int(rng.random() < 0.25) + int(rng.random() < 0.08)
        for study in range(1, studies + 1):
            signs = draw_signs(story, rng)
            labels = certain_labels(signs) if split == "valid" else labeller_labels(signs, rng)
            pose = _posed(patient, rng)
            lateral = bool(rng.random() < _LATERAL_SHARE * (0.5 if ap else 1.0))
            for view in ("view1_frontal", "view2_lateral"):
                sideways = view == "view2_lateral"
                path = f"{ROOT}/{split}/{name}/study{study}/{view}.jpg"
                shape, shot = _shape(size, rng), int(rng.integers(2**62))
                if lateral or not sideways:
                    yield View(path, pose, signs, labels, sideways, shape, shot)


def _posed(patient: Patient, rng: np.random.Generator) -> Patient:
    """The same patient, positioned and exposed anew."""
    other = sample_patient(rng, ap=patient.ap)
    return replace(patient, **{name: getattr(other, name) for name in _POSE})


def _shape(size: int, rng: np.random.Generator) -> tuple[int, int]:
    """Height and width: mostly a little wider than high, as pictures come from the ward."""
    short = round(size * float(rng.uniform(0.85, 1.0)))
    return (short, size) if rng.random() < 0.7 else (size, short)


def _task_views(task: Task, size: int, seed: int) -> Iterator[View]:
    """All pictures of a downstream task, one per patient, without end."""
    for number in count(1):
        rng = np.random.default_rng([seed, _KINDS[task], number])
        patient = sample_patient(rng, ap=False if task == "organs" else None)
        if task == "infection":
            signs = _infection(rng)
        else:  # like JSRT: nodules, otherwise healthy
            signs = {"Lung Lesion": draw_sign(rng)} if rng.random() < 0.25 else {}
        yield View(
            path=f"{task}/images/{task}{number:05d}.png",
            patient=patient,
            signs=signs,
            labels={},
            lateral=False,
            shape=_shape(size, rng),
            seed=int(rng.integers(2**62)),
        )


def _infection(rng: np.random.Generator) -> dict[str, Sign]:
    """Patches in one or both lungs; one picture in eight is clear."""
    if rng.random() < 0.12:
        return {}
    signs = {"Pneumonia": draw_sign(rng)}
    if rng.random() < 0.55:  # the other lung as well
        second = draw_sign(rng)
        signs["Consolidation"] = replace(second, side=-1 if signs["Pneumonia"].side > 0 else 1)
    return signs


# --- rendering ----------------------------------------------------------------------------------


def _render_all(views: Sequence[View], output: Path, workers: int) -> Iterator[dict[str, Rle]]:
    """Render and save all views; the truths come back in the order of the views."""
    if workers == 1:
        for view in views:
            yield _make(view, output)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_make, views, [output] * len(views), chunksize=8)


def _make(view: View, output: Path) -> dict[str, Rle]:
    """Render one view, save its files, return its encoded truth."""
    render = render_lateral if view.lateral else render_frontal
    picture = render(view.patient, view.signs, view.shape, view.seed)
    path = output / view.path
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(picture.image)
    if path.suffix == ".jpg":
        image.save(path, quality=_QUALITY)
        size = [int(side) for side in view.shape]
        return {n: {"size": size, "counts": rle.encode(m)} for n, m in picture.masks.items()}
    image.save(path)
    mask_path = output / _mask_path(view)
    mask_path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(_task_mask(view, picture)).save(mask_path)
    return {}


def _task_mask(view: View, picture: Picture) -> npt.NDArray[np.uint8]:
    if view.path.startswith("infection"):
        return picture.masks["Lung Opacity"].astype(np.uint8)
    bits = np.zeros(picture.image.shape, np.uint8)
    for organ, bit in ORGAN_BITS.items():
        bits |= picture.organs[organ].astype(np.uint8) * np.uint8(bit)
    return bits


# --- tables -------------------------------------------------------------------------------------


def _image_id(view: View) -> str:
    """CheXlocalize's key of an image: patient00001_study1_view1_frontal."""
    return "_".join(Path(view.path).with_suffix("").parts[-3:])


def _row(view: View) -> list[str]:
    patient = view.patient
    known = [
        view.path,
        patient.sex,
        str(patient.age),
        "Lateral" if view.lateral else "Frontal",
        "" if view.lateral else "AP" if patient.ap else "PA",
    ]
    values = (view.labels[name] for name in CHEXPERT)
    return known + ["" if value is None else f"{value:.1f}" for value in values]


def _mask_path(view: View) -> str:
    return view.path.replace("/images/", "/masks/")


def _task_row(view: View) -> list[str]:
    """Paths relative to the task's folder."""
    image = view.path.split("/", 1)[1]
    mask = _mask_path(view).split("/", 1)[1]
    return [image, mask, Path(view.path).stem]


def _table(columns: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()
