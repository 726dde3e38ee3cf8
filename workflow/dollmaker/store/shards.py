"""Shards: the HDF5 files of the pipeline. The only module that opens HDF5.

A shard is a table (one row per image or per image-finding pair) and stacked arrays with the same
number of rows, one row a chunk. HDF5 protects all of it: data by Fletcher-32, and what says where
data lie by the checksums of its format of version 1.10. Texts have a fixed length, as Fletcher-32
does not see others. So a flipped bit is an error on read, not a wrong pixel. A JSON header says
where a shard comes from (:mod:`dollmaker.store.provenance`).
One process writes a shard, once, and it appears whole under its name or not at all.
"""

import io
import json
import operator
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self, SupportsIndex

import h5py
import numpy as np
import numpy.typing as npt

from dollmaker.runtime.errors import ArtifactError, DamagedError
from dollmaker.store.depth import to_levels
from dollmaker.store.files import atomic_path
from dollmaker.store.provenance import FORMATS

Kind = Literal["images", "relevance", "masks"]
Array = npt.NDArray[Any]

#: The first format of HDF5 that checksums all that is not data, and the last that is written.
_VERSION = ("v110", "v110")


class ShardWriter:
    """Appends rows to one shard. Made by :func:`create_shard`."""

    def __init__(self, file: h5py.File, gzip: bool) -> None:
        self._file = file
        self._filters = _filters(gzip)
        self._columns: dict[str, list[Array]] = {}

    def append(self, table: Mapping[str, Sequence[Any] | Array], **arrays: Array) -> None:
        """Append P rows: columns of the table (P), strings as UTF-8, and arrays (P, ...)."""
        for name, column in table.items():
            self._columns.setdefault(name, []).append(np.asarray(column))
        for name, values in arrays.items():
            path, shape = f"arrays/{name}", values.shape[1:]
            if path not in self._file:
                self._file.create_dataset(
                    path,
                    shape=(0, *shape),
                    maxshape=(None, *shape),
                    chunks=(1, *shape),
                    dtype=values.dtype,
                    fletcher32=True,
                    **self._filters,
                )
            dataset = self._file[path]
            start = dataset.shape[0]
            dataset.resize(start + len(values), axis=0)
            dataset[start:] = values

    def write_table(self) -> None:
        """Write the columns, which are small, after all rows are known."""
        for name, parts in self._columns.items():
            values = np.concatenate(parts)
            if values.dtype.kind in "UO":
                texts = [str(value).encode() for value in values]
                length = max(map(len, texts), default=1)
                values = np.array(texts, h5py.string_dtype("utf-8", max(1, length)))
            else:
                values = values.astype(parts[0].dtype, copy=False)
            # HDF5 has no chunks of nothing.
            how = {"chunks": (len(values),), "fletcher32": True} if len(values) else {}
            self._file.create_dataset(f"table/{name}", data=values, dtype=values.dtype, **how)


def _filters(gzip: bool) -> dict[str, Any]:
    if gzip:
        return {"compression": "gzip", "compression_opts": 4, "shuffle": True}
    import hdf5plugin

    return dict(hdf5plugin.LZ4())


def _text(value: Any) -> str:
    """A text of an attribute, of fixed length or (before format 2) of any."""
    return value.decode() if isinstance(value, bytes) else str(value)


def _rows(rows: Any, count: int) -> int | slice | list[int]:
    """Rows as HDF5 wants them, of a shard of so many; refuse what no shard has."""
    if rows is None:
        return slice(None)
    if isinstance(rows, slice):
        start, stop, step = rows.indices(count)
        if step < 1:
            raise IndexError(f"rows are read upwards, not in steps of {step}")
        return slice(start, max(start, stop), step)
    if np.ndim(rows) == 0:
        return _row(rows, count)
    numbers = [_row(row, count) for row in rows]
    if any(later <= earlier for earlier, later in pairwise(numbers)):
        raise IndexError("row numbers do not increase")
    return numbers


