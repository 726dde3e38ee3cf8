"""The listing: its columns, which values the user's tables may hold, and the split of a patient.

A patient is wholly in train, in valid or in test.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import polars as pl

from dollmaker.pixels import names
from dollmaker.runtime.errors import DataError

#: One row per image (:mod:`dollmaker.prepare.sources`), and the names of the findings.
Listing = tuple[pl.DataFrame, list[str]]

#: Joins a path to the data root, and refuses what leaves it.
Find = Callable[[str], Path]

#: Columns of the listing before the findings.
COLUMNS = ("image_id", "path", "patient_id", "split", "view", "mask")

#: Columns that the index has besides, and those that only the tables of a shard have.
DECODED = ("width", "height", "sha256", "orientation", "hash", "shard", "row")
_OF_A_SHARD = ("mean", "reason")

#: More classes than any committee can learn: the wrong column or folder was named.
MOST_CLASSES = 1000

#: 1, 0 or -1 as programs write numbers: 1.00, 1,0 and 1.000e+00 too.
_NUMBER = re.compile(r"(-?[01])(?:[.,]0*)?(?:e[+-]?0+)?")

#: A long number as spreadsheets show it, without its last digits.
_SHORTENED = re.compile(r"\d[.,]\d+E\+\d+")

#: Cells of other programs, in small letters. A missing value is a finding not mentioned; "None" and
#: "yes" are no labels: a reader could mean by them that the finding was looked for.
_WORDS = {
    "true": 1,
    "false": 0,
    **dict.fromkeys(("na", "n/a", "nan", "<na>", "null")),
}


def check_names(findings: Iterable[str], where: str, more: Iterable[str] = ()) -> None:
    """Refuse findings that are called as a column of the index, or as one more that is taken.

    Raises:
        DataError: Naming the finding.
    """
    taken = {*COLUMNS, *DECODED, *_OF_A_SHARD, *more}
    for name in findings:
        if name in taken:
            raise DataError(f"finding {name!r} in {where} has the name of a column; rename it.")


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
    """Labels of a finding as int8: 1, 0, -1, or null where it is not mentioned.

    1, 0 and -1 may be written as any program does (``1.00``, ``1,0``, ``TRUE``). Not mentioned is
    what is blank, and what R, Python and databases write for a missing value: NA, NaN, NULL.

    Raises:
        DataError: Naming the line.
    """
    values = table[column]
    known: dict[str, int | None] = {}
    for text in values.drop_nulls().unique(maintain_order=True):
        number = _NUMBER.fullmatch(text.lower())
        if number:
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
    """The patient of each row, see :func:`dollmaker.pixels.names.patient`; none may be blank.

    Raises:
        DataError: Naming the line; also for a number that an office program has shortened.
    """
    found = [names.patient(text) for text in filled(table, column, file)]
    for row, text in enumerate(found, start=2):
        if _SHORTENED.fullmatch(text):
            raise DataError(
                f"table {file} line {row}: {column!r} is {text!r}, a long number that an office "
                "program has shortened; format the column as text and export it again."
            )
    return found


def paths(table: pl.DataFrame, column: str, file: Path) -> list[str]:
    """The file that each row names, see :func:`dollmaker.pixels.names.posix`; none may be blank.

    Raises:
        DataError: Naming the line.
    """
    return [names.posix(text) for text in filled(table, column, file)]


def assign(patient_id: str, valid: float, test: float) -> str:
    """The split of a patient, from a hash of the identifier alone.

    The same patient gets the same split in every data set and task that uses the same
    identifiers and shares, whatever the other patients, the seed or the order.

    Args:
        patient_id: The patient.
        valid: Share of patients in ``valid``, 0..1.
        test: Share of patients in ``test``, 0..1.
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
    """Refuse an index in which a patient is in two splits.

    Raises:
        DataError: Naming a patient.
    """
    counts = index.group_by("patient_id").agg(pl.col("split").n_unique().alias("splits"))
    shared = counts.filter(pl.col("splits") > 1).sort("patient_id")
    if len(shared):
        raise DataError(
            f"patient {shared['patient_id'][0]!r} is in more than one split ({len(shared)} such "
            "patients); correct the split column or leave it out."
        )
