"""Sources: where images and labels come from. Each returns one plan of the data set.

A plan has one row per image: ``image_id``, ``path`` (relative to the data root), ``patient_id``,
``split``, ``view``, ``mask`` (file of the true mask, or null), and an int8 column per finding
(1, 0, -1, null = not mentioned).
"""

from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import polars as pl

from dollmaker import findings, tables
from dollmaker.errors import ConfigError, DataError
from dollmaker.prepare.splits import assign

Plan = tuple[pl.DataFrame, list[str]]

_COLUMNS = ("image_id", "path", "patient_id", "split", "view", "mask")
_LABELS = {"1": 1, "1.0": 1, "0": 0, "0.0": 0, "-1": -1, "-1.0": -1}


def make_plan(config: dict[str, Any], data_root: Path) -> Plan:
    """List the images of the configured source.

    Args:
        config: The resolved configuration (sections source, prepare, truth).
        data_root: Folder of the source data.

    Returns:
        The plan and the names of the findings.

    Raises:
        DataError: If the folder or a table is not as described.
    """
    if not data_root.is_dir():
        raise DataError(
            f"data folder {data_root} does not exist; set data_root to an existing folder."
        )
    kind = config["source"]["kind"]
    plan, names = _SOURCES[kind](config, data_root)
    if plan.is_empty():
        raise DataError("the source lists no images; check source.chexpert.views and the table.")
    return plan.select(*_COLUMNS, *names), names


def _chexpert(config: dict[str, Any], data_root: Path) -> Plan:
    """CheXpert as released (Irvin et al. 2019): train.csv and valid.csv, which is test here."""
    options = config["source"].get("chexpert") or {
        "folder": "CheXpert-v1.0-small",
        "views": ["frontal"],
    }
    folder, prepare = options["folder"], config["prepare"]
    parts = []
    for name in ("train", "valid"):
        file = data_root / folder / f"{name}.csv"
        table = tables.read_source(file)
        tables.require_columns(table, ("Path", "Frontal/Lateral", *findings.CHEXPERT), file)
        table = table.filter(
            pl.col("Frontal/Lateral").str.to_lowercase().is_in(list(options["views"]))
        )
        paths = [_below(folder, value) for value in _filled(table, "Path", file)]
        patients = [_part(path, "patient") for path in paths]
        splits = ["test"] * len(paths)
        if name == "train":
            splits = [assign(p, prepare["valid"], prepare["test"]) for p in patients]
        parts.append(
            pl.DataFrame(
                {
                    "image_id": [_chexpert_id(path) for path in paths],
                    "path": paths,
                    "patient_id": patients,
                    "split": splits,
                    "view": table["Frontal/Lateral"].str.to_lowercase(),
                    "mask": pl.Series([None] * len(paths), dtype=pl.String),
                    **{f: _labels(table, f, file) for f in findings.CHEXPERT},
                }
            )
        )
    return pl.concat(parts), list(findings.CHEXPERT)


def _below(folder: str, path: str) -> str:
    """CheXpert paths start with the name of the released folder, whatever it is called here."""
    first, _, rest = path.partition("/")
    return f"{folder}/{rest}" if first.startswith("CheXpert") else f"{folder}/{path}"


def _part(path: str, prefix: str) -> str:
    for part in PurePosixPath(path).parts:
        if part.startswith(prefix):
            return part
    raise DataError(
        f"path {path!r} names no {prefix}; expected .../patient00001/study1/view1_frontal.jpg."
    )


def _chexpert_id(path: str) -> str:
    """``patient00001_study1_view1_frontal``, as CheXlocalize writes it."""
    patient = _part(path, "patient")
    tail = PurePosixPath(path.split(patient, 1)[1].lstrip("/")).with_suffix("")
    return "_".join((patient, *tail.parts))


def _table(config: dict[str, Any], data_root: Path) -> Plan:
    """Any CSV or Parquet file and a folder of images."""
    options, prepare, truth = config["source"]["table"], config["prepare"], config.get("truth")
    file = data_root / options["file"]
    table = tables.read_source(file)
    wanted = [
        options[key] for key in ("image_column", "patient_column", "label_column", "split_column")
    ]
    columns = [column for column in wanted if column] + list(options["finding_columns"] or ())
    mask_column = truth["column"] if truth and truth["kind"] == "masks" else None
    tables.require_columns(table, [*columns, *([mask_column] if mask_column else [])], file)
    images = _filled(table, options["image_column"], file)
    ids = [str(PurePosixPath(name).with_suffix("")).replace("/", "_") for name in images]
    patient_column = options["patient_column"]
    patients = _filled(table, patient_column, file) if patient_column else ids
    if options["split_column"]:
        splits = _filled(table, options["split_column"], file)
        for row, split in enumerate(splits, start=2):
            if split not in ("train", "valid", "test"):
                raise DataError(
                    f"table {file} line {row}: split {split!r}; use train, valid or test."
                )
    else:
        splits = [assign(p, prepare["valid"], prepare["test"]) for p in patients]
    names, labels = _table_labels(table, options, file)
    folder = options["images"].strip("/")
    plan = pl.DataFrame(
        {
            "image_id": ids,
            "path": [f"{folder}/{name}" if folder not in ("", ".") else name for name in images],
            "patient_id": patients,
            "split": splits,
            "view": pl.Series([None] * len(ids), dtype=pl.String),
            "mask": table[mask_column]
            if mask_column
            else pl.Series([None] * len(ids), dtype=pl.String),
            **labels,
        }
    )
    return plan, names


def _table_labels(
    table: pl.DataFrame, options: dict[str, Any], file: Path
) -> tuple[list[str], dict[str, pl.Series]]:
    if options["finding_columns"]:
        names = list(options["finding_columns"])
        labels = {name: _labels(table, name, file) for name in names}
    else:
        classes = _filled(table, options["label_column"], file)
        names = sorted(set(classes))
        labels = {
            name: pl.Series([int(label == name) for label in classes], dtype=pl.Int8)
            for name in names
        }
    for name in names:
        if name in _COLUMNS or name in ("width", "height", "sha256", "shard", "row"):
            raise DataError(
                f"finding {name!r} in {file} has the name of an index column; rename it."
            )
    return names, labels


def _filled(table: pl.DataFrame, column: str, file: Path) -> list[str]:
    """Values of a column that may not be blank."""
    values = table[column].to_list()
    for row, value in enumerate(values, start=2):
        if value is None:
            raise DataError(
                f"table {file} line {row}: {column!r} is blank; fill it in or remove the row."
            )
    return values


def _labels(table: pl.DataFrame, column: str, file: Path) -> pl.Series:
    values: list[int | None] = []
    for row, text in enumerate(table[column].to_list(), start=2):
        if text is not None and text not in _LABELS:
            raise DataError(
                f"table {file} line {row}: label {text!r} of {column!r}; use 1, 0, -1 or blank."
            )
        values.append(None if text is None else _LABELS[text])
    return pl.Series(values, dtype=pl.Int8)


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


_SOURCES: dict[str, Callable[[dict[str, Any], Path], Plan]] = {
    "phantoms": _chexpert,
    "chexpert": _chexpert,
    "table": _table,
}
