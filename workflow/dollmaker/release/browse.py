"""Numbers and pictures of a release, for a terminal."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from PIL import Image

from dollmaker.pictures.overlay import CLASSES, Rgb, outline
from dollmaker.pictures.sheet import captioned, to_png
from dollmaker.pixels.pictures import read_channels, read_picture
from dollmaker.release.bounds import RANK_ONLY, percent, tell
from dollmaker.release.parts import BOUND
from dollmaker.release.read import Release, find_image, read_release, source_mask
from dollmaker.runtime.errors import DataError
from dollmaker.store.depth import to_show
from dollmaker.store.files import atomic_path, inside, write_json

_MAX_PIXELS = 100_000_000


def facts(folder: Path) -> dict[str, Any]:
    """What :func:`stats` says, and the identifiers of all images with a mask, for programs.

    Raises:
        ArtifactError: If the folder is no release.
    """
    release = read_release(folder)
    seen = release.table.group_by("split").agg(pl.col("image_id").unique().sort()).sort("split")
    return {
        "name": release.name,
        "version": release.version,
        "masks": len(release.table),
        "confidence": release.confidence,
        "bounded": int(release.table[BOUND].count()),
        "findings": _numbers(release).rename(lambda name: name.replace(" ", "_")).to_dicts(),
        "images": dict(seen.iter_rows()),
    }


def _numbers(release: Release) -> pl.DataFrame:
    """Of every finding and split."""
    pixels = pl.col("size").list.get(0) * pl.col("size").list.get(1)
    return (
        release.table.group_by("finding", "split")
        .agg(
            pl.len().alias("masks"),
            pl.col("image_id").n_unique().alias("images"),
            (pl.col("area") / pixels).median().round(3).alias("median area"),
            pl.col("quality").median().round(3).alias("median quality"),
            pl.col(BOUND).median().round(3).alias("median IoU bound"),
            pl.col("components").median().alias("median parts"),
        )
        .sort("finding", "split")
    )


def stats(release_folder: Path, /, json: Path | None = None) -> str:
    """Show the numbers of a release: masks, area, quality and bounds by finding and split.

    Args:
        release_folder: Folder of the release.
        json: Write the numbers and the image ids to this file, too.

    Raises:
        ArtifactError: If the folder is no release.
    """
    release = read_release(release_folder)
    bound = pl.col("median IoU bound").cast(pl.String).fill_null(RANK_ONLY)
    table = _numbers(release).with_columns(bound)
    if json:
        write_json(json, facts(release_folder))
    total = f"{len(release.table)} masks of {release.table['image_id'].n_unique()} images"
    bounded = int(release.table[BOUND].count())
    if release.confidence is None or not bounded:
        promise = f"{RANK_ONLY}: no mask has a bound of its IoU"
        table = table.drop("median IoU bound")
    else:
        promise = (
            f"{bounded} masks have a bound of their IoU with {percent(release.confidence)} "
            f"confidence, the others: {RANK_ONLY}"
        )
    with pl.Config(
        tbl_hide_dataframe_shape=True, tbl_rows=-1, tbl_hide_column_data_types=True, tbl_cols=-1
    ):
        return f"{release.name} {release.version}: {total}\n{promise}\n{table}"


def show(release_folder: Path, image_id: str, /, output: Path, images: Path | None = None) -> str:
    """Draw the masks of an image of a release: outlines at the size of the source, words below.

    Args:
        release_folder: Folder of the release.
        image_id: The image, as the tables of the release call it.
        output: PNG file to write.
        images: Root of your copy of the source images; without it outlines are drawn on black.

    Returns:
        What is written on it, a line a mask: finding, quality and bound.

    Raises:
        DataError: If the image is not in the release, or not under ``images``.
    """
    release = read_release(release_folder)
    rows = find_image(release, image_id)
    width, height = rows[0]["width"], rows[0]["height"]
    if images is None:
        picture = Image.new("RGB", (width, height))
    else:
        path = inside(images, rows[0]["path"], links=True)
        if not path.is_file():
            raise DataError(f"image {path} does not exist; correct --images, the images' root.")
        picture = _picture(path, release.channels)
        if picture.size != (width, height):
            raise DataError(
                f"{path} is {picture.width}x{picture.height}, the release knows {width}x{height}; "
                "give the root of the very images that it was made from."
            )
    bounds = (tell(row[BOUND], release.confidence) for row in rows)
    lines = [
        f"{row['finding']}  quality {row['quality']:.2f}  {bound}"
        for row, bound in zip(rows, bounds, strict=True)
    ]
    drawn = draw(np.asarray(picture), (source_mask(release, row) for row in rows), lines)
    with atomic_path(output) as part:
        part.write_bytes(drawn)
    return "\n".join(lines)


def draw(pixels: Rgb, masks: Iterable[npt.NDArray[np.bool_]], lines: Sequence[str]) -> bytes:
    """A picture with the outline of each mask and below it a line about it, as PNG."""
    thickness = max(1, max(pixels.shape[:2]) // 500)
    inks = [CLASSES[number % len(CLASSES)] for number in range(len(lines))]
    for mask, colour in zip(masks, inks, strict=True):
        pixels = outline(pixels, mask, colour, thickness=thickness)
    return to_png(captioned(pixels, list(zip(lines, inks, strict=True))), colours=None)


def _picture(path: Path, channels: int) -> Image.Image:
    """A source image in colours; of other channels than one and three the first in grey."""
    if channels in (1, 3):
        return read_picture(path, mode="RGB", max_pixels=_MAX_PIXELS).image
    found = read_channels(path, channels=channels, bits=8, max_pixels=_MAX_PIXELS)
    return Image.fromarray(to_show(found.pixels)[0]).convert("RGB")
