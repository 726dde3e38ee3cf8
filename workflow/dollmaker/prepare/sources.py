"""Sources: where images and labels come from. Each returns one listing of the data set.

Sources that are no folder of pictures (patches, msd, jsrt, dicom) were converted to one before, see
:mod:`dollmaker.prepare.convert`, and are read from there as a table.

A listing has one row per image: ``image_id``, ``path`` (relative to the data root), ``patient_id``,
``split``, ``view``, ``mask`` (file of the true mask, or null), and an int8 column per finding
(1, 0, -1, null = not mentioned).
"""

import re
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import polars as pl

from dollmaker.config.sources import (
    CONVERTED,
    ChexpertConfig,
    FolderConfig,
    NihConfig,
    PrepareConfig,
    SourceConfig,
    TableConfig,
)
from dollmaker.config.whole import Config
from dollmaker.pixels import names as pixel_names
from dollmaker.prepare.convert import converted_findings
from dollmaker.prepare.folder import read_folder
from dollmaker.prepare.listing import (
    COLUMNS,
    MOST_CLASSES,
    Find,
    Listing,
    assert_disjoint,
    assign_all,
    check_names,
    filled,
    labels,
    paths,
    patients,
    require_told_apart,
)
from dollmaker.prepare.nih import read_nih
from dollmaker.runtime.errors import ConfigError, DataError
from dollmaker.store import findings, tables
from dollmaker.store.files import inside


def list_source(config: Config, data_root: Path) -> Listing:
    """List the images of the configured source, with the names of the findings.

    Raises:
        DataError: If the folder or a table is not as described.
    """
    kind = config.source.kind
    if not data_root.is_dir():
        remedy = "set data_root to an existing folder."
        if kind in CONVERTED:
            remedy = "convert the source first (rule convert_source)."
        raise DataError(f"data folder {data_root} does not exist; {remedy}")
    listing, names = _read(config, data_root)
    if listing.is_empty():
        raise DataError("the source lists no images; check its views and the table.")
    untold = [column for column in ("view", "mask") if column not in listing.columns]
    listing = listing.with_columns(pl.lit(None, pl.String).alias(column) for column in untold)
    listing = _hold_out(_named_masks(listing, config, data_root), config)
    if kind in ("table", "folder"):  # the splits of others are sound by the way they are made
        assert_disjoint(listing)
    return listing.select(*COLUMNS, *names), names


def _read(config: Config, data_root: Path) -> Listing:
    """What a source of this kind lists; columns that it does not know are left out."""
    prepare, find = config.prepare, partial(inside, data_root, links=config.allow_links)
    truth = config.truth
    mask_column = truth.column if truth and truth.kind == "masks" else None
    match config.source:
        case SourceConfig(kind="table", table=TableConfig() as options):
            return _read_table(options, prepare, find, mask_column)
        case SourceConfig(kind="nih", nih=NihConfig() as nih):
            return read_nih(nih, prepare, find)
        case SourceConfig(kind="folder", folder=FolderConfig() as folder):
            return read_folder(folder, config, data_root)
        case SourceConfig(kind="phantoms" | "chexpert", chexpert=chexpert):
            return _read_chexpert(chexpert, prepare, find)
    converted = TableConfig(
        file="labels.csv",
        images="images",
        image_column="image",
        patient_column="patient",
        finding_columns=converted_findings(config.source),
    )
    view = "view" if config.source.kind == "dicom" else ""
    return _read_table(converted, prepare, find, mask_column, view)


def _named_masks(listing: pl.DataFrame, config: Config, data_root: Path) -> pl.DataFrame:
    """With ``truth.column`` null a mask is called as its image, and where there is none is none."""
    truth = config.truth
    if truth is None or truth.kind != "masks":
        return listing
    if truth.column:
        if listing["mask"].null_count() == len(listing):
            raise DataError(
                f"the column {truth.column!r} of truth.column names no mask of any of "
                f"{len(listing)} images; fill it in, or remove truth."
            )
        return listing
    folder = inside(data_root, truth.folder or "", config.allow_links)
    if not folder.is_dir():
        raise DataError(f"mask folder {folder} does not exist; correct truth.folder.")
    files = pixel_names.list_pictures(folder)
    known = pixel_names.Names(files, f"masks of {folder}")
    masks = [known.find(*image) for image in listing.select("path", "image_id").iter_rows()]
    if not any(masks):
        raise DataError(
            f"mask folder {folder} has no file for any image, e.g. {listing['path'][0]!r}; call "
            "masks as their images or name truth.column."
        )
    if left := sorted(set(files).difference(masks)):
        told = f"truth: {len(left):,} of {len(files):,} masks of {folder} are of no image, e.g."
        print(f"{told} {left[0]!r}: a mask is called as its image.", file=sys.stderr, flush=True)
    return listing.with_columns(pl.Series("mask", masks, dtype=pl.String))


