"""Pictures: the best and the worst pairs of each recipe, and test images of each task."""

import io
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from PIL import Image

from dollmaker.measures.words import headline_split
from dollmaker.pictures.overlay import (
    CLASSES,
    MASK,
    TRUTH,
    Panel,
    Rgb,
    outline,
    panel_shape,
    sheet,
    strip,
    tint,
    to_png,
    to_rgb,
)
from dollmaker.pixels.geometry import Fit, level_set, source_mask, unfit_mask
from dollmaker.pixels.masks import IGNORE
from dollmaker.release.parts import Row
from dollmaker.report.gather import Results
from dollmaker.runtime.errors import ArtifactError
from dollmaker.store.shards import ImageShards, Shard

#: Rows of a task's examples, and the longer side of a picture.
_ROWS, _SMALL = 4, 128

#: Bytes that all galleries of a page may take, so that it stays under 6 MB with everything else.
_BUDGET = 2_900_000
_SIDE = 150


@dataclass(frozen=True)
class Card:
    """One pair of a gallery; ``quality`` is what the recipe gave itself, ``png`` its strip."""

    image_id: str
    finding: str
    iou: float | None
    quality: float | None
    split: str
    png: bytes


@dataclass(frozen=True)
class Gallery:
    """The best and the worst pairs of one recipe, by IoU (by quality without truth), worst last.

    ``truth`` says whether strips end with it.
    """

    best: list[Card]
    worst: list[Card]
    truth: bool


