"""Converters: sources that are no folder of pictures become one, with a table.

The converted folder holds ``labels.csv`` (image, mask, patient, one column per finding),
``images/*.png``, ``masks/*.png``, ``left_out.csv`` (source, reason: what could not be used) and
``convert.json`` (where it comes from); of DICOM also a column view, and ``originals.csv`` (image,
source: which file each picture was). Afterwards it is read as any other table.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from dollmaker.pixels.stacks import write_stack
from dollmaker.prepare.pieces import Item, Piece
from dollmaker.runtime.errors import DataError
from dollmaker.store import provenance
from dollmaker.store.files import atomic_path, write_json

Row = dict[str, Any]

#: Kinds of sources that are converted first.
CONVERTED = ("patches", "msd", "jsrt", "dicom")


def converted_findings(config: Mapping[str, Any]) -> list[str]:
    """The findings that a converted source will have, known before it is converted."""
    source = config["source"]
    if source["kind"] == "patches":
        return [source["patches"]["finding"]]
    if source["kind"] == "dicom":
        return list(source["dicom"]["finding_columns"])
    return list(source["msd"]["findings"]) if source["kind"] == "msd" else ["Nodule"]


def list_items(config: Mapping[str, Any], data_root: Path) -> list[Item]:
    """List what is to convert, without a look at any pixel.

    Args:
        config: The resolved configuration (sections source, prepare).
        data_root: Folder of the source data as the user has it.

    Raises:
        ConfigError: If an option does not fit the source.
        DataError: If a folder, table or column is missing.
    """
    if not data_root.is_dir():
        raise DataError(
            f"data folder {data_root} does not exist; set data_root to an existing folder."
        )
    kind, prepare = config["source"]["kind"], config["prepare"]
    if kind == "patches":
        from dollmaker.prepare.patches import list_items as listed
    elif kind == "msd":
        from dollmaker.prepare.msd import list_items as listed
    elif kind == "dicom":
        from dollmaker.prepare.dicom import list_items as listed
    else:
        from dollmaker.prepare.jsrt import list_items as listed
    links = config.get("allow_links", False)
    return listed(config["source"][kind], data_root, prepare, links)


def look_at_original(config: Mapping[str, Any], data_root: Path) -> None:
    """Before the first job: the source is there and as described; nothing is converted.

    Of a tree of studies a part of the headers is read, of the others all is listed.

    Raises:
        ConfigError: If an option does not fit the source.
        DataError: If a folder, table or column is missing, or nothing could be used.
    """
    if config["source"]["kind"] == "dicom":
        from dollmaker.prepare.dicom import look

        look(config["source"]["dicom"], data_root, config.get("allow_links", False))
    else:
        list_items(config, data_root)


def convert(config: Mapping[str, Any], data_root: Path, output: Path, workers: int = 1) -> None:
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
    kind = config["source"]["kind"]
    items, findings = list_items(config, data_root), converted_findings(config)
    with atomic_path(output) as folder:
        for name in ("images", "masks"):
            (folder / name).mkdir(parents=True)
        with ThreadPoolExecutor(workers) as pool:
            results = list(pool.map(partial(_write, folder), items))
        left_out = [
            (item.source, result)
            for item, result in zip(items, results, strict=True)
            if isinstance(result, str)
        ]
        _check(left_out, len(items), config["prepare"]["max_quarantined"])
        if items and items[0].reader and (fault := items[0].reader.fault()):
            raise DataError(f"masks of source.{kind}: {fault}. Correct source.{kind}.values.")
        rows = [row for result in results if not isinstance(result, str) for row in result]
        _check_names(rows)
        if kind == "msd":
            _check_findings(rows, findings)
        if kind == "patches":
            rows = _thin(rows, config, folder)
        columns = ("image", "mask", "patient", *(("view",) if kind == "dicom" else ()))
        schema = dict.fromkeys(columns, pl.String)
        table = pl.DataFrame(rows, schema={**schema, **dict.fromkeys(findings, pl.Int8)})
        table.write_csv(folder / "labels.csv")
        if kind == "dicom":
            _write_originals(items, results, folder / "originals.csv")
        reasons = dict.fromkeys(("source", "reason"), pl.String)
        pl.DataFrame(left_out, schema=reasons, orient="row").write_csv(folder / "left_out.csv")
        options = {"kind": kind, kind: config["source"][kind]}
        header = provenance.header("convert", options, seed=config["seed"])
        write_json(folder / "convert.json", header)


def _write(folder: Path, item: Item) -> list[Row] | str:
    """Make and save the pieces of one item; their rows, or why there are none."""
    from PIL import Image

    try:
        pieces = item.make()
    except DataError as error:
        return str(error)
    rows: list[Row] = []
    for piece in pieces:
        image, mask = _save(folder / "images", piece), None
        if piece.mask is not None:
            mask = f"{piece.name}.png"
            Image.fromarray(piece.mask).save(folder / "masks" / mask)
        row = {"image": image, "mask": mask, "patient": item.patient}
        view = {} if item.view is None else {"view": item.view}
        rows.append({**row, **view, **piece.labels})
    return rows


def _save(folder: Path, piece: Piece) -> str:
    """Write the picture of a piece; what the file is called."""
    from PIL import Image

    pixels = piece.image
    if pixels.dtype != np.uint8 or len(pixels) not in (1, 3):
        file = f"{piece.name}.tif"
        write_stack(folder / file, pixels)
        return file
    file = f"{piece.name}.png"
    shown = pixels[0] if len(pixels) == 1 else np.ascontiguousarray(np.moveaxis(pixels, 0, -1))
    Image.fromarray(shown).save(folder / file)
    return file


def _write_originals(items: Sequence[Item], results: Sequence[list[Row] | str], file: Path) -> None:
    """Write which file each picture was."""
    pairs = [
        (row["image"], item.source)
        for item, result in zip(items, results, strict=True)
        if not isinstance(result, str)
        for row in result
    ]
    schema = dict.fromkeys(("image", "source"), pl.String)
    pl.DataFrame(pairs, schema=schema, orient="row").write_csv(file)


def _check(left_out: Sequence[tuple[str, str]], count: int, most: float) -> None:
    if len(left_out) > most * count:
        source, reason = left_out[0]
        raise DataError(
            f"{len(left_out)} of {count} items of the source cannot be used (the first is "
            f"{source!r}: {reason}); mend them or raise prepare.max_quarantined."
        )


def _check_names(rows: Sequence[Row]) -> None:
    seen: set[str] = set()
    for row in rows:
        if row["image"] in seen:
            raise DataError(
                f"the source makes two pictures {row['image']!r}; list each image once, under a "
                "name of its own."
            )
        seen.add(row["image"])


def _check_findings(rows: Sequence[Row], findings: Sequence[str]) -> None:
    """Refuse a finding of volumes that no slice holds: other numbers were meant."""
    for finding in findings:
        if not any(row[finding] for row in rows):
            raise DataError(
                f"none of {len(rows)} slices holds {finding}; correct its values in "
                "source.msd.findings or lower min_share."
            )


def _thin(rows: list[Row], config: Mapping[str, Any], folder: Path) -> list[Row]:
    from dollmaker.prepare.patches import thin

    kept = thin(rows, config)
    names = {row["image"] for row in kept}
    for row in rows:
        if row["image"] not in names:
            (folder / "images" / row["image"]).unlink()
            (folder / "masks" / row["mask"]).unlink()
    return kept
