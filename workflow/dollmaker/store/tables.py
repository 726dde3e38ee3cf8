"""Tables: the user's CSV and Parquet files, and the pipeline's own, of which one is the index."""

import csv
import gzip
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from dollmaker.runtime import encoding
from dollmaker.runtime.errors import ArtifactError, DamagedError, DataError, first_line
from dollmaker.store.files import atomic_path

#: Names of columns as they are written, and their cells in columns that are called otherwise.
Cells = tuple[list[str], pl.DataFrame]

#: Spaces of any kind, and characters without width that come with copied text.
_BLANKS = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000"
    + "".join(map(chr, range(0x2000, 0x2010)))
    + "\u202a\u202b\u202c\u202d\u202e\u2060\ufeff"
)

_DELIMITERS = (",", ";", "\t")

#: No table of images is larger.
_MOST_BYTES = 1 << 30

#: Rows that are held as Python's lists at a time.
_BLOCK = 10_000


def read_source(path: Path) -> pl.DataFrame:
    """Read a user's table, every column as text, surrounding blanks removed, empty = null.

    Office programs write CSV in many ways. The encoding is UTF-8 or what a byte order mark says;
    cells are divided by commas, semicolons or tabs, whichever the header has, or by what a first
    line ``sep=;`` says; lines end as on Unix, Windows or the old Mac; the file may be packed by
    gzip. In Parquet a NaN is null and a column of whole floats, as tables with gaps have it, is
    integers. A cell ``="007"``, by which exports keep zeros from office programs, is the text in
    its quotes. Blanks are spaces of any kind and characters without width. Left out are empty rows
    at the end and empty columns without a name; other columns without a name are called by their
    place: ``column 3``.

    Row ``n`` of the result (from 0) is line ``n + 2`` of the sheet, as office programs show it: the
    line ``sep=;`` is not counted, and a cell of several lines is one.

    Raises:
        DataError: If the file is missing or is not a table, or two columns have one name.
    """
    if not path.is_file():
        raise DataError(f"table {path} does not exist; correct data_root or the table's name.")
    try:
        packed = path.suffix.lower() in {".parquet", ".pq"}
        names, cells = _read_parquet(path) if packed else _read_csv(path)
    except Exception as error:  # polars raises many types; the file is the user's
        detail = first_line(error)
        raise DataError(
            f"table {path} is not readable ({detail}); save it as CSV in UTF-8 or Parquet."
        ) from None
    cells = cells.select(
        pl.all().str.strip_chars(_BLANKS).str.replace(r'^="([^"]*)"$', "$1").replace("", None)
    )
    table = _named(names, cells, path)
    filled = [column.is_not_null().arg_true() for column in table]
    rows = max((int(places[-1]) + 1 for places in filled if len(places)), default=0)
    if not rows:
        raise DataError(f"table {path} has no rows; give a table with one row per image.")
    return table.head(rows)


def _named(names: list[str], cells: pl.DataFrame, path: Path) -> pl.DataFrame:
    """The columns by their names in the header; a name that is there twice would mean either."""
    plain = [name.strip(_BLANKS) for name in names]
    kept = [n for n, name in enumerate(plain) if name or cells[:, n].null_count() < len(cells)]
    chosen = [plain[n] or f"column {n + 1}" for n in kept]
    for name, times in Counter(chosen).items():
        if times > 1:
            raise DataError(
                f"table {path} has {times} columns called {name[:100]!r}; rename all but one."
            )
    table = cells[:, kept]
    table.columns = chosen
    return table


def _read_parquet(path: Path) -> Cells:
    table = pl.read_parquet(path, glob=False, hive_partitioning=False)
    return table.columns, pl.DataFrame([_as_text(column) for column in table])


def _as_text(column: pl.Series) -> pl.Series:
    """A column as text; whole floats are integers, so that 12.0 is the patient 12."""
    if column.dtype.is_nested():
        raise ValueError(f"column {column.name!r} holds lists, not one value a row")
    if column.dtype.is_float():
        column = column.fill_nan(None)
        whole = column.cast(pl.Int64, strict=False)
        if whole.cast(column.dtype).equals(column):
            column = whole
    return column.cast(pl.String)


def _read_csv(path: Path) -> Cells:
    text = encoding.decode(_content(path)).replace("\r\r\n", "\n")
    if not text.strip(_BLANKS):
        raise ValueError("it is empty")
    text, delimiter = _divided(text)
    rows = _rows(text, delimiter)
    header = next(rows, [])
    if not any(header):
        raise ValueError("line 1 is empty; name the columns there")
    even = _even(rows, len(header), delimiter)
    parts = [_frame([[""] * len(header)]).clear()]
    while block := list(islice(even, _BLOCK)):
        parts.append(_frame(block))
    return header, pl.concat(parts)


def _content(path: Path) -> bytes:
    with path.open("rb") as handle:
        packed = handle.read(2) == b"\x1f\x8b"
    with gzip.open(path) if packed else path.open("rb") as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise ValueError(f"it is larger than {_MOST_BYTES} bytes")
    if data.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise ValueError("it is a workbook or an archive")
    if data.lstrip()[:1] in (b"<", b"{"):
        raise ValueError("it is a web page, JSON or rich text under the name of a table")
    return data


