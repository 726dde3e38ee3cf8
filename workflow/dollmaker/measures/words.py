"""Scores as people and JSON read them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import polars as pl


def finite(value: float | None) -> float | None:
    """The number, or ``None`` where it is missing, NaN or infinite."""
    return float(value) if value is not None and math.isfinite(value) else None


def number(value: float | None, digits: int = 2) -> str:
    """So many digits, or a dash where nothing is known."""
    return "-" if finite(value) is None else f"{value:.{digits}f}"


def interval(row: Mapping[str, Any], name: str, digits: int = 2) -> str:
    """A score of a table with its 95 % interval, e.g. ``0.42 [0.35, 0.49]``."""
    point, low, high = (number(row[f"{name}{end}"], digits) for end in ("", "_low", "_high"))
    return f"{point} [{low}, {high}]"


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> list[str]:
    """The lines of a table in Markdown."""
    first, *lines = ["| " + " | ".join(map(str, cells)) + " |" for cells in (head, *rows)]
    return [first, "|" + "---|" * len(head), *lines]


def headline_split(table: pl.DataFrame) -> str | None:
    """``test`` if it was scored, else ``valid``, else whatever there is."""
    there = set(table["split"]) if "split" in table.columns else set()
    return next((split for split in ("test", "valid", "train") if split in there), None)