def _row(row: SupportsIndex, count: int) -> int:
    number = operator.index(row)
    if not 0 <= number < count:
        raise IndexError(f"row {number} of a shard of {count} rows")
    return number


class _Spool(io.FileIO):
    """A file for HDF5 that never fails: HDF5 crashes the process when a write does.

    After the first failure nothing more is written; :meth:`check` tells.
    """

    _failure: OSError | None = None

    def _try(self, call: Callable[[], int], otherwise: int) -> int:
        if self._failure is None:
            try:
                return call()
            except OSError as error:
                self._failure = error
        return otherwise

    def write(self, data: Any) -> int:
        """Write, or pretend to."""
        size = memoryview(data).nbytes
        written = self._try(partial(super().write, data), size)
        if written < size:  # the disk took a part
            rest = memoryview(data).cast("B")[written:]
            self._try(partial(super().write, rest), 0)
        return size

    def truncate(self, size: int | None = None) -> int:
        """Cut, or pretend to."""
        return self._try(partial(super().truncate, size), size or 0)

    def check(self) -> None:
        """Raise what went wrong."""
        if self._failure is not None:
            raise self._failure


@contextmanager
def create_shard(
    path: Path, kind: Kind, header: Mapping[str, Any], *, gzip: bool = False
) -> Iterator[ShardWriter]:
    """Write a shard: open, append, close, rename.

    Released files use gzip, which every HDF5 reader has, instead of LZ4. The header is that of
    :func:`dollmaker.store.provenance.header`.
    """
    with atomic_path(path) as part:
        spool = _Spool(part, "w+")
        try:
            with closing(spool), h5py.File(spool, "w", libver=_VERSION, track_order=True) as file:
                file.attrs["kind"] = np.bytes_(kind.encode())
                file.attrs["header"] = np.bytes_(json.dumps(header, ensure_ascii=False).encode())
                writer = ShardWriter(file, gzip)
                yield writer
                writer.write_table()
                file.attrs["complete"] = True
        finally:
            spool.check()  # the disk's complaint explains all that follow from it


class Shard:
    """An open shard, read-only.

    Raises:
        ArtifactError: If the file is missing, damaged, half-written or of another kind.
    """

    def __init__(self, path: Path, kind: Kind) -> None:
        with suppress(ImportError):  # the LZ4 filter, which released files do without
            import hdf5plugin  # noqa: F401

        self.path = path
        self._arrays: dict[str, h5py.Dataset | None] = {}
        try:
            self._file = h5py.File(path, "r", locking="best-effort")
        except FileNotFoundError:
            raise ArtifactError(
                f"shard {path} does not exist; run the stage that makes it."
            ) from None
        except OSError as error:
            raise DamagedError(f"shard {path} is damaged ({error})", path) from None
        with self._checked():
            attrs = dict(self._file.attrs)
            self.header: dict[str, Any] = json.loads(_text(attrs.get("header", "{}")))
        if not attrs.get("complete") or _text(attrs.get("kind")) != kind:
            raise DamagedError(f"{path} is not a complete shard of {kind}", path)
        if self.header.get("format") not in FORMATS:
            raise DamagedError(
                f"{path} has format version {self.header.get('format')}, this program reads "
                f"{' and '.join(map(str, FORMATS))}",
                path,
            )

    def table(self) -> dict[str, Array]:
        """All columns, strings as Python ``str`` in object arrays."""
        found = {}
        for name in self._names("table"):
            with self._checked():
                dataset = self._file[f"table/{name}"]
                text = h5py.check_string_dtype(dataset.dtype)
                values = dataset.asstr()[:] if text else dataset[:]
                found[name] = np.asarray(values, dtype=object if text else None)
        return found

    def _names(self, group: str) -> list[str]:
        with self._checked():  # not `get`, which calls a damaged group absent
            return list(self._file[group]) if group in self._file else []

    def __len__(self) -> int:
        for group in ("table", "arrays"):
            for name in self._names(group):
                return int(self._file[f"{group}/{name}"].shape[0])
        return 0

    def read(self, name: str, rows: int | slice | Sequence[int] | None = None) -> Array:
        """Read rows of an array; images come in levels (:mod:`dollmaker.store.depth`).

        Rows are one, a slice, increasing numbers, or ``None`` for all.

        Raises:
            DamagedError: If the file is not as it was written.
            IndexError: If there is no such row, or numbers do not increase.
            TypeError: If rows are no such numbers.
        """
        with self._checked():
            array = self._find(f"arrays/{name}")
            if array is None:
                return np.zeros((0, 0, 0), dtype=np.uint8)
            count = int(array.shape[0])
        chosen = _rows(rows, count)  # an error of the caller, who must not lose a file for it
        with self._checked():
            values = np.asarray(array[chosen])
        return to_levels(values) if name == "image" else values

    def _find(self, name: str) -> Any:
        """A data set or ``None``; looking a name up takes as long as reading a row."""
        if name not in self._arrays:
            known = name in self._file  # not `get`, which calls a damaged one absent
            self._arrays[name] = self._file[name] if known else None
        return self._arrays[name]

    @contextmanager
    def _checked(self) -> Iterator[None]:
        try:
            yield
        except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
            raise DamagedError(f"shard {self.path} is damaged ({error})", self.path) from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def tables_of_pairs(masks: Shard, maps: Shard) -> tuple[dict[str, Array], dict[str, Array]]:
    """The tables of a mask shard and of the relevance shard that it was made from.

    Raises:
        ArtifactError: If they do not hold the same pairs in the same order.
    """
    table, other = masks.table(), maps.table()
    for key in ("image_id", "finding"):
        if list(table.get(key, ())) != list(other.get(key, ())):
            raise ArtifactError(
                f"{masks.path} and {maps.path} do not hold the same pairs; delete the masks and "
                "run the workflow again."
            )
    return table, other


