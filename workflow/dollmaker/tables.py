"""Tables: the user's CSV and Parquet files, and the pipeline's own Parquet files."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from dollmaker.errors import ArtifactError, DamagedError, DataError
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
    """Write a Parquet file of the pipeline atomically, with its provenance as metadata.

    Every page carries a checksum, and the header one of itself and of the names of the columns.
    """
    from pyarrow import parquet

    text = json.dumps(header, ensure_ascii=False)
    metadata = {"dollmaker": text, "sha256": _digest(text, table.columns, len(table))}
    with atomic_path(path) as part:
        parquet.write_table(
            table.to_arrow().replace_schema_metadata(metadata),
            part,
            compression="zstd",
            write_statistics=False,
            write_page_checksum=True,
        )


def _digest(header: str, columns: list[str], rows: int) -> str:
    return hashlib.sha256(json.dumps([header, columns, rows]).encode()).hexdigest()


def read(path: Path) -> pl.DataFrame:
    """Read a Parquet file of the pipeline.

    Raises:
        ArtifactError: If it is missing or damaged.
    """
    from pyarrow import parquet

    try:
        read = parquet.read_table(path, page_checksum_verification=True, partitioning=None)
        _checked_header(read.schema.metadata, read.column_names, len(read))
        table = pl.from_arrow(read)
    except FileNotFoundError:
        raise ArtifactError(f"{path} does not exist; run the stage that makes it.") from None
    except Exception as error:  # any damage of the file
        detail = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DamagedError(f"{path} is damaged ({detail})", path) from None
    assert isinstance(table, pl.DataFrame)
    return table


def read_header(path: Path) -> dict[str, Any]:
    """The provenance of a Parquet file written by :func:`write`.

    Raises:
        ArtifactError: If it is damaged.
    """
    from pyarrow import parquet

    try:
        facts = parquet.read_metadata(path)
        schema = facts.schema.to_arrow_schema()
        return _checked_header(facts.metadata, schema.names, facts.num_rows)
    except FileNotFoundError:
        raise ArtifactError(f"{path} does not exist; run the stage that makes it.") from None
    except Exception as error:  # any damage of the file
        raise DamagedError(f"{path} is damaged ({' '.join(str(error).split())})", path) from None


def _checked_header(
    metadata: Mapping[bytes, bytes] | None, columns: list[str], rows: int
) -> dict[str, Any]:
    """The header of a file, after its checksum was compared; empty if it has none."""
    known = metadata or {}
    text, given = (known.get(key, b"").decode() for key in (b"dollmaker", b"sha256"))
    if given and given != _digest(text, columns, rows):
        raise ValueError("the checksum of its header is wrong")
    header: dict[str, Any] = json.loads(text) if text else {}
    return header
