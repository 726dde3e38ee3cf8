"""Converters: sources that are no folder of pictures become one, with a table.

The converted folder holds ``labels.csv`` (image, mask, patient, one column per finding),
``images/*.png``, ``masks/*.png``, ``left_out.csv`` (source, reason: what could not be used) and
``convert.json`` (where it comes from); of DICOM also a column view, and ``originals.csv`` (image,
source: which file each picture was). Afterwards it is read as any other table.
"""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from dollmaker.config.sources import (
    DicomConfig,
    JsrtConfig,
    MsdConfig,
    PatchesConfig,
    SourceConfig,
)
from dollmaker.config.whole import Config
from dollmaker.pixels.stacks import write_stack
from dollmaker.prepare import dicom, jsrt, msd, patches
from dollmaker.prepare.listing import Item, Piece, Row
from dollmaker.runtime.errors import DataError
from dollmaker.store import provenance
from dollmaker.store.files import atomic_path, inside, write_json

#: Bytes of the name of a picture without suffix: most disks take 255 with it.
_LONGEST = 240


def converted_findings(source: SourceConfig) -> list[str]:
    """The findings that a converted source will have, known before it is converted."""
    match source:
        case SourceConfig(kind="patches", patches=PatchesConfig(finding=finding)):
            return [finding]
        case SourceConfig(kind="dicom", dicom=DicomConfig(finding_columns=findings)):
            return list(findings)
        case SourceConfig(kind="msd", msd=MsdConfig(findings=values)):
            return list(values)
    return ["Nodule"]


def list_items(config: Config, data_root: Path) -> list[Item]:
    """List what is to convert, without a look at any pixel.

    Raises:
        ConfigError: If an option does not fit the source.
        DataError: If a folder, table or column is missing.
    """
    if not data_root.is_dir():
        raise DataError(
            f"data folder {data_root} does not exist; set data_root to an existing folder."
        )
    prepare, find = config.prepare, partial(inside, data_root, links=config.allow_links)
    match config.source:
        case SourceConfig(kind="patches", patches=PatchesConfig() as cut):
            return patches.list_items(cut, prepare, find)
        case SourceConfig(kind="msd", msd=MsdConfig() as volumes):
            inner = partial(inside, find(volumes.folder), links=config.allow_links)
            return msd.list_items(volumes, prepare, inner)
        case SourceConfig(kind="jsrt", jsrt=JsrtConfig() as raw):
            return jsrt.list_items(raw, prepare, find)
        case SourceConfig(kind="dicom", dicom=DicomConfig() as studies):
            return dicom.list_items(studies, prepare, dicom.Place(data_root, config.allow_links))
    raise ValueError(f"{config.source.kind} is not converted")


def look_at_original(config: Config, data_root: Path) -> None:
    """Before the first job: the source is there and as described; nothing is converted.

    Of a tree of studies a part of the headers is read, of the others all is listed.

    Raises:
        ConfigError: As :func:`list_items`.
        DataError: As :func:`list_items`, and if nothing could be used.
    """
    if config.source.kind == "dicom" and config.source.dicom:
        dicom.look(config.source.dicom, dicom.Place(data_root, config.allow_links))
    else:
        list_items(config, data_root)


