"""Splits by patient: a patient is wholly in train, in valid or in test."""

import hashlib
from collections.abc import Sequence

import polars as pl

from dollmaker.runtime.errors import DataError


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
