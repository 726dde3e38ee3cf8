"""Pictures of the tasks: image, truth and what each start predicts."""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dollmaker.pictures.overlay import CLASSES, Rgb, panel_shape, tint, to_rgb
from dollmaker.pictures.sheet import sheet as lay_out
from dollmaker.runtime.errors import ArtifactError

_ROWS = 4
_SIDE = 128


@dataclass(frozen=True)
class Examples:
    """Some test images of one task.

    Attributes:
        n: Number of training images of the shown runs, as configured.
        columns: Names of the pictures in a row.
        classes: Class name -> colour as ``#rrggbb``.
        rows: Image name -> its pictures.
    """

    n: str
    columns: list[str]
    classes: dict[str, str]
    rows: list[tuple[str, list[Rgb]]]


def make_examples(runs: Mapping[str, Path]) -> Examples | None:
    """The examples of a task at its smallest number of training images, where starts differ most.

    Args:
        runs: Run name ``{init}-{tuning}`` -> folder.

    Raises:
        ArtifactError: If a file is damaged.
    """
    loaded = {run: _load(path / "examples.npz") for run, path in runs.items()}
    loaded = {run: arrays for run, arrays in loaded.items() if arrays}
    amounts = sorted(
        {key.removeprefix("prediction_") for arrays in loaded.values() for key in arrays}
        - {"image", "truth", "image_id", "classes"},
        key=lambda n: int(n) if n.isdecimal() else 10**9,
    )
    if not amounts or not len(next(iter(loaded.values()))["image_id"]):
        return None
    first, n = next(iter(loaded.values())), amounts[0]
    classes = [str(name) for name in first["classes"]]
    colours = [CLASSES[k % len(CLASSES)] for k in range(len(classes))]
    rows = []
    for place, image_id in enumerate(first["image_id"][:_ROWS]):
        image = first["image"][place]
        shape = panel_shape(image.shape[-1], image.shape[-2], _SIDE)
        ground = to_rgb(image, shape)
        panels = [ground, tint(ground, dict(zip(colours, first["truth"][place], strict=False)))]
        for arrays in loaded.values():
            same = np.flatnonzero(arrays["image_id"] == image_id)
            known = len(same) and f"prediction_{n}" in arrays
            masks = arrays[f"prediction_{n}"][same[0]] if known else np.zeros((0, *shape), np.uint8)
            panels.append(tint(ground, dict(zip(colours, masks, strict=False))))
        rows.append((str(image_id), panels))
    return Examples(
        n=n,
        columns=["image", "truth", *(", ".join(run.rsplit("-", 1)) for run in loaded)],
        classes={
            name: "#{:02x}{:02x}{:02x}".format(*colour)
            for name, colour in zip(classes, colours, strict=True)
        },
        rows=rows,
    )


def _load(path: Path) -> dict[str, npt.NDArray[Any]]:
    if not path.exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"{path} is damaged ({error}); delete it and run again.") from None


def sheet(examples: Examples) -> Rgb:
    """All rows below each other with the names of the columns on top."""
    rows = [("", tiles) for _, tiles in examples.rows]
    return lay_out(rows, titles=[name.replace(", ", "\n") for name in examples.columns])
