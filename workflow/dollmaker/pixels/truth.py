"""Truth is read here: where the findings of images really are, for scores and before a run.

A form of masks (:mod:`dollmaker.pixels.mask_forms`) says what its files hold; here stands what that
means: of which findings it is, and what an image has that it tells nothing of. Tasks read the same
forms, as :func:`dollmaker.adapt.tasks.open_masks` says.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dollmaker.pixels.boxes import BoxTable
from dollmaker.pixels.chexlocalize import FindingFiles, require_called
from dollmaker.pixels.levels import Numbers
from dollmaker.pixels.mask_forms import Folder, Form, ImageFacts, PartFiles, Pictures, Pixels
from dollmaker.runtime.errors import ConfigError, DataError
from dollmaker.store.files import safe_name
from dollmaker.store.findings import PRESENT

Mask = npt.NDArray[np.bool_]
Row = Mapping[str, Any]

#: What it means that the truth has no entry of an image: nothing is known of it (our reading), or
#: its findings are absent (CheXlocalize's), so that a mask there is a false alarm.
Missing = Literal["unknown", "empty"]


@dataclass(frozen=True, kw_only=True)
class Truth:
    """Where the findings of images really are."""

    form: Form  #: The masks; its names are findings, or targets if there are several.
    #: What a mask of an image and a name is called in messages.
    called: Callable[[ImageFacts, str], str]
    #: Names of the areas that masks are scored against; charts and bounds are of the first.
    targets: list[str] = field(default_factory=lambda: ["finding"])
    by_target: bool = False  #: Whether the form's names are targets, alike for all findings.
    #: Those that it is of; nothing is known of others. ``None`` means all.
    findings: Collection[str] | None
    missing: Missing = "unknown"  #: What an image without a mask is.
    when_labelled: bool = False  #: Whether a mask counts only where the label of the finding is 1.
    option: str = ""  #: The option that a fault is in; empty where the caller knows it.
    #: What to do about a mask that cannot be used.
    remedy: str = "correct it or take it out of the truth."

    def mask(self, row: Row, finding: str, target: str) -> Mask | None:
        """The true mask of a finding, and of one of ``targets``, in an image of the index.

        Returns:
            bool of shape (height, width) of the source, all False where the finding is known to
            be absent; ``None`` where nothing is known.

        Raises:
            DataError: If the mask is damaged or of another size than the image.
        """
        if self.findings is not None and finding not in self.findings:
            return None
        unlabelled = self.when_labelled and row.get(finding) != PRESENT
        if unlabelled and (self.missing == "unknown" or row.get("mask")):
            return None
        image, name = _facts(row), target if self.by_target else finding
        with self._naming(image, name):
            if not self.form.has(image, name):
                absent = self.missing == "empty" and self.form.tells(image, name)
                return np.zeros((image.height, image.width), bool) if absent else None
            area = self.form.area(image, name)
        return None if area is None else area == 1

    def knows(self, row: Row) -> bool:
        """Whether an image of the listing has truth, by its name.

        Raises:
            DataError: If its mask is missing, or it is not clear which is its own.
        """
        image = _facts(row)
        with self._naming(image):
            return self.form.has(image)

    def look(self, row: Row) -> None:
        """Read the truth of an image whose size is known, for :func:`require_sound`."""
        image = _facts(row)
        for name in self.targets if self.by_target else self.findings or ():
            with self._naming(image, name):
                self.form.area(image, name)

    @contextmanager
    def _naming(self, image: ImageFacts, name: str = "") -> Iterator[None]:
        try:
            yield
        except DataError as error:
            if str(error).endswith("."):  # a whole sentence
                raise
            raise DataError(f"{self.called(image, name)}: {error}; {self.remedy}") from None


def _facts(row: Row) -> ImageFacts:
    """What a row of the index, of a listing or of a release says of an image."""
    return ImageFacts(
        path=row.get("path", row["image_id"]),
        identifier=row["image_id"],
        width=row.get("width", 0),
        height=row.get("height", 0),
        turned=bool(row.get("orientation", 1) != 1),
        mask=row.get("mask"),
        split=row.get("split") or "",
    )


def require_sound(truth: Truth | None, key: str, some: bool = False) -> None:
    """Refuse scores by masks that do not hold what was asked for, after all or ``some`` were read.

    ``key`` is the option that says what masks hold, if the truth does not know it.

    Raises:
        DataError: If no mask holds a target, or masks write it in different ways.
    """
    if truth is not None and (fault := truth.form.fault(some)):
        raise DataError(f"true masks: {fault}. Correct {truth.option or key}.")


def of_chexlocalize(files: Sequence[Path], findings: Collection[str], missing: Missing) -> Truth:
    """CheXlocalize's JSON, see :class:`dollmaker.pixels.chexlocalize.FindingFiles`."""
    form = FindingFiles(files, "truth.files")
    form.require_told(findings)
    return Truth(
        form=form,
        called=lambda image, finding: f"true mask of {finding!r} in {image.identifier!r}",
        findings=findings,
        missing=missing,
        remedy="correct the truth file, or use one drawn on these very images (CheXlocalize needs "
        "the full-size CheXpert).",
    )


