"""What the JSON forms share: an object read from untrusted text, and one area of COCO's codes."""

import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dollmaker.runtime import encoding
from dollmaker.runtime.errors import DataError
from dollmaker.store import rle

Mask = npt.NDArray[np.bool_]


def read_object(file: Path, key: str) -> dict[str, Any]:
    """Read a file that is one JSON object.

    Args:
        file: The file.
        key: The configuration's key that names it, for messages.

    Raises:
        DataError: If it is missing, is not JSON, or names one thing twice.
    """
    try:
        text = encoding.decode(file.read_bytes())
        content = json.loads(text, object_pairs_hook=_unique)
    except FileNotFoundError:
        raise DataError(f"{file} does not exist; correct {key} or data_root.") from None
    except DataError as error:
        raise DataError(f"{file} has {error}; keep one of the two.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file} is not JSON ({error}); download or export it again.") from None
    if not isinstance(content, dict):
        raise DataError(f"{file} is not of the form {{...}}, one JSON object; export it again.")
    return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; of a name that is there twice, JSON itself would keep the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise DataError(f"the name {twice[:80]!r} twice in one object")
    return found


def called(name: str, names: Collection[str]) -> str | None:
    """A finding as a file calls it: by its name, or the only one that differs in case alone."""
    if name in names:
        return name
    same = [other for other in names if other.casefold() == name.casefold()]
    return same[0] if len(same) == 1 else None


def require_called(wanted: Iterable[str], names: Collection[str], what: str) -> None:
    """Refuse a file that tells of other findings only.

    Args:
        wanted: The findings that are asked for.
        names: The findings that the file tells of; without any it tells of no image either.
        what: The file, for messages.

    Raises:
        DataError: If none of them is wanted.
    """
    asked = list(wanted)
    if names and asked and not any(called(name, names) for name in asked):
        there, here = (", ".join(sorted(set(some))[:20])[:300] for some in (names, asked))
        raise DataError(
            f"{what} tells of {there}, of none of the findings {here}; call findings alike."
        )


def whole(value: Any) -> int | None:
    """A number of pixels as JSON has it: 64, 64.0 or "64"; ``None`` if it is none."""
    if isinstance(value, str):
        return int(value) if value.isascii() and value.isdigit() and len(value) < 10 else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value // 1:
        return None
    return int(value)


def require_size(size: tuple[int | None, int | None], width: int, height: int) -> None:
    """Refuse what was drawn on a picture of another size.

    Args:
        size: Width and height of that picture; ``None`` if unknown.
        width: Width of the image.
        height: Its height.

    Raises:
        DataError: The reason.
    """
    if size != (width, height):
        drawn = "unknown size" if None in size else f"{size[0]}x{size[1]} pixels"
        raise DataError(f"{drawn}, its image has {width}x{height}")


def paint(code: Any, width: int, height: int) -> Mask:
    """The area (height, width) of a ``segmentation``: polygons, or run lengths.

    Raises:
        DataError: The reason why it has none.
    """
    if isinstance(code, dict):
        return paint_runs(code, width, height)
    return _paint_polygons(code, width, height)


def paint_runs(code: Any, width: int, height: int) -> Mask:
    """The area (height, width) of ``{"size": [height, width], "counts": text or numbers}``.

    Raises:
        DataError: The reason why it has none.
    """
    if not isinstance(code, dict) or not isinstance(code.get("counts"), (str, list)):
        raise DataError("not a COCO run-length code")
    size = code.get("size")
    sides = [whole(side) for side in size] if isinstance(size, list) else []
    drawn = (sides[1], sides[0]) if len(sides) == 2 else (None, None)
    require_size(drawn, width, height)
    return rle.decode(code["counts"], height, width)


def _paint_polygons(code: Any, width: int, height: int) -> Mask:
    """``[[x, y, x, y, ...], ...]``, in pixels of the picture."""
    from pycocotools import mask as coco

    try:
        polygons = [np.asarray(points, np.float64).ravel() for points in code]
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"no readable segmentation ({str(error)[:100]})") from None
    for points in polygons:
        _check_polygon(points, width, height)
    if not polygons:
        return np.zeros((height, width), bool)
    merged = coco.merge(coco.frPyObjects([points.tolist() for points in polygons], height, width))
    return np.asarray(coco.decode(merged) != 0)


def _check_polygon(points: npt.NDArray[np.float64], width: int, height: int) -> None:
    """Refuse what pycocotools would overflow at, or spend all memory on."""
    if len(points) < 6 or len(points) % 2:
        raise DataError("a polygon has less than three corners")
    if not np.isfinite(points).all():
        raise DataError("a polygon has a corner that is not finite")
    if points.min() >= 0 and points.max() <= 1 < min(width, height):
        raise DataError("a polygon's corners are shares of the sides (none is over 1), not pixels")
    corners = points.reshape(-1, 2)
    sides = np.array([width, height])
    if (corners < -sides).any() or (corners > 2 * sides).any():
        raise DataError(f"a polygon lies far outside of {width}x{height} pixels")
    # pycocotools holds every pixel along the outline; no mask's own outline is longer.
    steps = np.abs(corners - np.roll(corners, 1, axis=0)).max(axis=1)
    if steps.sum() > 4 * (width + 1) * (height + 1):
        raise DataError("a polygon crosses its picture again and again")
