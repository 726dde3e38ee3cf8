"""Tables: the user's CSV and Parquet files, and the pipeline's own Parquet files."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from dollmaker.errors import ArtifactError, DataError
from dollmaker.files import atomic_path


def read_source(path: Path) -> pl.DataFrame:
    """Read a user's table, every column as text, surrounding blanks removed, empty = null.

    Raises:
        DataError: If the file is missing or is not a table.
    """
    if not path.is_file():
        raise DataError(f"table {path} does not exist; correct data_root or the table's name.")
    try:
        if path.suffix.lower() in {".parquet", ".pq"}:
            table = pl.read_parquet(path)
        else:
            table = pl.read_csv(path, infer_schema=False)
            # Polars leaves doubled quotes in the header, in cells it does not.
            table = table.rename(lambda name: name.replace('""', '"'))
        table = table.select(pl.all().cast(pl.String).str.strip_chars())
    except Exception as error:  # polars raises many types; the file is the user's
        detail = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"table {path} is not readable ({detail}); save it as CSV or Parquet."
        ) from None
    if table.is_empty():
        raise DataError(f"table {path} has no rows; give a table with one row per image.")
    return table.with_columns(
        pl.when(pl.all().str.len_bytes() == 0).then(None).otherwise(pl.all()).name.keep()
    )


def require_columns(table: pl.DataFrame, columns: Iterable[str], path: Path) -> None:
    """Refuse a table that lacks a column.

    Raises:
        DataError: Naming the column and those there are.
    """
    for column in columns:
        if column not in table.columns:
            raise DataError(
                f"table {path} lacks the column {column!r}; it has: {', '.join(table.columns)}. "
                "Correct the configuration or the table."
            )


def write(table: pl.DataFrame, path: Path, header: Mapping[str, Any]) -> None:
    """Write a Parquet file of the pipeline atomically, with its provenance as metadata."""
    with atomic_path(path) as part:
        table.write_parquet(
            part, metadata={"dollmaker": json.dumps(header, ensure_ascii=False)}, statistics=False
        )


def read(path: Path) -> pl.DataFrame:
    """Read a Parquet file of the pipeline.

    Raises:
        ArtifactError: If it is missing or damaged.
    """
    try:
        return pl.read_parquet(path)
    except FileNotFoundError:
        raise ArtifactError(f"{path} does not exist; run the stage that makes it.") from None
    except Exception as error:  # any damage of the file
        detail = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ArtifactError(
            f"{path} is damaged ({detail}); delete it and run the workflow again."
        ) from None


def read_header(path: Path) -> dict[str, Any]:
    """The provenance of a Parquet file written by :func:`write`."""
    text = pl.read_parquet_metadata(path).get("dollmaker")
    return json.loads(text) if text else {}
