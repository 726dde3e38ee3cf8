"""True masks, for scores only. Three forms: CheXlocalize's JSON, PNG files, and tables of boxes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from dollmaker.pixels.boxes import BoxTable
from dollmaker.pixels.chexlocalize import FindingFiles, require_called
from dollmaker.pixels.levels import Numbers, objects
from dollmaker.pixels.masks import Ints, MaskPicture, read_mask, require_upright
from dollmaker.runtime.errors import DataError
from dollmaker.store.files import inside
from dollmaker.store.findings import PRESENT

if TYPE_CHECKING:  # who scores a release has no pydantic
    from dollmaker.config.whole import Config, TruthConfig

Mask = npt.NDArray[np.bool_]
Row = Mapping[str, Any]

#: What it means that the truth has no entry of an image: nothing is known of it (our reading), or
#: its findings are absent (CheXlocalize's), so that a mask there is a false alarm.
Missing = Literal["unknown", "empty"]
UNKNOWN: Missing = "unknown"
EMPTY: Missing = "empty"


class Truth(Protocol):
    """Where the findings of an image really are.

    Attributes:
        targets: Names of the areas that masks are scored against; the first is the headline.
        option: The option that a fault is in; empty where the caller knows it.
    """

    targets: list[str]
    option: str

    def mask(self, row: Row, finding: str, target: str) -> Mask | None:
        """The true mask of a finding in an image.

        Args:
            row: A row of the index.
            finding: A finding.
            target: One of ``targets``.

        Returns:
            bool of shape (height, width) of the source, all False where the finding is known to
            be absent; ``None`` where nothing is known.

        Raises:
            DataError: If the mask is damaged or of another size than the image.
        """
        ...

    def fault(self, some: bool = False) -> str:
        """What is wrong with the masks that were read, part of a sentence; empty if nothing is.

        Args:
            some: Whether only some of the masks were read.
        """
        ...


class SourceTruth(Truth, Protocol):
    """Truth of the source, which is looked at before the run."""

    def knows(self, row: Row) -> bool:
        """Whether an image of the listing has truth, by its name.

        Raises:
            DataError: If its mask is missing, or it is not clear which is its own.
        """
        ...

    def look(self, row: Row) -> None:
        """Read the truth of an image, of whatever finding, for :meth:`Truth.fault`.

        Args:
            row: A row of the listing, with ``width``, ``height`` and ``orientation``.

        Raises:
            DataError: As :meth:`Truth.mask`.
        """
        ...


def load_truth(config: "Config", data_root: Path, findings: Iterable[str]) -> SourceTruth | None:
    """Open the configured truth of the findings that are scored; ``None`` if there is none.

    Raises:
        DataError: If a file is missing or is not as described.
    """
    options = config.truth
    if options is None:
        return None
    root = partial(inside, data_root, links=config.allow_links)
    if options.kind == "chexlocalize":
        return Chexlocalize([root(name) for name in options.files], findings, options.missing)
    if options.kind == "boxes":
        return Boxes(root(options.file or ""), options.space, findings, options.missing)
    folder = root(options.folder or "")
    return MaskFiles(folder, options, config.prepare.max_pixels, config.allow_links)


def require_sound(truth: Truth | None, key: str, some: bool = False) -> None:
    """Refuse scores by masks that do not hold what was asked for, after all or ``some`` were read.

    ``key`` is the option that says what masks hold, if the truth does not know it.

    Raises:
        DataError: If no mask holds a target, or masks write it in different ways.
    """
    if truth is not None and (fault := truth.fault(some)):
        raise DataError(f"true masks: {fault}. Correct {truth.option or key}.")


class Chexlocalize:
    """CheXlocalize's JSON, see :class:`dollmaker.pixels.chexlocalize.FindingFiles`.

    Args:
        files: JSON files.
        findings: The findings that are scored; of others nothing is known.
        missing: What an image without an entry is, see :data:`Missing`.
    """

    option = ""
    #: The one area: the finding itself.
    TARGET = "finding"

    def __init__(
        self, files: Sequence[Path], findings: Iterable[str], missing: Missing = UNKNOWN
    ) -> None:
        self.targets = [self.TARGET]
        self._missing = missing
        self._files = FindingFiles(files, "truth.files")
        self._findings = frozenset(findings)
        self._files.require(self._findings)

    def mask(self, row: Row, finding: str, target: str) -> Mask | None:
        """See :meth:`Truth.mask`."""
        image = row["image_id"]
        entry = self._files.find(row.get("path", image), image)
        if entry is None and self._missing == EMPTY:
            entry = {}
        if entry is None or finding not in self._findings:
            return None
        try:
            require_upright(_is_turned(row))
            return self._files.mask(entry, finding, row["width"], row["height"])
        except DataError as error:
            raise DataError(
                f"true mask of {finding!r} in {image!r}: {error}; correct the truth file, or use "
                "one drawn on these very images (CheXlocalize needs the full-size CheXpert)."
            ) from None

    def knows(self, row: Row) -> bool:
        """See :meth:`SourceTruth.knows`."""
        return self._files.find(row["path"], row["image_id"]) is not None

    def look(self, row: Row) -> None:
        """See :meth:`SourceTruth.look`."""
        for finding in self._findings:
            self.mask(row, finding, self.TARGET)

    def fault(self, some: bool = False) -> str:
        """See :meth:`Truth.fault`."""
        return ""


class Boxes:
    """Rectangles of a table, see :class:`dollmaker.pixels.boxes.BoxTable`.

    Args:
        file: The table.
        space: Side of the square that the boxes were drawn on; ``None`` means each image's own
            pixels.
        findings: The findings that are scored; the table must tell of one.
        missing: What a finding without a box is in an image, if the table boxes it elsewhere, see
            :data:`Missing`.
    """

    option = "truth.space (--space)"
    #: The one area: the rectangles.
    TARGET = "box"

    def __init__(
        self,
        file: Path,
        space: int | None,
        findings: Iterable[str] = (),
        missing: Missing = UNKNOWN,
    ) -> None:
        self.targets = [self.TARGET]
        self._missing = missing
        self._table = BoxTable(file, space, "truth")
        self._findings = frozenset(findings)
        require_called(self._findings, self._table.findings, file.name)
        self._boxed = {finding.casefold() for finding in self._table.findings}

    def mask(self, row: Row, finding: str, target: str) -> Mask | None:
        """See :meth:`Truth.mask`."""
        width, height = row["width"], row["height"]
        area = self._table.mask(row["path"], finding, width, height, row["image_id"])
        if area is not None:
            with _naming(f"box of {finding!r} in {row['image_id']!r}"):
                require_upright(_is_turned(row))
        elif self._missing == EMPTY and finding.casefold() in self._boxed:
            return nothing(row)
        return area

    def knows(self, row: Row) -> bool:
        """See :meth:`SourceTruth.knows`."""
        return self._table.knows(row["path"], row["image_id"])

    def look(self, row: Row) -> None:
        """See :meth:`SourceTruth.look`."""
        for finding in self._findings:
            self.mask(row, finding, self.TARGET)

    def fault(self, some: bool = False) -> str:
        """See :meth:`Truth.fault`."""
        return self._table.fault()


class MaskFiles:
    """Pictures with one pixel value or bit per area, named in the index column ``mask``.

    The truth of each finding whose label is 1 is the target's area; nothing is known of others.

    Args:
        folder: Folder of the files.
        options: What is in them, and of which images and findings they are.
        max_pixels: Larger files are refused.
        links: Whether links may leave ``folder``.
    """

    option = ""

    def __init__(self, folder: Path, options: "TruthConfig", max_pixels: int, links: bool) -> None:
        if not folder.is_dir():
            raise DataError(f"mask folder {folder} does not exist; correct truth.folder.")
        targets = options.targets or {}
        self.targets = list(targets)
        self._numbers = Numbers(targets, bits=options.encoding == "bits")
        self._folder, self._options = folder, options
        self._max_pixels, self._links = max_pixels, links
        self._last: tuple[str, Ints] | None = None

    def mask(self, row: Row, finding: str, target: str) -> Mask | None:
        """See :meth:`Truth.mask`."""
        options = self._options
        if options.findings is not None and finding not in options.findings:
            return None
        if row.get("mask") is None:
            return nothing(row) if options.missing == EMPTY else None
        if options.when_labelled and row.get(finding) != PRESENT:
            return None
        if self._last is None or self._last[0] != row["image_id"]:
            self._last = (row["image_id"], self._read(row))
        return self._numbers.area(self._last[1], target)

    def knows(self, row: Row) -> bool:
        """See :meth:`SourceTruth.knows`."""
        if row["mask"] is None:
            return False
        with _naming(f"true mask {row['mask']!r} of {row['image_id']!r}"):
            if not inside(self._folder, row["mask"], self._links).is_file():
                raise DataError("file is missing")
        return True

    def look(self, row: Row) -> None:
        """See :meth:`SourceTruth.look`."""
        self._read(row)

    def _read(self, row: Row) -> Ints:
        path = inside(self._folder, row["mask"], self._links)
        where = f"true mask {row['mask']!r} of {row['image_id']!r}"
        return read_number_file(path, where, row, self._max_pixels, self._numbers)

    def fault(self, some: bool = False) -> str:
        """See :meth:`Truth.fault`."""
        return self._numbers.fault(some)


def nothing(row: Row) -> Mask:
    """The mask of a finding that is absent, bool (height, width)."""
    return np.zeros((row["height"], row["width"]), dtype=bool)


def read_mask_file(path: Path, where: str, row: Row, max_pixels: int) -> Mask:
    """Where a picture of an image's true mask is not black, bool (height, width).

    ``where`` says in messages what it is; files of more than ``max_pixels`` are refused.
    """
    with _naming(where):
        return objects(_open(path, row, max_pixels))


def read_number_file(path: Path, where: str, row: Row, max_pixels: int, numbers: Numbers) -> Ints:
    """As :func:`read_mask_file`, the numbers in the pixels, int64 (height, width)."""
    with _naming(where):
        return numbers.read(_open(path, row, max_pixels))


def _open(path: Path, row: Row, max_pixels: int) -> MaskPicture:
    size = row["width"], row["height"]
    return read_mask(path, size=size, turned=_is_turned(row), max_pixels=max_pixels)


def _is_turned(row: Row) -> bool:
    return bool(row.get("orientation", 1) != 1)


@contextmanager
def _naming(where: str) -> Iterator[None]:
    """Say of which mask a reason is."""
    try:
        yield
    except DataError as error:
        reason = str(error).rstrip(".")
        raise DataError(f"{where}: {reason}; correct it or take it out of the truth.") from None
