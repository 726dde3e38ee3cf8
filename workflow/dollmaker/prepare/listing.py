"""What sources hand over: a listing, or pieces to convert to pictures; and what tables may hold.

What they may not hold is refused by a :class:`DataError` that names the line. A patient is wholly
in train, in valid or in test.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from dollmaker.pixels import names
from dollmaker.pixels.levels import Numbers
from dollmaker.runtime.errors import DataError
from dollmaker.store.depth import Stored

#: One row per image (:mod:`dollmaker.prepare.sources`), and the names of the findings.
Listing = tuple[pl.DataFrame, list[str]]

#: Joins a path to the data root, and refuses what leaves it.
Find = Callable[[str], Path]

#: A row of a converted table: image, mask, patient and view, and the label of each finding.
Row = dict[str, Any]

#: Columns of the listing before the findings.
COLUMNS = ("image_id", "path", "patient_id", "split", "view", "mask")

#: Columns that the index has besides, and those that only the tables of a shard have.
DECODED = ("width", "height", "sha256", "orientation", "hash", "shard", "row")
_OF_A_SHARD = ("mean", "reason")

#: More classes than any committee can learn: the wrong column or folder was named.
MOST_CLASSES = 1000

#: 1, 0 or -1 as programs write numbers: 1.00, 1,0 and 1.000e+00 too.
_NUMBER = re.compile(r"(-?[01])(?:[.,]0*)?(?:e[+-]?0+)?")

#: A long number as spreadsheets and statistics programs show it, without its last digits.
_SHORTENED = re.compile(r"\d([.,]\d+)?E\+\d+", re.IGNORECASE)

#: Cells of other programs, in small letters. A missing value is a finding not mentioned; "None" and
#: "yes" are no labels: a reader could mean by them that the finding was looked for.
_WORDS = {"true": 1, "false": 0, **dict.fromkeys(("na", "n/a", "nan", "<na>", "null"))}


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One picture to write."""

    name: str  #: File name of picture and mask, without suffix.
    #: uint8 or uint16 (C, h, w). 8 bits of one or three channels become PNG, all else a TIFF with a
    #: page for each channel.
    image: Stored
    mask: npt.NDArray[np.uint8] | None  #: uint8 (h, w), or ``None`` if no mask is known.
    #: Finding -> 1 or 0; of DICOM also -1, or ``None`` where it is not mentioned.
    labels: Mapping[str, int | None]


@dataclass(frozen=True, kw_only=True)
class Item:
    """One thing to convert: an image to cut, a volume, a raw file."""

    source: str  #: What the user knows it by.
    patient: str  #: The patient of all its pieces.
    #: Reads it and returns its pieces; a :class:`DataError` says why it cannot be used.
    make: Callable[[], Sequence[Piece]]
    reader: Numbers | None = None  #: Of the masks of all items, if they hold class numbers.
    view: str | None = None  #: The view of its pieces, in small letters, if the source tells views.


def check_names(findings: Iterable[str], where: str, more: Iterable[str] = ()) -> None:
    """Refuse findings that are called as a column of the index, or as one more that is taken."""
    taken = {*COLUMNS, *DECODED, *_OF_A_SHARD, *more}
    for name in findings:
        if name in taken:
            raise DataError(f"finding {name!r} in {where} has the name of a column; rename it.")


def folded(name: str) -> str:
    """A name in small letters, words joined: ``No_Finding`` is ``nofinding``, ``1-1`` stays."""
    words = re.sub(r"[\s_-]+", " ", name.casefold()).strip()
    return re.sub(r"(?<=[^\W\d]) (?=[^\W\d])", "", names.patient(words))


def require_told_apart(classes: Iterable[str], where: str) -> None:
    """Refuse classes that differ in case or blanks only, or as 1 and 1.0: one became two."""
    same: dict[str, str] = {}
    for name in sorted(classes):
        other = same.setdefault(folded(name), name)
        if other != name:
            raise DataError(
                f"the classes {other!r} and {name!r} of {where} differ in case or blanks only; "
                "rename or merge them."
            )


