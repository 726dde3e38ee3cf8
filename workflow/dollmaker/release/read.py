"""Reading a release: its table, its masks and what they were fitted with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from dollmaker.pixels import geometry
from dollmaker.pixels.geometry import Fit, unfit_mask
from dollmaker.release.bounds import read_bounds
from dollmaker.release.parts import SPLITS, find_parts, read_rows
from dollmaker.runtime.errors import ArtifactError, DataError
from dollmaker.store.files import read_json
from dollmaker.store.rle import decode
from dollmaker.store.shards import ShardSeries


@dataclass(frozen=True, kw_only=True)
class Release:
    """A release: its tables in memory, its mask files at hand.

    Attributes:
        folder: Where it is.
        table: All rows of all splits; ``place`` is that of a row in the mask files of its split.
        masks: Split -> its mask files.
        findings: Names, in order.
        fit: How source images lie in the square.
        channels: How many the networks saw of them.
        name: Its name.
        version: Its semantic version.
        confidence: That of the bounds of the masks' IoU (``iou_bound`` of the table); ``None``
            where quality only ranks.
    """

    folder: Path
    table: pl.DataFrame
    masks: dict[str, ShardSeries]
    findings: list[str]
    fit: Fit
    channels: int
    name: str
    version: str
    confidence: float | None = None

    def images(self) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
        """Per image: facts of the image, and its rows."""
        groups = self.table.group_by(("split", "image_id"), maintain_order=True)
        return [(group.row(0, named=True), group.to_dicts()) for _, group in groups]


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration that a release was made with: what its masks and models depend on.

    Raises:
        ArtifactError: If the folder is no release.
    """
    config: dict[str, Any] = _provenance(folder).get("config", {})
    if "release" not in config or "name" not in config["release"] or "prepare" not in config:
        raise _no_release(folder)
    return config


def _provenance(folder: Path) -> dict[str, Any]:
    if not (folder / "provenance.json").is_file():
        raise ArtifactError(f"{folder} holds no provenance.json; give the folder of a release.")
    found: dict[str, Any] = read_json(folder / "provenance.json")
    return found


def _no_release(folder: Path) -> ArtifactError:
    return ArtifactError(
        f"{folder / 'provenance.json'} is not that of a release; give the folder of a release "
        "(not its labels)."
    )


def read_release(folder: Path) -> Release:
    """Read a release.

    Raises:
        ArtifactError: If the folder is no release.
    """
    provenance = _provenance(folder)
    try:
        config, findings = provenance["config"], provenance["findings"]
        fit, channels = config["prepare"]["fit"], int(config["prepare"].get("channels", 1))
        name, version = config["release"]["name"], config["release"]["version"]
    except (KeyError, TypeError, ValueError):
        raise _no_release(folder) from None
    bounds = read_bounds(folder)
    return Release(
        folder=folder,
        table=pl.concat([read_rows(folder, split).with_row_index("place") for split in SPLITS]),
        masks={split: ShardSeries(find_parts(folder, "masks", split)) for split in SPLITS},
        findings=findings,
        fit=fit,
        channels=channels,
        name=name,
        version=version,
        confidence=bounds["confidence"] if bounds else None,
    )


def square_mask(row: dict[str, Any]) -> npt.NDArray[np.bool_]:
    """The mask of a row on the networks' square."""
    return decode(row["counts"], *row["size"])


def square(release: Release, row: dict[str, Any]) -> npt.NDArray[Any]:
    """What the mask of a row is enlarged from.

    Returns:
        Its level set, int8 (size, size), which knows the outline between pixels; of a release of
        an earlier version, which has none, the mask itself, bool.

    Raises:
        ArtifactError: If a mask file is missing or damaged.
    """
    levels = release.masks[row["split"]].read("level", row["place"])
    return levels if levels.size else square_mask(row)


def source_mask(release: Release, row: dict[str, Any]) -> npt.NDArray[np.bool_]:
    """The mask of a row at the size of the source image, bool (height, width).

    Raises:
        ArtifactError: As :func:`square`.
    """
    size: tuple[int, int, Fit] = row["width"], row["height"], release.fit
    small = square(release, row)
    if small.dtype == np.bool_:
        return np.asarray(unfit_mask(small, *size) == 1)
    return geometry.source_mask(small, *size)


def find_image(release: Release, image_id: str) -> list[dict[str, Any]]:
    """Rows of one image.

    Raises:
        DataError: If the release has no mask of it, with near names.
    """
    rows = release.table.filter(image_id=image_id).to_dicts()
    if not rows:
        import difflib

        near = difflib.get_close_matches(image_id, release.table["image_id"].unique(), n=3)
        hint = (
            f"did you mean {', '.join(near)}?" if near else "dollmaker stats lists what is there."
        )
        raise DataError(f"{release.folder} has no mask of image {image_id!r}; {hint}")
    return rows