def _hold_out(listing: pl.DataFrame, config: Config) -> pl.DataFrame:
    """With ``prepare.hold_out_truth`` every patient with a true mask is in test."""
    if not config.prepare.hold_out_truth:
        return listing
    if listing["mask"].null_count() == len(listing):
        raise ConfigError(
            "prepare.hold_out_truth needs truth of kind masks with a mask of some image; describe "
            "truth or remove it."
        )
    scored = pl.col("mask").is_not_null().any().over("patient_id")
    held = listing.with_columns(split=pl.when(scored).then(pl.lit("test")).otherwise("split"))
    if not (held["split"] == "train").any():
        raise DataError(
            "prepare.hold_out_truth leaves no patient to train, each has a true mask; remove it."
        )
    return held


def _read_chexpert(options: ChexpertConfig, prepare: PrepareConfig, find: Find) -> Listing:
    """CheXpert as released (Irvin et al. 2019): train.csv and valid.csv, which is test here."""
    folder, parts = options.folder.strip("/"), []
    for split in ("train", "valid"):
        file = find(_in_folder(folder, f"{split}.csv"))
        table = tables.read_source(file)
        tables.require_columns(table, ("Path", "Frontal/Lateral", *findings.CHEXPERT), file)
        # Below the released folder, whatever that is called here and what lies above it.
        found = paths(table, "Path", file)
        released = [re.sub(r"(?s)^(.*/)?CheXpert[^/]*/", "", path) for path in found]
        # Called as CheXlocalize calls them: patient00001_study1_view1_frontal.
        views = [_from_patient(path, file) for path in released]
        people = [view.split("/")[0] for view in views]
        splits = ["test"] * len(views)
        if split == "train":
            splits = assign_all(people, prepare.valid, prepare.test)
        known = {
            "image_id": pixel_names.image_ids(views),
            "path": [_in_folder(folder, path) for path in released],
            "patient_id": people,
            "split": splits,
            "view": table["Frontal/Lateral"].str.to_lowercase(),
        }
        of_images = {name: labels(table, name, file) for name in findings.CHEXPERT}
        parts.append(pl.DataFrame({**known, **of_images}))
    wanted = pl.col("view").is_in(list(options.views))
    return pl.concat(parts).filter(wanted), list(findings.CHEXPERT)


def _from_patient(path: str, file: Path) -> str:
    named = re.match(r"(?s)(?:.*/)?(patient\d+/.*)", path)
    if not named:
        raise DataError(
            f"path {path!r} in table {file} names no patient; expected "
            ".../patient00001/study1/view1_frontal.jpg."
        )
    return named[1]


def _read_table(
    options: TableConfig, prepare: PrepareConfig, find: Find, mask: str | None, view: str = ""
) -> Listing:
    """Any CSV or Parquet file and a folder of images."""
    file = find(options.file)
    table = tables.read_source(file)
    wanted = (
        *(options.image_column, options.patient_column, options.label_column),
        *(options.split_column, *(options.finding_columns or ()), mask),
    )
    tables.require_columns(table, [column for column in wanted if column], file)
    images = paths(table, options.image_column, file)
    ids = pixel_names.image_ids(images)
    people = patients(table, options.patient_column, file) if options.patient_column else ids
    if options.split_column:
        splits = filled(table, options.split_column, file)
        for row, split in enumerate(splits, start=2):
            if split not in ("train", "valid", "test"):
                raise DataError(
                    f"table {file} line {row}: split {split!r}; use train, valid or test."
                )
    else:
        splits = assign_all(people, prepare.valid, prepare.test)
    known = _table_labels(table, options, file)
    folder = options.images.strip("/")
    columns = {
        "image_id": ids,
        "path": [_in_folder(folder, name) for name in images],
        "patient_id": people,
        "split": splits,
        **known,
    }
    if view:
        columns["view"] = table[view]
    if mask:
        columns["mask"] = pl.Series(map(pixel_names.mask_file, table[mask]), dtype=pl.String)
    return pl.DataFrame(columns), list(known)


def _in_folder(folder: str, name: str) -> str:
    """The path below the data root; an absolute one stays so, and is refused when it is read."""
    return name if folder in ("", ".") or name.startswith("/") else f"{folder}/{name}"


def _table_labels(table: pl.DataFrame, options: TableConfig, file: Path) -> dict[str, pl.Series]:
    if options.finding_columns:
        known = {name: labels(table, name, file) for name in options.finding_columns}
    else:
        classes = pl.Series(filled(table, options.label_column or "", file))
        names = sorted(set(classes))
        if len(names) > MOST_CLASSES:
            raise DataError(
                f"column {options.label_column!r} of {file} has {len(names)} different values, "
                f"over {MOST_CLASSES}; name the column with the class of each image."
            )
        require_told_apart(names, f"the column {options.label_column!r} of {file}")
        known = {name: (classes == name).cast(pl.Int8) for name in names}
    check_names(known, str(file))
    return known


def check_findings(names: Sequence[str], config: Config) -> None:
    """Refuse, by a :class:`ConfigError`, findings that the data set does not have."""
    chosen = list(config.attribute.findings or ())
    chosen += [name for name in config.classify.uncertain if name != "default"]
    findings.localized(names, chosen)
    if not findings.localized(names, config.attribute.findings):
        raise ConfigError("no finding is left to localize; set attribute.findings.")