def choose(pairs: pl.DataFrame, score: str, count: int) -> tuple[list[Row], list[Row]]:
    """So many pairs for the gallery, half of them the best by the score, spread over findings.

    ``pairs`` have the columns ``finding``, ``image_id`` and the score.

    Returns:
        Best in falling, worst in rising order; no pair is in both.
    """
    known = pairs.filter(pl.col(score).is_not_null() & pl.col(score).is_not_nan())
    ranked = known.sort([score, "image_id", "finding"], descending=[True, False, False])
    rows = list(ranked.iter_rows(named=True))
    best = _round_robin(rows, (count + 1) // 2)
    taken = {(row["image_id"], row["finding"]) for row in best}
    rest = [row for row in reversed(rows) if (row["image_id"], row["finding"]) not in taken]
    worst = _round_robin(rest, count // 2)
    return (
        sorted(best, key=lambda row: -row[score]),
        sorted(worst, key=lambda row: float(row[score])),
    )


def _round_robin(rows: Iterable[Row], count: int) -> list[Row]:
    """The first of every finding, then the second of every finding, and so on."""
    turns: dict[str, int] = defaultdict(int)
    order = []
    for place, row in enumerate(rows):
        order.append((turns[row["finding"]], place, row))
        turns[row["finding"]] += 1
    return [row for _, _, row in sorted(order, key=lambda item: item[:2])[:count]]


def _candidates(results: Results, recipe: str) -> tuple[pl.DataFrame, str]:
    """The pairs of a recipe with truth, ranked by IoU, or all its pairs, ranked by quality."""
    pairs = results.table("pairs")
    if results.truth is not None and not pairs.is_empty():
        target = results.truth.targets[0]
        mine = pairs.filter("explained", pl.col("mask_area") > 0, recipe=recipe, target=target)
        if split := headline_split(mine):
            return mine.filter(split=split), "iou"
    schema = {"image_id": pl.String, "finding": pl.String, "quality": pl.Float32}
    parts = [pl.DataFrame(schema=schema)]
    for shard in results.index["shard"].unique().sort():
        path = results.folder / "masks" / recipe / f"{shard}.h5"
        if path.exists():
            with Shard(path, "masks") as opened:
                table = opened.table()
            columns = {name: table.get(name, np.array([])).tolist() for name in (*schema, "kept")}
            found = pl.DataFrame(columns, schema=schema | {"kept": pl.Boolean})
            parts.append(found.filter("kept").drop("kept"))
    splits = results.index.select("image_id", "split")
    return pl.concat(parts).join(splits, on="image_id"), "quality"


def make_galleries(results: Results) -> dict[str, Gallery]:
    """One gallery per recipe, all together small enough for the page."""
    count = results.config.report.gallery
    chosen = {}
    for recipe in results.config.recipes:
        if count and (results.folder / "masks" / recipe).is_dir():
            chosen[recipe] = choose(*_candidates(results, recipe), count)
    side = _SIDE
    while True:
        galleries = {
            recipe: Gallery(
                best=[_card(results, recipe, row, side) for row in best],
                worst=[_card(results, recipe, row, side) for row in worst],
                truth=results.truth is not None,
            )
            for recipe, (best, worst) in chosen.items()
        }
        total = sum(len(c.png) for g in galleries.values() for c in (*g.best, *g.worst))
        if total <= _BUDGET or side <= 48:
            return galleries
        side = max(48, int(side * min(0.95, (_BUDGET / total) ** 0.5)))


def _card(results: Results, recipe: str, row: Row, side: int) -> Card:
    index = results.index.row(by_predicate=pl.col("image_id") == row["image_id"], named=True)
    file = f"{index['shard']}.h5"
    donor = results.config.donor(recipe)
    with Shard(results.folder / "masks" / recipe / file, "masks") as shard:
        table = shard.table()
        same = (table["image_id"] == row["image_id"]) & (table["finding"] == row["finding"])
        place = int(np.flatnonzero(same)[0])
        mask = shard.read("mask", place)
        quality, threshold = (float(table[name][place]) for name in ("quality", "threshold"))
    with Shard(results.folder / "relevance" / donor / file, "relevance") as shard:
        values = shard.read("map", place).astype(np.float32)
    image = ImageShards(results.folder / "images", max_open=1).read(index["shard"], index["row"])
    size: tuple[int, int, Fit] = index["width"], index["height"], results.config.prepare.fit
    panel = Panel.of(*size, size=image.shape[-1], side=side)
    ground, codes = panel.image(image), _codes(mask, values, threshold, size)
    tiles = [ground, panel.heat(image, values), tint(ground, {MASK: codes})]
    if results.truth is not None:
        area = results.truth.mask(index, row["finding"], results.truth.targets[0])
        known = {} if area is None else {TRUTH: area.astype(np.uint8)}
        tiles.append(outline(tint(ground, known), codes == 1, MASK))
    return Card(
        image_id=row["image_id"],
        finding=row["finding"],
        iou=row.get("iou"),
        quality=quality,
        split=row["split"],
        png=to_png(strip(tiles)),
    )


def _codes(
    mask: npt.NDArray[np.uint8],
    values: npt.NDArray[np.float32],
    threshold: float,
    size: tuple[int, int, Fit],
) -> npt.NDArray[np.uint8]:
    """A mask at the size of the source, as it is scored: 0, 1, and 255 to ignore."""
    ignored = unfit_mask(mask == IGNORE, *size) * np.uint8(IGNORE)
    drawn = source_mask(level_set(mask, values, threshold), *size)
    return np.where(drawn, np.uint8(1), ignored)


def gallery_sheet(gallery: Gallery) -> bytes:
    """A gallery as one picture: the best on the left, the worst on the right, with captions."""
    parts = "image, relevance, mask" + ", truth" * gallery.truth
    sides = []
    for title, cards in (("Best", gallery.best), ("Worst", gallery.worst)):
        opened = [Image.open(io.BytesIO(card.png)).convert("RGB") for card in cards]
        rows = [(caption(c), [np.asarray(s)]) for c, s in zip(cards, opened, strict=True)]
        sides.append(sheet(rows, titles=[f"{title}: {parts}"]))
    return to_png(sheet([("", sides)]))


def caption(card: Card) -> str:
    """Finding, IoU and quality in one line."""
    parts = [card.finding]
    if card.iou is not None:
        parts.append(f"IoU {card.iou:.2f}")
    if card.quality is not None:
        parts.append(f"quality {card.quality:.2f}")
    return ", ".join(parts)


# --- examples of tasks --------------------------------------------------------------------------


@dataclass(frozen=True)
class Examples:
    """Some test images of one task."""

    n: str  #: Number of training images of the shown runs, as configured.
    columns: list[str]  #: Names of the pictures in a row.
    classes: dict[str, str]  #: Class name -> colour as ``#rrggbb``.
    rows: list[tuple[str, list[Rgb]]]  #: Names of images with their pictures.


def make_examples(runs: Mapping[str, Path]) -> Examples | None:
    """The examples of a task at its smallest number of training images, where starts differ most.

    ``runs`` have names ``{init}-{tuning}``, and folders.

    Raises:
        ArtifactError: If a file is damaged.
    """
    loaded = {run: _load(path / "examples.npz") for run, path in runs.items()}
    loaded = {run: arrays for run, arrays in loaded.items() if arrays}
    amounts = sorted(
        {key.removeprefix("prediction_") for arrays in loaded.values() for key in arrays}
        - {"image", "truth", "image_id", "classes"},
        key=lambda n: int(n) if n.isdecimal() else 10**9,
    )
    if not amounts or not len(next(iter(loaded.values()))["image_id"]):
        return None
    first, n = next(iter(loaded.values())), amounts[0]
    classes = [str(name) for name in first["classes"]]
    colours = [CLASSES[k % len(CLASSES)] for k in range(len(classes))]
    rows = []
    for place, image_id in enumerate(first["image_id"][:_ROWS]):
        image = first["image"][place]
        shape = panel_shape(image.shape[-1], image.shape[-2], _SMALL)
        ground = to_rgb(image, shape)
        panels = [ground, tint(ground, dict(zip(colours, first["truth"][place], strict=False)))]
        for arrays in loaded.values():
            same = np.flatnonzero(arrays["image_id"] == image_id)
            known = len(same) and f"prediction_{n}" in arrays
            masks = arrays[f"prediction_{n}"][same[0]] if known else np.zeros((0, *shape), np.uint8)
            panels.append(tint(ground, dict(zip(colours, masks, strict=False))))
        rows.append((str(image_id), panels))
    return Examples(
        n=n,
        columns=["image", "truth", *(", ".join(run.rsplit("-", 1)) for run in loaded)],
        classes={
            name: "#{:02x}{:02x}{:02x}".format(*colour)
            for name, colour in zip(classes, colours, strict=True)
        },
        rows=rows,
    )


def _load(path: Path) -> dict[str, npt.NDArray[Any]]:
    if not path.exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"{path} is damaged ({error}); delete it and run again.") from None


def examples_sheet(examples: Examples) -> Rgb:
    """All rows below each other with the names of the columns on top."""
    rows = [("", tiles) for _, tiles in examples.rows]
    return sheet(rows, titles=[name.replace(", ", "\n") for name in examples.columns])
