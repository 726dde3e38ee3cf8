"""Reading a release: its table, its masks and what they were fitted with."""

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from dollmaker.pixels import geometry
from dollmaker.pixels.geometry import Fit, unfit_mask
from dollmaker.release.bounds import read_bounds
from dollmaker.release.parts import SPLITS, Row, Tree, find_parts, read_rows
from dollmaker.runtime.errors import ArtifactError, DataError
from dollmaker.store.depth import Bits
from dollmaker.store.files import inside, read_json
from dollmaker.store.rle import decode
from dollmaker.store.shards import ShardSeries


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What provenance.json says of how a release was made.

    Attributes:
        findings: Names, in order.
        name: Of the release.
        version: Its semantic version.
        license: Of labels and models.
        source_license: Of the source images.
        pictures: Whether it may show source images.
        source: Kind of the source; empty if unknown.
        size: Side of the networks' square.
        fit: How source images lie in it.
        channels: How many the networks saw of an image.
        bits: Of a channel, 8 or 16.
        max_pixels: Larger images are refused.
        tree: The configuration, as far as masks and models depend on it.
    """

    findings: list[str]
    name: str
    version: str
    license: str
    source_license: str
    pictures: bool
    source: str
    size: int
    fit: Fit
    channels: int
    bits: Bits
    max_pixels: int
    tree: Tree


@dataclass(frozen=True, kw_only=True)
class Release(Origin):
    """A release: its tables in memory, its mask files at hand.

    Attributes:
        folder: Where it is.
        table: All rows of all splits; ``place`` is that of a row in the mask files of its split.
        masks: Split -> its mask files.
        confidence: That of the bounds of the masks' IoU (``iou_bound`` of the table); ``None``
            where quality only ranks.
    """

    folder: Path
    table: pl.DataFrame
    masks: dict[str, ShardSeries]
    confidence: float | None

    def images(self) -> list[tuple[Row, list[Row]]]:
        """Per image: facts of the image, and its rows."""
        groups = self.table.group_by(("split", "image_id"), maintain_order=True)
        return [(group.row(0, named=True), group.to_dicts()) for _, group in groups]


def read_origin(folder: Path) -> Origin:
    """How a release was made.

    Raises:
        ArtifactError: If the folder is no release.
    """
    path = folder / "provenance.json"
    if not path.is_file():
        raise ArtifactError(f"{folder} holds no provenance.json; give the folder of a release.")
    try:
        found = read_json(path)
        tree = found["config"]
        release, prepare = tree["release"], tree["prepare"]
        return Origin(
            findings=list(found["findings"]),
            name=release["name"],
            version=release["version"],
            license=release["license"],
            source_license=release["source_license"],
            pictures=release.get("pictures", False),
            source=tree.get("source", {}).get("kind", ""),
            size=int(prepare["size"]),
            fit=prepare["fit"],
            channels=int(prepare.get("channels", 1)),
            bits=prepare.get("bits", 8),
            max_pixels=int(prepare["max_pixels"]),
            tree=tree,
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ArtifactError(
            f"{path} is not that of a release; give the folder of a release (not its labels)."
        ) from None


def read_release(folder: Path) -> Release:
    """Read a release.

    Raises:
        ArtifactError: If the folder is no release.
    """
    bounds = read_bounds(folder)
    return Release(
        **vars(read_origin(folder)),
        folder=folder,
        table=pl.concat([read_rows(folder, split).with_row_index("place") for split in SPLITS]),
        masks={split: ShardSeries(find_parts(folder, "masks", split)) for split in SPLITS},
        confidence=bounds["confidence"] if bounds else None,
    )


def square_mask(row: Row) -> npt.NDArray[np.bool_]:
    """The mask of a row on the networks' square."""
    return decode(row["counts"], *row["size"])


def square(release: Release, row: Row) -> npt.NDArray[Any]:
    """What the mask of a row is enlarged from.

    Returns:
        Its level set, int8 (size, size), which knows the outline between pixels; of a release of
        an earlier version, which has none, the mask itself, bool.

    Raises:
        ArtifactError: If a mask file is missing or damaged.
    """
    levels = release.masks[row["split"]].read("level", row["place"])
    return levels if levels.size else square_mask(row)


def source_mask(release: Release, row: Row) -> npt.NDArray[np.bool_]:
    """The mask of a row at the size of the source image, bool (height, width).

    Raises:
        ArtifactError: As :func:`square`.
    """
    size: tuple[int, int, Fit] = row["width"], row["height"], release.fit
    small = square(release, row)
    if small.dtype == np.bool_:
        return np.asarray(unfit_mask(small, *size) == 1)
    return geometry.source_mask(small, *size)


def find_image(release: Release, image_id: str) -> list[Row]:
    """Rows of one image.

    Raises:
        DataError: If the release has no mask of it, with near names.
    """
    rows = release.table.filter(image_id=image_id).to_dicts()
    if not rows:
        near = difflib.get_close_matches(image_id, release.table["image_id"].unique(), n=3)
        hint = (
            f"did you mean {', '.join(near)}?"
            if near
            else "gallery/index.html and the column image_id of data/*.parquet list what is there."
        )
        raise DataError(f"{release.folder} has no mask of image {image_id!r}; {hint}")
    return rows


@contextmanager
def user_copy(root: Path, row: Row) -> Iterator[Path]:
    """The file of an image in the user's copy; what is wrong with it is told with its name."""
    try:
        path = inside(root, row["path"], links=True)
        if not path.is_file():
            raise DataError("is missing")
        yield path
    except DataError as error:
        raise DataError(
            f"image {row['path']!r} under {root}: {str(error).rstrip('.')}; give the root of your "
            "copy of the images that the release was made from (data_root of the run)."
        ) from None


def require_size(row: Row, width: int, height: int, *, scaled: bool = False) -> None:
    """Refuse a picture that is not of the size that the release knows: masks lie elsewhere in it.

    With ``scaled`` another size will do if the shape is the same, up to a pixel of rounding.
    """
    known = row["width"], row["height"]
    turned = abs(width * known[1] - height * known[0])
    if turned > max(width, height, *known) if scaled else (width, height) != known:
        raise DataError(f"is {width}x{height}, and the release knows {known[0]}x{known[1]}")
