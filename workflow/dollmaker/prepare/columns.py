"""Columns of the user's tables: which values they may hold."""

from pathlib import Path, PurePosixPath

import polars as pl

from dollmaker.errors import DataError

_LABELS = {"1": 1, "1.0": 1, "0": 0, "0.0": 0, "-1": -1, "-1.0": -1}


def filled(table: pl.DataFrame, column: str, file: Path) -> list[str]:
    """Values of a column that may not be blank.

    Raises:
        DataError: Naming the line.
    """
    values = table[column].to_list()
    for row, value in enumerate(values, start=2):
        if value is None:
            raise DataError(
                f"table {file} line {row}: {column!r} is blank; fill it in or remove the row."
            )
    return values


def labels(table: pl.DataFrame, column: str, file: Path) -> pl.Series:
    """Labels of a finding as int8: 1, 0, -1, or null where the table is blank.

    Raises:
        DataError: Naming the line.
    """
    values: list[int | None] = []
    for row, text in enumerate(table[column].to_list(), start=2):
        if text is not None and text not in _LABELS:
            raise DataError(
                f"table {file} line {row}: label {text!r} of {column!r}; use 1, 0, -1 or blank."
            )
        values.append(None if text is None else _LABELS[text])
    return pl.Series(values, dtype=pl.Int8)


def identifier(path: str) -> str:
    """The ``image_id`` of a file: its path without suffix, folders joined by ``_``."""
    return str(PurePosixPath(path).with_suffix("")).replace("/", "_")