def _divided(text: str) -> tuple[str, str]:
    """A text without its line ``sep=;``, and what divides its cells.

    That is what the line says or what the header has; of several the one that divides it most and
    the next rows into as many cells.
    """
    said = re.match(r'"?sep=([^\w\s"]|\t)"?[;,\t ]*(\r\n|\r|\n)', text, re.IGNORECASE)
    if said:
        return text[said.end() :], said[1]
    widths: dict[str, list[int]] = {}
    for delimiter in _DELIMITERS:
        with suppress(ValueError):
            widths[delimiter] = [len(row) for row in islice(_rows(text, delimiter), 20) if row]
    known = [delimiter for delimiter, found in widths.items() if found and found[0] > 1]
    even = [delimiter for delimiter in known if len(set(widths[delimiter])) == 1]
    return text, max(even or known or [","], key=lambda delimiter: widths.get(delimiter, [0])[0])


def _rows(text: str, delimiter: str) -> Iterator[list[str]]:
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True
    )
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise ValueError(f"the row from line {line} has wrong quotes: {error}") from None
        if row is None:
            return
        yield row


def _even(rows: Iterable[list[str]], width: int, delimiter: str) -> Iterator[list[str]]:
    """Rows of one width; a shorter one lacks empty cells at its end, as Excel leaves them out."""
    for line, row in enumerate(rows, start=2):
        if any(cell.strip(_BLANKS) for cell in row[width:]):
            raise ValueError(
                f"line {line} has {len(row)} cells and the header {width}, divided by "
                f"{delimiter!r}: put cells that hold one in quotes"
            )
        yield row[:width] + [""] * (width - len(row))


def _frame(rows: list[list[str]]) -> pl.DataFrame:
    """Rows as columns of text, which are called by their place."""
    columns = zip(*rows, strict=True)
    return pl.DataFrame([pl.Series(str(n), cells, pl.String) for n, cells in enumerate(columns)])


def require_columns(table: pl.DataFrame, columns: Iterable[str], path: Path) -> None:
    """Refuse, by a :class:`DataError`, a table that lacks a column."""
    known = " ".join(", ".join(table.columns).split())[:500]
    if len(table.columns) == 1:
        known += ", as one column: cells are divided by commas, semicolons or tabs"
    for column in columns:
        if column not in table.columns:
            raise DataError(
                f"table {path} lacks the column {column!r}; it has: {known}. Correct the "
                "configuration or the table."
            )


def write(table: pl.DataFrame, path: Path, header: Mapping[str, Any]) -> None:
    """Write a Parquet file of the pipeline atomically, with its provenance as metadata.

    Every page carries Parquet's own checksum.
    """
    from pyarrow import parquet

    metadata = {"dollmaker": json.dumps(header, ensure_ascii=False)}
    with atomic_path(path) as part:
        parquet.write_table(
            table.to_arrow().replace_schema_metadata(metadata),
            part,
            compression="zstd",
            write_statistics=False,
            write_page_checksum=True,
        )


def read(path: Path) -> pl.DataFrame:
    """Read a Parquet file of the pipeline.

    Raises:
        ArtifactError: If it is missing or damaged.
    """
    try:
        from pyarrow import parquet
    except ModuleNotFoundError:
        parquet = None
    try:
        if parquet is None:
            return pl.read_parquet(path, glob=False, hive_partitioning=False)
        # With pyarrow, which jobs have, every page's checksum is compared.
        table = parquet.read_table(path, page_checksum_verification=True, partitioning=None)
        return pl.DataFrame(pl.from_arrow(table))
    except FileNotFoundError:
        raise ArtifactError(f"{path} does not exist; run the stage that makes it.") from None
    except Exception as error:  # any damage of the file
        raise DamagedError(f"{path} is damaged ({first_line(error)})", path) from None


def read_header(path: Path) -> dict[str, Any]:
    """The provenance of a Parquet file written by :func:`write`.

    Raises:
        ArtifactError: If it is damaged.
    """
    try:
        text = pl.read_parquet_metadata(path).get("dollmaker", "{}")
        header: dict[str, Any] = json.loads(text)
    except FileNotFoundError:
        raise ArtifactError(f"{path} does not exist; run the stage that makes it.") from None
    except Exception as error:  # any damage of the file
        raise DamagedError(f"{path} is damaged ({' '.join(str(error).split())})", path) from None
    return header


def read_index(path: Path) -> tuple[pl.DataFrame, list[str]]:
    """The index, a row for each image that could be decoded, and its findings."""
    index = read(path)
    return index, list(read_header(path)["findings"])


def digest_index(index: pl.DataFrame) -> str:
    """SHA-256 of an index, whatever the number of its shards.

    Orientation and perceptual hash are left out: the checksums of the files decide the pixels.
    """
    text = index.drop("shard", "row", "orientation", "hash", strict=False).write_csv()
    return hashlib.sha256(text.encode()).hexdigest()
