"""Reading a release: its table, its masks and what they were fitted with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from dollmaker.errors import ArtifactError, DataError
from dollmaker.files import read_json
from dollmaker.geometry import Fit, unfit_mask
from dollmaker.release.parts import SPLITS, read_rows
from dollmaker.rle import decode


@dataclass(frozen=True, kw_only=True)
class Release:
    """A release in memory, without its mask files.

    Attributes:
        folder: Where it is.
        table: All rows of all splits.
        findings: Names, in order.
        fit: How source images lie in the square.
        name: Its name.
        version: Its semantic version.
    """

    folder: Path
    table: pl.DataFrame
    findings: list[str]
    fit: Fit
    name: str
    version: str

    def images(self) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
        """Per image: facts of the image, and its rows."""
        groups = self.table.group_by(("split", "image_id"), maintain_order=True)
        return [(group.row(0, named=True), group.to_dicts()) for _, group in groups]


def read_release(folder: Path) -> Release:
    """Read a release.

    Raises:
        ArtifactError: If the folder is no release.
    """
    if not (folder / "provenance.json").is_file():
        raise ArtifactError(f"{folder} holds no provenance.json; give the folder of a release.")
    provenance = read_json(folder / "provenance.json")
    try:
        config, findings = provenance["config"], provenance["findings"]
        fit = config["prepare"]["fit"]
        name, version = config["release"]["name"], config["release"]["version"]
    except (KeyError, TypeError):
        raise ArtifactError(
            f"{folder / 'provenance.json'} is not that of a release; give the folder of a release "
            "(not its labels)."
        ) from None
    return Release(
        folder=folder,
        table=pl.concat([read_rows(folder, split) for split in SPLITS]),
        findings=findings,
        fit=fit,
        name=name,
        version=version,
    )


def square_mask(row: dict[str, Any]) -> npt.NDArray[np.bool_]:
    """The mask of a row on the networks' square."""
    return decode(row["counts"], *row["size"])


def source_mask(row: dict[str, Any], fit: Fit) -> npt.NDArray[np.bool_]:
    """The mask of a row at the size of the source image, bool (height, width)."""
    mask = unfit_mask(square_mask(row), row["width"], row["height"], fit)
    return np.asarray(mask == 1)


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
