"""Pictures of the tasks: image, truth and what each start predicts."""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from dollmaker.report import gallery
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
        rows: Image name -> strip as RGB.
    """

    n: str
    columns: list[str]
    classes: dict[str, str]
    rows: list[tuple[str, gallery.Rgb]]


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
    colours = [gallery.CLASS_COLOURS[k % len(gallery.CLASS_COLOURS)] for k in range(len(classes))]
    rows = []
    for place, image_id in enumerate(first["image_id"][:_ROWS]):
        image = first["image"][place]
        shape = gallery.panel_shape(image.shape[-1], image.shape[-2], _SIDE)
        ground = gallery.to_rgb(image, shape)
        panels = [ground, _paint(ground, first["truth"][place], colours)]
        for arrays in loaded.values():
            same = np.flatnonzero(arrays["image_id"] == image_id)
            known = len(same) and f"prediction_{n}" in arrays
            masks = arrays[f"prediction_{n}"][same[0]] if known else np.zeros((0, *shape), np.uint8)
            panels.append(_paint(ground, masks, colours))
        rows.append((str(image_id), gallery.strip(panels)))
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


def _paint(
    ground: gallery.Rgb, masks: npt.NDArray[np.uint8], colours: list[tuple[int, int, int]]
) -> gallery.Rgb:
    return gallery.tint(ground, dict(zip(colours, masks, strict=False)))


def sheet(examples: Examples) -> gallery.Rgb:
    """All rows below each other with the names of the columns on top."""
    width = max(row.shape[1] for _, row in examples.rows)
    height = sum(row.shape[0] + 4 for _, row in examples.rows)
    picture = Image.new("RGB", (width, height + 26), "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    for k, name in enumerate(examples.columns):
        pen.text((k * width / len(examples.columns) + 3, 6), name, fill="black", font=font)
    y = 26
    for _, row in examples.rows:
        picture.paste(Image.fromarray(row), (0, y))
        y += row.shape[0] + 4
    return np.asarray(picture)
