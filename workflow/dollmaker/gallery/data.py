"""What the page knows of the pairs: columns in scripts, since a page from a file may not fetch."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

#: Pairs of one file of details; small enough to be read in a blink, large enough to be few.
BLOCK = 500
#: Folders that are offered as a filter; more are no choice but a list.
_MOST_SOURCES = 50

#: A JSON document.
Tree = dict[str, Any]

_DETAILS = ("counts", "size", "box", "components", "threshold", "probability", "agreement",
            "completeness", "label", "area", "path", "patient_id", "width", "height")  # fmt: skip
_OTHERS = ("counts", "size", "area", "quality", "threshold")


def script(kind: str, number: int, value: Any) -> str:
    """One call that hands data to the page, as ASCII.

    No text in it can end a script element or start another: ``<`` is written as an escape.

    Raises:
        ValueError: If a number is not finite.
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return f"dollmakerGallery({json.dumps(kind)},{number},{text});\n"


def arrange(rows: pl.DataFrame, limit: int) -> pl.DataFrame:
    """The pairs of the page, rows of a release, from the best to the worst quality.

    Neighbours of the page's first view so are neighbours in files and sheets. Of more than
    ``limit``, so many are drawn by a hash of image and finding.
    """
    if len(rows) > limit:
        keys = [f"{i}\0{f}" for i, f in rows.select("image_id", "finding").iter_rows()]
        hashes = [hashlib.sha256(key.encode()).hexdigest() for key in keys]
        rows = rows.with_columns(pl.Series("_hash", hashes)).sort("_hash").head(limit)
    order = pl.col("quality").fill_nan(None)
    return rows.sort(order, "image_id", "finding", descending=[True, False, False], nulls_last=True)


def sources(paths: Sequence[str]) -> list[str]:
    """The data set or folder of each path: the first level of folders at which paths differ.

    Returns:
        A name a path; all empty where there is one folder only, or too many to choose from.
    """
    folders = [path.replace("\\", "/").split("/")[:-1] for path in paths]
    for depth in range(1, max(map(len, folders), default=0) + 1):
        names = ["/".join(folder[:depth]) or "." for folder in folders]
        count = len(set(names))
        if count > _MOST_SOURCES:
            break
        if count > 1:
            return names
    return [""] * len(paths)


def pairs(
    rows: pl.DataFrame, *, total: int, recipes: Sequence[str], confidence: float | None = None
) -> Tree:
    """What filters, sorting and captions need of all pairs, arranged rows of a release, by column.

    It has ``total`` of them. ``recipes`` are the others; ``confidence`` is that of the column
    ``iou_bound``, ``None`` where the quality only ranks.
    """
    numbers = {name: k for k, name in enumerate(rows["image_id"].unique(maintain_order=True))}
    pixels = pl.col("size").list.get(0) * pl.col("size").list.get(1)
    shares = rows.select((pl.col("area") / pixels).round(5))["area"]
    return {
        "total": total,
        "block": BLOCK,
        "recipes": list(recipes),
        "images": list(numbers),
        "image": [numbers[name] for name in rows["image_id"]],
        "quality": _plain(rows["quality"]),
        "area": _plain(shares, 5),
        **({"bound": _plain(rows["iou_bound"]), "confidence": confidence} if confidence else {}),
        **_coded("finding", "findings", rows["finding"].to_list()),
        **_coded("split", "splits", rows["split"].to_list(), ("train", "valid", "test")),
        **_coded("source", "sources", sources(rows["path"].to_list())),
    }


def details(rows: pl.DataFrame, others: Mapping[str, pl.DataFrame]) -> Iterator[tuple[int, Tree]]:
    """Masks and facts of arranged pairs, block by block, with the rows of other recipes.

    Yields:
        Number of the block, its columns; ``others`` is a list of columns, null where a recipe has
        no mask.
    """
    keys = rows.select("image_id", "finding")
    matched = [
        keys.join(
            frame.select("image_id", "finding", *_OTHERS).unique(
                ["image_id", "finding"], keep="first", maintain_order=True
            ),
            on=["image_id", "finding"],
            how="left",
            maintain_order="left",
        )
        for frame in others.values()
    ]
    for number, start in enumerate(range(0, len(rows), BLOCK)):
        block: Tree = _columns(rows[start : start + BLOCK], _DETAILS)
        block["others"] = [_columns(frame[start : start + BLOCK], _OTHERS) for frame in matched]
        yield number, block


def _columns(rows: pl.DataFrame, names: Sequence[str]) -> Tree:
    return {name: _plain(rows[name]) for name in names}


def _plain(column: pl.Series, digits: int = 4) -> list[Any]:
    """Values as JSON has them: short numbers, null for what is not finite."""
    if not column.dtype.is_float():
        return column.to_list()
    wide = column.cast(pl.Float64)
    finite = wide.is_finite().fill_null(value=False).to_list()
    return [
        round(value, digits) if good else None for value, good in zip(wide, finite, strict=True)
    ]


def _coded(name: str, names: str, values: Sequence[str], first: Sequence[str] = ()) -> Tree:
    """A column of few texts as numbers, and the list that they count in."""
    found = set(values)
    known = [v for v in first if v in found] + sorted(found - set(first))
    places = {value: k for k, value in enumerate(known)}
    return {names: known, name: [places[value] for value in values]}
