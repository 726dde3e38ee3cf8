"""Source pixels in a release, file by file: what may not leave the house does not."""

import io
import re
from pathlib import Path

import h5py
import numpy as np
import polars as pl
from PIL import Image

from dollmaker.release.browse import contact_sheet
from dollmaker.release.parts import BOUND, IMAGES, SCHEMA, SPLITS, read_rows
from dollmaker.release.read import Origin
from dollmaker.runtime.errors import DollmakerError
from dollmaker.store import tables

#: Sources whose images nobody may hand on, by kind and by what their licences say.
_CLOSED_KINDS = ("chexpert",)
_CLOSED = re.compile(r"chexpert|mimic|use agreement|credentialed|not? redistribut", re.IGNORECASE)

_TEXTS = (".md", ".json", ".js", ".html", ".css", ".sig", "")
_COLUMNS = {*SCHEMA, *IMAGES, BOUND}
_ARRAYS = {"mask", "level", "relevance"}


def find_pixels(release: Path, origin: Origin) -> list[str]:
    """Files that hold source pixels, or may hold them, and must not be published.

    Where the licence of the source allows pictures (``release.pictures``), there is none. Otherwise
    every file must be of a kind that is known to hold none.

    Args:
        release: The release, whose masks are those of its tables (``verify``).
        origin: How it was made.
    """
    closed = origin.source in _CLOSED_KINDS or _CLOSED.search(origin.source_license)
    if origin.pictures and not closed:
        return []
    files = sorted(path for path in release.rglob("*") if path.is_file())
    reasons = ((path, _reason(path, path.relative_to(release))) for path in files)
    return [f"{path.relative_to(release)}: {reason}" for path, reason in reasons if reason]


def _reason(path: Path, name: Path) -> str:
    """Why a file may not be published; empty if it may."""
    suffix = path.suffix.lower()
    try:
        if suffix in _TEXTS:
            inlined = "data:image/" in path.read_text(encoding="utf-8")
            return "holds a picture inside its text" if inlined else ""
        if suffix == ".parquet":
            return _of_table(path, name)
        if suffix == ".h5":
            with h5py.File(path) as file:
                more = set(file.get("arrays", {})) - _ARRAYS
                return f"holds arrays {', '.join(sorted(more))}" if more else ""
        if suffix == ".safetensors" and name.parts[0] == "models":
            return ""
        if name == Path("contact-sheet.png"):
            return "" if _masks_only(path, path.parent) else "shows source images"
        if name.parts[:2] == ("gallery", "sheets"):
            return "" if path.name.startswith("relevance") else "shows source images"
    except (OSError, UnicodeDecodeError, ValueError, DollmakerError) as error:
        return f"cannot be looked into ({type(error).__name__})"
    return "" if not path.stat().st_size else "is of a kind that releases do not have"


def _of_table(path: Path, name: Path) -> str:
    if name.parts[0] == "models":  # thresholds
        numbers = (pl.String, pl.Boolean, pl.Int64, pl.Float64)
        return "" if set(tables.read(path).dtypes) <= set(numbers) else "holds more than numbers"
    more = set(tables.read(path).columns) - _COLUMNS
    return f"holds columns {', '.join(sorted(more))}" if more else ""


def _masks_only(path: Path, release: Path) -> bool:
    """Whether a contact sheet shows what the masks alone give, pixel by pixel."""
    table = pl.concat([read_rows(release, split) for split in SPLITS])
    wanted = Image.open(io.BytesIO(contact_sheet(table, None))).convert("RGB")
    return np.array_equal(np.asarray(Image.open(path).convert("RGB")), np.asarray(wanted))
