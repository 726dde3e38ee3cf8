"""Sources: where images and labels come from. Each returns one listing of the data set.

Sources that are no folder of pictures (patches, msd, jsrt, dicom) were converted to one before, see
:mod:`dollmaker.prepare.convert`, and are read from there as a table.

A listing has one row per image: ``image_id``, ``path`` (relative to the data root), ``patient_id``,
``split``, ``view``, ``mask`` (file of the true mask, or null), and an int8 column per finding
(1, 0, -1, null = not mentioned).
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from dollmaker.pixels import names as pixel_names
from dollmaker.prepare.columns import (
    COLUMNS,
    MOST_CLASSES,
    check_names,
    filled,
    labels,
    paths,
    patients,
)
from dollmaker.prepare.convert import CONVERTED, converted_findings
from dollmaker.prepare.folder import read_folder
from dollmaker.prepare.nih import read_nih
from dollmaker.prepare.splits import assert_disjoint, assign_all
from dollmaker.runtime.errors import ConfigError, DataError
from dollmaker.store import findings, tables
from dollmaker.store.files import inside

Listing = tuple[pl.DataFrame, list[str]]


def list_source(config: dict[str, Any], data_root: Path) -> Listing:
    """List the images of the configured source.

    Args:
        config: The resolved configuration (sections source, prepare, truth).
        data_root: Folder of the source data.

    Returns:
        The listing and the names of the findings.

    Raises:
        DataError: If the folder or a table is not as described.
    """
    kind = config["source"]["kind"]
    if not data_root.is_dir():
        remedy = "set data_root to an existing folder."
        if kind in CONVERTED:
            remedy = "convert the source first (rule convert_source)."
        raise DataError(f"data folder {data_root} does not exist; {remedy}")
    listing, names = _SOURCES[kind](config, data_root)
    if listing.is_empty():
        raise DataError("the source lists no images; check its views and the table.")
    listing = _hold_out(_named_masks(listing, config, data_root), config)
    if kind == "table":  # the splits of others are sound by the way they are made
        assert_disjoint(listing)
    return listing.select(*COLUMNS, *names), names


def _named_masks(listing: pl.DataFrame, config: dict[str, Any], data_root: Path) -> pl.DataFrame:
    """With ``truth.column`` null a mask is called as its image, and where there is none is none."""
    truth = config.get("truth")
    if not truth or truth["kind"] != "masks":
        return listing
    if truth["column"]:
        if listing["mask"].null_count() == len(listing):
            raise DataError(
                f"the column {truth['column']!r} of truth.column names no mask of any of "
                f"{len(listing)} images; fill it in, or remove truth."
            )
        return listing
    folder = inside(data_root, truth["folder"], config.get("allow_links", False))
    if not folder.is_dir():
        raise DataError(f"mask folder {folder} does not exist; correct truth.folder.")
    files = pixel_names.list_pictures(folder)
    known = pixel_names.Names(files, f"masks of {folder}")
    masks = [
        known.find(path, name) for path, name in listing.select("path", "image_id").iter_rows()
    ]
    if not any(masks):
        raise DataError(
            f"mask folder {folder} has no file for any image, e.g. {listing['path'][0]!r}; call "
            "masks as their images or name truth.column."
        )
    return listing.with_columns(pl.Series("mask", masks, dtype=pl.String))


def _hold_out(listing: pl.DataFrame, config: dict[str, Any]) -> pl.DataFrame:
    """With ``prepare.hold_out_truth`` every patient with a true mask is in test."""
    if not config["prepare"]["hold_out_truth"]:
        return listing
    if listing["mask"].null_count() == len(listing):
        raise ConfigError(
            "prepare.hold_out_truth needs truth of kind masks with a mask of some image; describe "
            "truth or remove it."
        )
    scored = listing.filter(pl.col("mask").is_not_null())["patient_id"].unique()
    held = listing.with_columns(
        split=pl.when(pl.col("patient_id").is_in(scored.implode()))
        .then(pl.lit("test"))
        .otherwise("split")
    )
    if not (held["split"] == "train").any():
        raise DataError(
            "prepare.hold_out_truth leaves no patient to train, each has a true mask; remove it."
        )
    return held


def _chexpert(config: dict[str, Any], data_root: Path) -> Listing:
    """CheXpert as released (Irvin et al. 2019): train.csv and valid.csv, which is test here."""
    options = config["source"].get("chexpert") or {
        "folder": "CheXpert-v1.0-small",
        "views": ["frontal"],
    }
    folder, links = options["folder"].strip("/"), config.get("allow_links", False)
    parts = []
    for split in ("train", "valid"):
        file = inside(data_root, _in_folder(folder, f"{split}.csv"), links)
        parts.append(_chexpert_part(file, folder, split, config["prepare"]))
    listing = pl.concat(parts).filter(pl.col("view").is_in(list(options["views"])))
    return listing, list(findings.CHEXPERT)


def _chexpert_part(file: Path, folder: str, split: str, prepare: dict[str, Any]) -> pl.DataFrame:
    """One of the two tables, with the images of all views."""
    table = tables.read_source(file)
    tables.require_columns(table, ("Path", "Frontal/Lateral", *findings.CHEXPERT), file)
    released = [_released(path) for path in paths(table, "Path", file)]
    # Called as CheXlocalize calls them: patient00001_study1_view1_frontal.
    views = [_from_patient(path, file) for path in released]
    people = [view.split("/")[0] for view in views]
    splits = ["test"] * len(views)
    if split == "train":
        splits = assign_all(people, prepare["valid"], prepare["test"])
    return pl.DataFrame(
        {
            "image_id": pixel_names.image_ids(views),
            "path": [_in_folder(folder, path) for path in released],
            "patient_id": people,
            "split": splits,
            "view": table["Frontal/Lateral"].str.to_lowercase(),
            "mask": pl.Series([None] * len(views), dtype=pl.String),
            **{name: labels(table, name, file) for name in findings.CHEXPERT},
        }
    )


def _released(path: str) -> str:
    """A path below the released folder, whatever that is called here and what lies above it."""
    parts = path.split("/")
    above = [n for n, part in enumerate(parts[:-1]) if part.startswith("CheXpert")]
    return "/".join(parts[above[-1] + 1 :]) if above else path


def _from_patient(path: str, file: Path) -> str:
    """A path from the folder of its patient on."""
    parts = path.split("/")
    named = [n for n, part in enumerate(parts[:-1]) if re.fullmatch(r"patient\d+", part)]
    if not named:
        raise DataError(
            f"path {path!r} in table {file} names no patient; expected "
            ".../patient00001/study1/view1_frontal.jpg."
        )
    return "/".join(parts[named[-1] :])


def _table(config: dict[str, Any], data_root: Path) -> Listing:
    """Any CSV or Parquet file and a folder of images."""
    return _read_table(config, config["source"]["table"], data_root)


def _converted(config: dict[str, Any], data_root: Path) -> Listing:
    """What :func:`dollmaker.prepare.convert.convert` wrote."""
    options = {
        "file": "labels.csv",
        "images": "images",
        "image_column": "image",
        "patient_column": "patient",
        "label_column": None,
        "finding_columns": converted_findings(config),
        "split_column": None,
        "view_column": "view" if config["source"]["kind"] == "dicom" else None,
    }
    return _read_table(config, options, data_root)


def _read_table(config: dict[str, Any], options: dict[str, Any], data_root: Path) -> Listing:
    prepare, truth = config["prepare"], config.get("truth")
    file = inside(data_root, options["file"], config.get("allow_links", False))
    table = tables.read_source(file)
    wanted = [
        options[key] for key in ("image_column", "patient_column", "label_column", "split_column")
    ]
    columns = [column for column in wanted if column] + list(options["finding_columns"] or ())
    mask_column = truth["column"] if truth and truth["kind"] == "masks" else None
    tables.require_columns(table, [*columns, *([mask_column] if mask_column else [])], file)
    images = paths(table, options["image_column"], file)
    ids = pixel_names.image_ids(images)
    patient_column = options["patient_column"]
    people = patients(table, patient_column, file) if patient_column else ids
    if options["split_column"]:
        splits = filled(table, options["split_column"], file)
        for row, split in enumerate(splits, start=2):
            if split not in ("train", "valid", "test"):
                raise DataError(
                    f"table {file} line {row}: split {split!r}; use train, valid or test."
                )
    else:
        splits = assign_all(people, prepare["valid"], prepare["test"])
    names, known = _table_labels(table, options, file)
    folder = options["images"].strip("/")
    views = table[options["view_column"]] if options.get("view_column") else [None] * len(ids)
    written = table[mask_column] if mask_column else [None] * len(ids)
    masks = [pixel_names.mask_file(name) for name in written]
    listing = pl.DataFrame(
        {
            "image_id": ids,
            "path": [_in_folder(folder, name) for name in images],
            "patient_id": people,
            "split": splits,
            "view": pl.Series(views, dtype=pl.String),
            "mask": pl.Series(masks, dtype=pl.String),
            **known,
        }
    )
    return listing, names


def _in_folder(folder: str, name: str) -> str:
    """The path below the data root; an absolute one stays so, and is refused when it is read."""
    return name if folder in ("", ".") or name.startswith("/") else f"{folder}/{name}"


def _table_labels(
    table: pl.DataFrame, options: dict[str, Any], file: Path
) -> tuple[list[str], dict[str, pl.Series]]:
    if options["finding_columns"]:
        names = list(options["finding_columns"])
        known = {name: labels(table, name, file) for name in names}
    else:
        classes = filled(table, options["label_column"], file)
        names = sorted(set(classes))
        if len(names) > MOST_CLASSES:
            raise DataError(
                f"column {options['label_column']!r} of {file} has {len(names)} different values, "
                f"over {MOST_CLASSES}; name the column with the class of each image."
            )
        known = {
            name: pl.Series([int(label == name) for label in classes], dtype=pl.Int8)
            for name in names
        }
    check_names(names, str(file))
    return names, known


def check_findings(names: Sequence[str], config: dict[str, Any]) -> None:
    """Refuse configured findings that the data set does not have.

    Raises:
        ConfigError: Naming the finding and those there are.
    """
    chosen = list(config["attribute"]["findings"] or ())
    chosen += [name for name in config["classify"]["uncertain"] if name != "default"]
    findings.localized(names, chosen)
    if not findings.localized(names, config["attribute"]["findings"]):
        raise ConfigError("no finding is left to localize; set attribute.findings.")


_SOURCES: dict[str, Callable[[dict[str, Any], Path], Listing]] = {
    "phantoms": _chexpert,
    "chexpert": _chexpert,
    "table": _table,
    "nih": read_nih,
    "folder": read_folder,
    **dict.fromkeys(CONVERTED, _converted),
}
