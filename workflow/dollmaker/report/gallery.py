"""Pictures: image, relevance, mask and truth side by side, the best and the worst."""

import io
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from PIL import Image

from dollmaker.config import settings as configuration
from dollmaker.measures.words import headline_split
from dollmaker.pictures import sheet as layout
from dollmaker.pictures.overlay import MASK, TRUTH, Panel, outline, tint
from dollmaker.pictures.sheet import strip, to_png
from dollmaker.pixels.geometry import Fit, level_set, pack, source_mask, unfit_mask
from dollmaker.pixels.masks import IGNORE
from dollmaker.report.gather import Results
from dollmaker.store.shards import ImageShards, Shard

#: Bytes that all galleries of a page may take, so that it stays under 6 MB with everything else.
_BUDGET = 2_900_000
_SIDE = 150


@dataclass(frozen=True)
class Card:
    """One pair of a gallery.

    Attributes:
        image_id: The image.
        finding: The finding.
        iou: IoU with the truth, or ``None``.
        quality: Quality that the recipe gave itself.
        split: Split of the image.
        png: The strip of pictures.
    """

    image_id: str
    finding: str
    iou: float | None
    quality: float | None
    split: str
    png: bytes


@dataclass(frozen=True)
class Gallery:
    """The best and the worst pairs of one recipe.

    Attributes:
        best: Falling order of IoU (of quality without truth).
        worst: Rising order.
        truth: Whether strips end with the truth.
    """

    best: list[Card]
    worst: list[Card]
    truth: bool


# --- choice -------------------------------------------------------------------------------------


def choose(
    pairs: pl.DataFrame, score: str, count: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Pairs for the gallery, spread over findings.

    Args:
        pairs: Candidates with ``finding``, ``image_id`` and the score.
        score: Column to rank by.
        count: Number of pairs in all, half best, half worst.

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


def _round_robin(rows: Iterable[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """The first of every finding, then the second of every finding, and so on."""
    turns: dict[str, int] = defaultdict(int)
    order = []
    for place, row in enumerate(rows):
        order.append((turns[row["finding"]], place, row))
        turns[row["finding"]] += 1
    return [row for _, _, row in sorted(order, key=lambda item: item[:2])[:count]]


def candidates(results: Results, recipe: str) -> tuple[pl.DataFrame, str]:
    """The pairs of a recipe with truth, ranked by IoU, or all its pairs, ranked by quality."""
    pairs = results.scores.get("pairs", pl.DataFrame())
    if results.truth is not None and not pairs.is_empty():
        mine = pairs.filter(
            (pl.col("recipe") == recipe)
            & pl.col("explained")
            & (pl.col("mask_area") > 0)
            & (pl.col("target") == results.truth.targets[0])
        )
        split = headline_split(mine)
        if split is not None:
            return mine.filter(pl.col("split") == split), "iou"
    parts = []
    for shard in sorted(results.index["shard"].unique()):
        path = results.folder / "masks" / recipe / f"{shard}.h5"
        if path.exists():
            with Shard(path, "masks") as opened:
                table = opened.table()
            if len(table.get("image_id", ())):
                columns = {name: list(table[name]) for name in ("image_id", "finding")}
                numbers = {name: table[name] for name in ("quality", "kept")}
                parts.append(pl.DataFrame({**columns, **numbers}).filter("kept"))
    if not parts:
        return pl.DataFrame(
            schema={"image_id": pl.String, "finding": pl.String, "quality": pl.Float64}
        ), "quality"
    return pl.concat(parts).join(
        results.index.select("image_id", "split"), on="image_id"
    ), "quality"


# --- galleries ----------------------------------------------------------------------------------


def make_galleries(results: Results) -> dict[str, Gallery]:
    """One gallery per recipe, all together small enough for the page."""
    count = results.config["report"]["gallery"]
    chosen = {}
    for recipe in results.config["recipes"]:
        if count and (results.folder / "masks" / recipe).is_dir():
            pairs, score = candidates(results, recipe)
            chosen[recipe] = choose(pairs, score, count)
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


def _card(results: Results, recipe: str, row: Mapping[str, Any], side: int) -> Card:
    index = results.index.row(by_predicate=pl.col("image_id") == row["image_id"], named=True)
    file = f"{index['shard']}.h5"
    donor = configuration.relevance_recipe(results.config, recipe)
    with Shard(results.folder / "masks" / recipe / file, "masks") as shard:
        table = shard.table()
        same = (table["image_id"] == row["image_id"]) & (table["finding"] == row["finding"])
        place = int(np.flatnonzero(same)[0])
        mask = shard.read("mask", place)
        quality, threshold = (float(table[name][place]) for name in ("quality", "threshold"))
    with Shard(results.folder / "relevance" / donor / file, "relevance") as shard:
        values = shard.read("map", place).astype(np.float32)
    image = ImageShards(results.folder / "images", max_open=1).read(index["shard"], index["row"])
    size: tuple[int, int, Fit] = index["width"], index["height"], results.config["prepare"]["fit"]
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
    drawn = source_mask(pack(level_set(mask, values, threshold)), *size)
    return np.where(drawn, np.uint8(1), ignored)


def sheet(gallery: Gallery) -> bytes:
    """A gallery as one picture: the best on the left, the worst on the right, with captions."""
    parts = "image, relevance, mask" + ", truth" * gallery.truth
    sides = []
    for title, cards in (("Best", gallery.best), ("Worst", gallery.worst)):
        opened = [Image.open(io.BytesIO(card.png)).convert("RGB") for card in cards]
        rows = [(caption(c), [np.asarray(s)]) for c, s in zip(cards, opened, strict=True)]
        sides.append(layout.sheet(rows, titles=[f"{title}: {parts}"]))
    return layout.to_png(layout.sheet([("", sides)]))


def caption(card: Card) -> str:
    """Finding, IoU and quality in one line."""
    parts = [card.finding]
    if card.iou is not None:
        parts.append(f"IoU {card.iou:.2f}")
    if card.quality is not None:
        parts.append(f"quality {card.quality:.2f}")
    return ", ".join(parts)