class ShardSeries:
    """Shards of masks that follow each other, as one: rows are numbered through.

    Files are opened on first use in each process; none is an empty series.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)
        self._open: list[Shard] = []
        self._ends: list[int] = []

    def table(self) -> dict[str, Array]:
        """All columns of all files, as :meth:`Shard.table`."""
        tables = [shard.table() for shard in self._shards()]
        names = tables[0] if tables else ()
        return {name: np.concatenate([table[name] for table in tables]) for name in names}

    def read(self, name: str, row: int) -> Array:
        """One row of an array."""
        shards = self._shards()
        number = bisect_right(self._ends, row)
        return shards[number].read(name, row - (self._ends[number - 1] if number else 0))

    def headers(self) -> list[dict[str, Any]]:
        """Provenance of each file."""
        return [shard.header for shard in self._shards()]

    def _shards(self) -> list[Shard]:
        if not self._open:
            self._open = [Shard(path, "masks") for path in self.paths]
            self._ends = np.cumsum([len(shard) for shard in self._open]).tolist()
        return self._open

    def __getstate__(self) -> dict[str, Any]:
        return {"paths": self.paths, "_open": [], "_ends": []}


class ImageShards:
    """Random access to the images of all shards of a data set, ``{shard}.h5`` in a folder.

    Files are opened on first use in each process (h5py objects do not survive a fork) and at most
    ``max_open`` stay open.
    """

    def __init__(self, folder: Path, max_open: int = 32) -> None:
        self.folder = folder
        self._max_open = max_open
        self._open: OrderedDict[str, Shard] = OrderedDict()

    def read(self, shard: str, row: int) -> Array:
        """One image (C, H, W) in levels: uint8, or float32 in 0..255 where shards have 16 bits."""
        if shard not in self._open:
            if len(self._open) >= self._max_open:
                self._open.popitem(last=False)[1].close()
            self._open[shard] = Shard(self.folder / f"{shard}.h5", "images")
        self._open.move_to_end(shard)
        return self._open[shard].read("image", row)

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "_max_open": self._max_open, "_open": OrderedDict()}
