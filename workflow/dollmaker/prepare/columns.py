"""Columns of the user's tables: which values they may hold."""

import posixpath
from pathlib import Path

import polars as pl

from dollmaker.errors import DataError

_LABELS = {"1": 1, "1.0": 1, "0": 0, "0.0": 0, "-1": -1, "-1.0": -1}


def filled(table: pl.DataFrame, column: str, file: Path) -> list[str]:
    """Values of a column that may not be blank.

    Raises:
        DataError: Naming the line.
    """
    values = table[column]
    if values.null_count():
        row = int(values.is_null().arg_true()[0]) + 2
        raise DataError(
            f"table {file} line {row}: {column!r} is blank; fill it in or remove the row."
        )
    return values.to_list()


def labels(table: pl.DataFrame, column: str, file: Path) -> pl.Series:
    """Labels of a finding as int8: 1, 0, -1, or null where the table is blank.

    Raises:
        DataError: Naming the line.
    """
    values = table[column]
    wrong = (values.is_not_null() & ~values.is_in(list(_LABELS))).arg_true()
    if len(wrong):
        row, text = int(wrong[0]) + 2, values[int(wrong[0])]
        raise DataError(
            f"table {file} line {row}: label {text[:40]!r} of {column!r}; use 1, 0, -1 or blank."
        )
    return values.replace_strict(_LABELS, default=None, return_dtype=pl.Int8)


def identifier(path: str) -> str:
    """The ``image_id`` of a file: its path without suffix, folders joined by ``_``."""
    stem, suffix = posixpath.splitext(path)
    parts = (stem if len(suffix) > 1 else path).split("/")
    return "_".join(part for part in parts if part not in ("", "."))