def convert(config: Config, data_root: Path, output: Path, workers: int = 1) -> None:
    """Turn patches, volumes or raw files into pictures and a table.

    The result depends neither on the number of workers nor on their order.

    Args:
        config: The resolved configuration (sections source, prepare, seed).
        data_root: Folder of the source data as the user has it.
        output: Folder to write, whole or not at all.
        workers: Threads.

    Raises:
        ConfigError: If an option does not fit the source.
        DataError: If the source is not as described, or more than ``prepare.max_quarantined`` of
            it cannot be used.
    """
    source, kind = config.source, config.source.kind
    items, findings = list_items(config, data_root), converted_findings(source)
    with atomic_path(output) as folder:
        for name in ("images", "masks"):
            (folder / name).mkdir(parents=True)
        with ThreadPoolExecutor(workers) as pool:
            results = list(zip(items, pool.map(partial(_write, folder), items), strict=True))
        left_out = [(item.source, reason) for item, reason in results if isinstance(reason, str)]
        done = [(item.source, rows) for item, rows in results if not isinstance(rows, str)]
        _check(left_out, len(items), config.prepare.max_quarantined)
        if items and items[0].reader and (fault := items[0].reader.fault()):
            raise DataError(f"masks of source.{kind}: {fault}. Correct source.{kind}.values.")
        rows = [row for _, mine in done for row in mine]
        _check_names(rows)
        if kind == "msd":
            _check_findings(rows, findings)
        if kind == "patches":
            rows = _thin(rows, config, folder)
        columns = ("image", "mask", "patient", *(("view",) if kind == "dicom" else ()))
        schema = dict.fromkeys(columns, pl.String) | dict.fromkeys(findings, pl.Int8)
        pl.DataFrame(rows, schema=schema).write_csv(folder / "labels.csv")
        if kind == "dicom":
            pairs = [(row["image"], original) for original, mine in done for row in mine]
            _write_pairs(("image", "source"), pairs, folder / "originals.csv")
        _write_pairs(("source", "reason"), left_out, folder / "left_out.csv")
        options = {"kind": kind, kind: source.dump()[kind]}
        write_json(folder / "convert.json", provenance.header("convert", options, seed=config.seed))


def _write(folder: Path, item: Item) -> list[Row] | str:
    """Make and save the pieces of one item; their rows, or why there are none."""
    try:
        pieces = item.make()
    except DataError as error:
        return str(error)
    if long := [piece.name for piece in pieces if len(piece.name.encode()) > _LONGEST]:
        size = len(long[0].encode())
        return f"is called by {size} bytes, folders included, over {_LONGEST}; give it a short name"
    rows: list[Row] = []
    for piece in pieces:
        image, mask = _save(folder / "images", piece), None
        if piece.mask is not None:
            mask = f"{piece.name}.png"
            Image.fromarray(piece.mask).save(folder / "masks" / mask)
        view = {} if item.view is None else {"view": item.view}
        facts = {"image": image, "mask": mask, "patient": item.patient}
        rows.append({**facts, **view, **piece.labels})
    return rows


def _save(folder: Path, piece: Piece) -> str:
    """Write the picture of a piece; what the file is called."""
    pixels = piece.image
    if pixels.dtype != np.uint8 or len(pixels) not in (1, 3):
        file = f"{piece.name}.tif"
        write_stack(folder / file, pixels)
        return file
    file = f"{piece.name}.png"
    shown = pixels[0] if len(pixels) == 1 else np.ascontiguousarray(np.moveaxis(pixels, 0, -1))
    Image.fromarray(shown).save(folder / file)
    return file


def _write_pairs(columns: tuple[str, str], pairs: Sequence[tuple[str, str]], file: Path) -> None:
    schema = dict.fromkeys(columns, pl.String)
    pl.DataFrame(pairs, schema=schema, orient="row").write_csv(file)


def _check(left_out: Sequence[tuple[str, str]], count: int, most: float) -> None:
    if len(left_out) > most * count:
        source, reason = left_out[0]
        raise DataError(
            f"{len(left_out)} of {count} items of the source cannot be used (the first is "
            f"{source!r}: {reason}); mend them or raise prepare.max_quarantined."
        )


def _check_names(rows: Sequence[Row]) -> None:
    for name, times in Counter(row["image"] for row in rows).items():
        if times > 1:
            raise DataError(
                f"the source makes two pictures {name!r}; list each image once, under a name of "
                "its own."
            )


def _check_findings(rows: Sequence[Row], findings: Sequence[str]) -> None:
    """Refuse a finding of volumes that no slice holds: other numbers were meant."""
    for finding in findings:
        if not any(row[finding] for row in rows):
            raise DataError(
                f"none of {len(rows)} slices holds {finding}; correct its values in "
                "source.msd.findings or lower min_share."
            )


def _thin(rows: list[Row], config: Config, folder: Path) -> list[Row]:
    kept = patches.thin(rows, config)
    names = {row["image"] for row in kept}
    for row in rows:
        if row["image"] not in names:
            (folder / "images" / row["image"]).unlink()
            (folder / "masks" / row["mask"]).unlink()
    return kept
