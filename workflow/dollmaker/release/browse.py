"""Numbers, pictures and changes of a release, for a terminal."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from PIL import Image

from dollmaker.measures import scores
from dollmaker.pictures.overlay import (
    CLASSES,
    MASK,
    Rgb,
    captioned,
    outline,
    sheet,
    tint,
    to_png,
    to_rgb,
)
from dollmaker.pixels.pictures import read_channels, read_picture
from dollmaker.release.bounds import RANK_ONLY, percent, tell
from dollmaker.release.parts import BOUND, KEY, Row, Tree
from dollmaker.release.read import (
    Release,
    find_image,
    read_release,
    require_size,
    source_mask,
    square_mask,
    user_copy,
)
from dollmaker.release.sanity import read_sanity
from dollmaker.runtime.picks import evenly
from dollmaker.store.depth import to_show
from dollmaker.store.files import atomic_path, write_json

_MAX_PIXELS = 100_000_000

#: Tiles of the contact sheet: their side in pixels, how many a row has, what is behind a mask.
_SIDE, _PER_ROW = 112, 8
_DARK = np.full((_SIDE, _SIDE, 3), 24, np.uint8)

#: How tables are printed: whole, and nothing but the table.
_WHOLE: dict[str, Any] = {
    "tbl_hide_dataframe_shape": True,
    "tbl_hide_column_data_types": True,
    "tbl_rows": -1,
    "tbl_cols": -1,
}


# --- numbers ------------------------------------------------------------------------------------


def stats(release_folder: Path, /, json: Path | None = None) -> str:
    """Show the numbers of a release: masks, area, quality and bounds by finding and split.

    What its sanity checks say stands above them.

    Args:
        release_folder: Folder of the release.
        json: Write the numbers and the image ids to this file, too.

    Raises:
        ArtifactError: If the folder is no release.
    """
    release = read_release(release_folder)
    table, numbers, sanity = release.table, _numbers(release.table), read_sanity(release_folder)
    bounded = int(table[BOUND].count())
    if json:
        seen = table.group_by("split").agg(pl.col("image_id").unique().sort()).sort("split")
        facts = {
            "name": release.name,
            "version": release.version,
            "masks": len(table),
            "confidence": release.confidence,
            "bounded": bounded,
            "sanity": vars(sanity) if sanity else None,
            "findings": numbers.rename(lambda name: name.replace(" ", "_")).to_dicts(),
            "images": dict(seen.iter_rows()),
        }
        write_json(json, facts)
    total = f"{len(table)} masks of {table['image_id'].n_unique()} images"
    if release.confidence is None or not bounded:
        promise = f"{RANK_ONLY}: no mask has a bound of its IoU"
        numbers = numbers.drop("median IoU bound")
    else:
        promise = (
            f"{bounded} masks have a bound of their IoU with {percent(release.confidence)} "
            f"confidence, the others: {RANK_ONLY}"
        )
        bound = pl.col("median IoU bound").cast(pl.String).fill_null(RANK_ONLY)
        numbers = numbers.with_columns(bound)
    with pl.Config(**_WHOLE):
        lines = [f"{release.name} {release.version}: {total}", promise, str(numbers)]
        if sanity:
            lines.insert(1, sanity.tell())
        return "\n".join(lines)


def _numbers(table: pl.DataFrame) -> pl.DataFrame:
    """Of every finding and split."""
    pixels = pl.col("size").list.get(0) * pl.col("size").list.get(1)
    return (
        table.group_by("finding", "split")
        .agg(
            pl.len().alias("masks"),
            pl.col("image_id").n_unique().alias("images"),
            (pl.col("area") / pixels).median().round(3).alias("median area"),
            pl.col("quality").cast(pl.Float64).median().round(3).alias("median quality"),
            pl.col(BOUND).cast(pl.Float64).median().round(3).alias("median IoU bound"),
            pl.col("components").median().alias("median parts"),
        )
        .sort("finding", "split")
    )


# --- pictures -----------------------------------------------------------------------------------


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
    ground = _source(release, rows[0], images)
    lines = [
        f"{row['finding']}  quality {row['quality']:.2f}  {tell(row[BOUND], release.confidence)}"
        for row in rows
    ]
    drawn = draw(ground, (source_mask(release, row) for row in rows), lines)
    with atomic_path(output) as part:
        part.write_bytes(drawn)
    return "\n".join(lines)


def _source(release: Release, row: Row, images: Path | None) -> Rgb:
    """A source image in colours; of other channels than one and three the first in grey."""
    if images is None:
        return np.zeros((row["height"], row["width"], 3), np.uint8)
    with user_copy(images, row) as path:
        if release.channels in (1, 3):
            picture = read_picture(path, mode="RGB", max_pixels=_MAX_PIXELS).image
        else:
            found = read_channels(path, channels=release.channels, bits=8, max_pixels=_MAX_PIXELS)
            picture = Image.fromarray(to_show(found.pixels)[0]).convert("RGB")
        require_size(row, *picture.size)
    return np.asarray(picture)


def draw(pixels: Rgb, masks: Iterable[npt.NDArray[np.bool_]], lines: Sequence[str]) -> bytes:
    """A picture with the outline of each mask and below it a line about it, as PNG."""
    thickness = max(1, max(pixels.shape[:2]) // 500)
    inks = [CLASSES[number % len(CLASSES)] for number in range(len(lines))]
    for mask, colour in zip(masks, inks, strict=True):
        pixels = outline(pixels, mask, colour, thickness=thickness)
    return to_png(captioned(pixels, list(zip(lines, inks, strict=True))), colours=None)


def contact_sheet(
    table: pl.DataFrame, read_image: Callable[[str], npt.NDArray[Any]] | None
) -> bytes:
    """Some masks of each finding, evenly spread from the best quality to the worst, as PNG.

    ``read_image`` gives the image (C, H, W) of an image_id in levels; ``None`` draws masks only,
    for images that may not be shown.
    """
    lines = []
    for name in table["finding"].unique().sort():
        rows = table.filter(finding=name).sort("quality", "image_id", descending=[True, False])
        tiles = []
        for row in rows[evenly(len(rows), _PER_ROW)].iter_rows(named=True):
            ground = to_rgb(read_image(row["image_id"]), _DARK.shape[:2]) if read_image else _DARK
            tiles.append(tint(ground, {MASK: square_mask(row)}))
        lines.append((f"{name}: best to worst quality of {len(rows)}", tiles))
    return to_png(sheet(lines), colours=None)


# --- changes ------------------------------------------------------------------------------------


def tell_changes(old: Path, new: Path, /, json: Path | None = None) -> str:
    """Tell what changed from one release to another, mask by mask.

    Args:
        old: Folder of the older release.
        new: Folder of the newer release.
        json: Write the numbers to this file.
    """
    result = diff(old, new)
    if json:
        write_json(json, result)
    with pl.Config(**_WHOLE, tbl_width_chars=200):
        return f"{' -> '.join(result['versions'])}\n{pl.DataFrame(result['findings'])}"


def diff(old_folder: Path, new_folder: Path) -> Tree:
    """Compare two releases mask by mask.

    Returns:
        ``versions``, and ``findings``: one row per finding and ``all``: masks in the old and in
        the new, added, removed, changed (of those in both), mean IoU of those in both (1 where
        nothing changed, null without any, not counted where the squares differ in size), mean
        area in pixels of both.

    Raises:
        ArtifactError: If a folder is no release.
    """
    old, new = read_release(old_folder), read_release(new_folder)
    columns = [*KEY, "counts", "size", "area"]
    both = old.table.select(columns).join(
        new.table.select(columns), on=KEY, how="full", coalesce=True, suffix="_new"
    )
    findings = [_compare("all", both)]
    for finding in dict.fromkeys([*old.findings, *new.findings]):
        findings.append(_compare(finding, both.filter(finding=finding)))
    return {"versions": [old.version, new.version], "findings": findings}


def _compare(finding: str, both: pl.DataFrame) -> Row:
    there, then = both["counts_new"].is_not_null(), both["counts"].is_not_null()
    kept = both.filter(there & then)
    differs = (kept["counts"] != kept["counts_new"]) | (kept["size"] != kept["size_new"])
    overlaps = [1.0] * int((~differs).sum())
    for row in kept.filter(differs).iter_rows(named=True):
        if row["size"] == row["size_new"]:
            now = square_mask({"counts": row["counts_new"], "size": row["size_new"]})
            overlaps.append(float(scores.iou(square_mask(row), now)))
    return {
        "finding": finding,
        "old": int(then.sum()),
        "new": int(there.sum()),
        "added": int((there & ~then).sum()),
        "removed": int((then & ~there).sum()),
        "changed": int(differs.sum()),
        "iou": float(np.mean(overlaps)) if overlaps else None,
        "area_old": both["area"].mean(),
        "area_new": both["area_new"].mean(),
    }