def of_boxes(file: Path, space: int | None, findings: Collection[str], missing: Missing) -> Truth:
    """Rectangles of a table, see :class:`dollmaker.pixels.boxes.BoxTable`."""
    form = BoxTable(file, space, "truth")
    require_called(findings, form.findings, file.name)
    return Truth(
        form=form,
        called=lambda image, finding: f"box of {finding!r} in {image.identifier!r}",
        targets=["box"],
        findings=findings,
        missing=missing,
        option="truth.space (--space)",
    )


def open_truth(
    path: Path,
    findings: Sequence[str],
    classes: Mapping[str, Sequence[int]],
    space: int | None,
    missing: Missing = "unknown",
) -> Truth:
    """The truth in a file or folder; its form shows in its name and content.

    Folders may lie in one of the split's name, and be written in another case; a mask is called by
    the image_id, by that as a harmless file name, or as its image in the source, with any suffix of
    pictures.

    Args:
        path: CheXlocalize's JSON, a table of boxes, a folder ``{finding}/{image}.png``, the finding
            where a mask is not black, or a folder ``{image}.png`` whose pixel values are classes.
        findings: The findings that are scored.
        classes: Finding -> its pixel values, for files with classes.
        space: As of :class:`dollmaker.pixels.boxes.BoxTable`.
        missing: What an image is that the truth has no entry or file of.

    Raises:
        DataError: If there is nothing, or it is not as described.
        ConfigError: If files have classes and nobody says which.
    """
    if path.is_dir() and classes:
        folder = _Places(path)
        return Truth(
            form=Pictures(folder, Numbers(classes)),
            called=lambda image, _: f"true mask {folder.find(image)}",
            findings=classes,
            missing=missing,
            option="--classes",
        )
    if path.is_dir():
        places = {finding: _Places(path, finding) for finding in findings}
        splits = ("", "train", "valid", "test")
        if not any(place.at(split) for place in places.values() for split in splits):
            raise ConfigError(
                f"{path} has no folder named as a finding; give the pixel values of the classes "
                f"of its files, e.g. --classes {safe_name(findings[0])}=1."
            )
        return Truth(
            form=_FindingFolders(path, places),
            called=lambda image, finding: f"true mask {places[finding].find(image)} of {finding!r}",
            findings=findings,
            missing=missing,
            option="the files",
        )
    if path.suffix.lower() == ".json":
        return of_chexlocalize([path], findings, missing)
    if path.name.lower().endswith((".csv", ".tsv", ".csv.gz", ".parquet", ".pq")):
        return of_boxes(path, space, findings, missing)
    raise DataError(
        f"{path} is no truth; give CheXlocalize's JSON, a CSV of boxes or a folder of pictures."
    )


class _Places(Folder):
    """Folders of a user's masks: in that of the image's split first, then in the one of all.

    ``finding`` names a folder in them, in any case; ``None`` means the masks lie there themselves.
    """

    def __init__(self, root: Path, finding: str | None = None) -> None:
        super().__init__(root, links=True)
        self._finding = finding
        self._known: dict[str, list[Folder]] = {}

    def find(self, image: ImageFacts) -> Path | None:
        """See :meth:`Folder.find`."""
        found = (folder.find(image) for folder in self.at(image.split))
        return next((path for path in found if path), None)

    def at(self, split: str) -> list[Folder]:
        """The folders that there are for images of a split."""
        if split not in self._known:
            parents = [path for path in (self.path / split, self.path) if path.is_dir()]
            paths = [path for parent in parents for path in self._in(parent)]
            self._known[split] = [Folder(path, links=True) for path in paths]
        return self._known[split]

    def _in(self, parent: Path) -> list[Path]:
        if self._finding is None:
            return [parent]
        there = [path for path in parent.iterdir() if path.is_dir()]
        names = {self._finding, safe_name(self._finding)}
        wanted = {name.lower() for name in names}
        exact = [path for path in there if path.name in names]
        return exact or [path for path in there if path.name.lower() in wanted]


class _FindingFolders(PartFiles):
    """A folder of pictures for each finding."""

    def __init__(self, root: Path, places: Mapping[str, _Places]) -> None:
        super().__init__({finding: {finding: place} for finding, place in places.items()})
        self._root, self._places = root, places
        self._drawn: set[bool] = set()

    def tells(self, image: ImageFacts, name: str) -> bool:
        """See :meth:`Form.tells`."""
        return bool(self._places[name].at(image.split))

    def area(self, image: ImageFacts, name: str) -> Pixels | None:
        """See :meth:`Form.area`."""
        found = super().area(image, name)
        if found is not None:
            self._drawn.add(bool(found.any()))
        return found

    def fault(self, some: bool = False) -> str:
        """See :meth:`Form.fault`."""
        return f"all masks of {self._root} are black" if self._drawn == {False} else ""