def filled(table: pl.DataFrame, column: str, file: Path) -> list[str]:
    """Values of a column that may not be blank, nor what programs write for a missing value."""
    values = table[column].to_list()
    for row, text in enumerate(values, start=2):
        if text is None or _WORDS.get(text.lower(), text) is None:
            said = "blank" if text is None else f"{text!r}, a missing value to most programs"
            raise DataError(
                f"table {file} line {row}: {column!r} is {said}; fill it in or remove the row."
            )
    return values


def labels(table: pl.DataFrame, column: str, file: Path) -> pl.Series:
    """Labels of a finding as int8: 1, 0, -1, or null where it is not mentioned.

    1, 0 and -1 may be written as any program does (``1.00``, ``1,0``, ``TRUE``). Not mentioned is
    what is blank, and what R, Python and databases write for a missing value: NA, NaN, NULL.
    """
    values = table[column]
    known: dict[str, int | None] = {}
    for text in values.drop_nulls().unique(maintain_order=True):
        if number := _NUMBER.fullmatch(text.lower()):
            known[text] = int(number[1])
        elif text.lower() in _WORDS:
            known[text] = _WORDS[text.lower()]
        else:
            row = int((values == text).arg_true()[0]) + 2
            raise DataError(
                f"table {file} line {row}: label {text[:40]!r} of {column!r}; use 1, 0, -1 or "
                "blank (or TRUE, FALSE, NA)."
            )
    return values.replace_strict(known, default=None, return_dtype=pl.Int8)


def patients(table: pl.DataFrame, column: str, file: Path) -> list[str]:
    """The patient of each row, see :func:`dollmaker.pixels.names.patient`; all in full."""
    found = [names.patient(text) for text in filled(table, column, file)]
    for row, text in enumerate(found, start=2):
        if _SHORTENED.fullmatch(text):
            raise DataError(
                f"table {file} line {row}: {column!r} is {text!r}, a long number that an office "
                "program has shortened; format the column as text and export it again."
            )
    return found


def paths(table: pl.DataFrame, column: str, file: Path) -> list[str]:
    """The file that each row names, see :func:`dollmaker.pixels.names.posix`; none may be blank."""
    return [names.posix(text) for text in filled(table, column, file)]


def assign(patient_id: str, valid: float, test: float) -> str:
    """The split of a patient, from a hash of the identifier alone.

    The same patient gets the same split in every data set and task that uses the same identifiers
    and shares of patients, 0..1, whatever the other patients, the seed or the order.
    """
    digest = hashlib.sha256(f"dollmaker split {patient_id}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < test:
        return "test"
    return "valid" if place < test + valid else "train"


def assign_all(patients: Sequence[str], valid: float, test: float) -> list[str]:
    """:func:`assign` for a column of patients."""
    known = {patient: assign(patient, valid, test) for patient in set(patients)}
    return [known[patient] for patient in patients]


def assert_disjoint(index: pl.DataFrame) -> None:
    """Refuse an index in which a patient is in two splits, by one spelling or by two."""
    counts = index.group_by("patient_id").agg(pl.col("split").n_unique().alias("splits"))
    shared = counts.filter(pl.col("splits") > 1).sort("patient_id")
    if len(shared):
        raise DataError(
            f"patient {shared['patient_id'][0]!r} is in more than one split ({len(shared)} such "
            "patients); correct the split column or leave it out."
        )
    spelt: dict[str, tuple[str, str]] = {}
    named = index.filter(pl.col("patient_id") != pl.col("image_id"))  # others are images' own
    for name, split in named.select("patient_id", "split").unique().sort("patient_id").rows():
        plain = " ".join(name.casefold().split()).lstrip("0")
        other, elsewhere = spelt.setdefault(plain, (name, split))
        if elsewhere != split:
            raise DataError(
                f"patient {other!r} is in {elsewhere} and {name!r} in {split}: these differ in "
                "case, blanks or leading zeros only; write them alike if they are one patient, "
                "else rename one."
            )
