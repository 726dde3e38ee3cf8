"""A file whose write errors are kept for later."""

from collections.abc import Callable
from pathlib import Path
from typing import Any


class Spool:
    """A file for HDF5 that never fails: HDF5 crashes the process when a write does.

    After the first failure nothing more is written; :meth:`check` tells.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b", buffering=0)
        self._failure: OSError | None = None

    def _try(self, call: Callable[[], int | None], otherwise: int) -> int:
        if self._failure is None:
            try:
                done = call()
                return otherwise if done is None else done
            except OSError as error:
                self._failure = error
        return otherwise

    def read(self, size: int = -1) -> bytes:
        """Bytes from here on."""
        return self._file.read(size)

    def write(self, data: Any) -> int:
        """Write, or pretend to."""
        size = memoryview(data).nbytes
        written = self._try(lambda: self._file.write(data), size)
        if written < size and self._failure is None:  # the disk took a part
            self._try(lambda: self._file.write(memoryview(data).cast("B")[written:]), 0)
        return size

    def truncate(self, size: int) -> int:
        """Set the size."""
        return self._try(lambda: self._file.truncate(size), size)

    def flush(self) -> None:
        """Do nothing: the file has no buffer."""
        self._try(lambda: self._file.flush(), 0)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Where it is."""
        return self._file.tell()

    def readinto(self, buffer: Any) -> int | None:
        """Fill a buffer."""
        return self._file.readinto(buffer)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def check(self) -> None:
        """Raise what went wrong."""
        if self._failure is not None:
            raise self._failure
