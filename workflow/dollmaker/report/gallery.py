"""Pictures: image, relevance, mask and truth side by side, the best and the worst."""

import base64
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import polars as pl
from PIL import Image, ImageDraw, ImageFont

from dollmaker.config import settings as configuration
from dollmaker.pixels.enlarge import level_set, pack, source_mask
from dollmaker.pixels.geometry import Box, Fit, box, inside, unfit_mask, window
from dollmaker.pixels.masks import IGNORE
from dollmaker.report.gather import Results, headline_split
from dollmaker.store.depth import to_show
from dollmaker.store.shards import ImageShards, Shard

MASK_COLOUR = (255, 140, 20)
TRUTH_COLOUR = (40, 205, 175)
CLASS_COLOURS = ((255, 140, 20), (64, 145, 255), (40, 205, 175), (215, 90, 190), (240, 215, 60))

_GAP = 3
#: Bytes that all galleries of a page may take, so that it stays under 6 MB with everything else.
_BUDGET = 2_900_000
_SIDE = 150

Rgb = npt.NDArray[np.uint8]


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
    shape = panel_shape(index["width"], index["height"], side)
    where = box(index["width"], index["height"], image.shape[-1], size[2])
    shown = _scaled_box(window(*size), shape, size[1], size[0])
    part = to_rgb(inside(image, where), _shape(shown))
    ground = _placed(part, shown, shape)
    codes = _codes(mask, values, threshold, size)
    warm = _placed(heat(part, inside(values, where)), shown, shape)
    panels = [ground, warm, tint(ground, {MASK_COLOUR: codes})]
    if results.truth is not None:
        area = results.truth.mask(index, row["finding"], results.truth.targets[0])
        known = {} if area is None else {TRUTH_COLOUR: area.astype(np.uint8)}
        panels.append(outline(tint(ground, known), codes == 1, MASK_COLOUR))
    return Card(
        image_id=row["image_id"],
        finding=row["finding"],
        iou=row.get("iou"),
        quality=quality,
        split=row["split"],
        png=to_png(strip(panels)),
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


def _scaled_box(shown: Box, shape: tuple[int, int], height: int, width: int) -> Box:
    """Where a part of the source lies in a panel."""
    across, down = shape[1] / width, shape[0] / height
    left, top, right, bottom = shown
    return round(left * across), round(top * down), round(right * across), round(bottom * down)


def _shape(where: Box) -> tuple[int, int]:
    """Height and width, at least a pixel each."""
    left, top, right, bottom = where
    return max(1, bottom - top), max(1, right - left)


def _placed(part: Rgb, where: Box, shape: tuple[int, int]) -> Rgb:
    """A picture of a part in a panel; what a crop does not show is black."""
    if part.shape[:2] == shape:
        return part
    whole = np.zeros((*shape, 3), np.uint8)
    whole[where[1] : where[1] + part.shape[0], where[0] : where[0] + part.shape[1]] = part
    return whole


# --- pictures -----------------------------------------------------------------------------------


def panel_shape(width: int, height: int, side: int) -> tuple[int, int]:
    """Height and width of a panel: the longer side is ``side``."""
    scale = side / max(width, height)
    return max(1, round(height * scale)), max(1, round(width * scale))


def to_rgb(image: npt.NDArray[Any], shape: tuple[int, int]) -> Rgb:
    """An image (C, h, w) in levels as RGB of the panel's shape."""
    channels = np.moveaxis(np.broadcast_to(to_show(image), (3, *image.shape[1:])), 0, -1)
    picture = Image.fromarray(np.ascontiguousarray(channels))
    return np.asarray(picture.resize(shape[::-1], Image.Resampling.BILINEAR))


def heat(ground: Rgb, values: npt.NDArray[np.float32]) -> Rgb:
    """A map over the image: warm where positive, blue where negative, clear at zero."""
    plain = Image.fromarray(np.nan_to_num(values))
    grid = np.asarray(plain.resize(ground.shape[1::-1], Image.Resampling.BILINEAR))
    grid = grid / max(float(np.abs(grid).max()), 1e-9)
    warm, cold = mpl.colormaps["inferno"](np.abs(grid)), mpl.colormaps["winter"](np.abs(grid))
    colours = np.where((grid >= 0)[..., None], warm, cold)[..., :3] * 255
    share = np.clip(np.abs(grid) * 1.6, 0, 0.85)[..., None]
    return np.asarray(ground * (1 - share) * 0.9 + colours * share, dtype=np.uint8)


def tint(ground: Rgb, masks: Mapping[tuple[int, int, int], npt.NDArray[Any]]) -> Rgb:
    """Masks over the image, colour by colour; pixels to ignore become grey."""
    picture = ground.astype(np.float32)
    for colour, mask in masks.items():
        codes = _scaled(mask, ground)
        for found, ink in ((codes == 1, colour), (codes == IGNORE, (150, 150, 150))):
            picture[found] = picture[found] * 0.55 + np.array(ink) * 0.45
        picture = outline(picture.astype(np.uint8), codes == 1, colour).astype(np.float32)
    return picture.astype(np.uint8)


def outline(ground: Rgb, mask: npt.NDArray[np.bool_], colour: tuple[int, int, int]) -> Rgb:
    """The inner edge of a mask, one pixel wide."""
    inside = np.pad(_scaled(mask.astype(np.uint8), ground) == 1, 1)
    core = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
    picture = ground.copy()
    picture[inside[1:-1, 1:-1] & ~core] = colour
    return picture


def _scaled(mask: npt.NDArray[Any], ground: Rgb) -> npt.NDArray[np.uint8]:
    if mask.shape == ground.shape[:2]:
        return mask.astype(np.uint8)
    picture = Image.fromarray(mask.astype(np.uint8))
    return np.asarray(picture.resize(ground.shape[1::-1], Image.Resampling.NEAREST))


def strip(panels: Sequence[Rgb]) -> Rgb:
    """Panels of one height side by side."""
    gap = np.full((panels[0].shape[0], _GAP, 3), 128, dtype=np.uint8)
    row = [piece for panel in panels for piece in (panel, gap)][:-1]
    return np.concatenate(row, axis=1)


def to_png(picture: Rgb) -> bytes:
    """PNG with a palette: fewer bytes, and the same to the eye.

    Maximum coverage keeps the colours of small masks, which median cut gives to more greys.
    """
    buffer = io.BytesIO()
    coverage = Image.Quantize.MAXCOVERAGE
    palette = Image.fromarray(picture).quantize(256, method=coverage, dither=Image.Dither.NONE)
    palette.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def data_uri(png: bytes) -> str:
    """A PNG as an address that needs no file."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def sheet(gallery: Gallery) -> bytes:
    """A gallery as one picture: the best on the left, the worst on the right, with captions."""
    columns = [gallery.best, gallery.worst]
    strips = [
        [Image.open(io.BytesIO(card.png)).convert("RGB") for card in cards] for cards in columns
    ]
    width = max((s.width for column in strips for s in column), default=200)
    rows = max(len(column) for column in strips)
    heights = [
        max((column[r].height for column in strips if r < len(column)), default=0) + 24
        for r in range(rows)
    ]
    picture = Image.new("RGB", (2 * width + 36, sum(heights) + 40), "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    parts = "image, relevance, mask, truth" if gallery.truth else "image, relevance, mask"
    for number, (cards, title) in enumerate(zip(columns, ("Best", "Worst"), strict=True)):
        x, y = 12 + number * (width + 12), 32
        pen.text((x, 9), f"{title}: {parts}", fill="black", font=font)
        for r, card in enumerate(cards):
            picture.paste(strips[number][r], (x, y))
            pen.text(
                (x, y + strips[number][r].height + 2), caption(card), fill="#444444", font=font
            )
            y += heights[r]
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def caption(card: Card) -> str:
    """Finding, IoU and quality in one line."""
    parts = [card.finding]
    if card.iou is not None:
        parts.append(f"IoU {card.iou:.2f}")
    if card.quality is not None:
        parts.append(f"quality {card.quality:.2f}")
    return ", ".join(parts)
