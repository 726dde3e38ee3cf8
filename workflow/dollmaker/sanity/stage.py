"""The stage: one recipe's sample in, one verdict out."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dollmaker.binarize.pair import Pair
from dollmaker.binarize.stage import open_recipe
from dollmaker.config.whole import Config
from dollmaker.measures import scores
from dollmaker.pictures import overlay
from dollmaker.pixels import geometry
from dollmaker.runtime.picks import evenly
from dollmaker.store import provenance
from dollmaker.store.files import atomic_path, sha256_file, write_json
from dollmaker.store.findings import PRESENT
from dollmaker.store.shards import ImageShards, Shard
from dollmaker.store.tables import read_index

#: A median IoU of masks with those of random weights over this: more than half of what either draws
#: needs no learning, the recipe ignores the model (our choice).
SAME_MASKS = 0.5

#: A median rank correlation with the maps of another finding over this: it ignores the finding.
IGNORES_FINDING = 0.99

#: Pairs of a kind under which nothing is said about it (our choice).
MIN_PAIRS = 8

#: Most pairs in the picture: with the finding, and without it. Side of a tile in pixels.
_SHOWN, _TILE = (8, 4), 128

Table = dict[str, npt.NDArray[Any]]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a recipe is checked with.

    Attributes:
        index: The index.
        images: Folder of the image shards.
        sample: The sample of the recipe's maps.
        thresholds: Table made by ``dollmaker thresholds``, for the step label_free.
    """

    index: Path
    images: Path
    sample: Path
    thresholds: Path | None = None


def check_recipe(config: Config, inputs: Inputs, recipe: str, output: Path) -> None:
    """Check that a recipe's masks depend on the model and the finding.

    Pairs without the finding go through the steps as if they had it: how often is a mask drawn
    where there is nothing? The maps of networks with random weights go through the same steps, with
    the scale and the probability of the pair: what is compared is where they draw.

    Args:
        config: The resolved configuration.
        inputs: What earlier stages made.
        recipe: Recipe of the configuration.
        output: JSON file to write; beside it a picture with the same name and the suffix .png.
    """
    cutter, fit = open_recipe(config, recipe, inputs.thresholds), config.prepare.fit
    index, names = read_index(inputs.index)
    rows_of = {row["image_id"]: row for row in index.iter_rows(named=True)}
    pixels = ImageShards(inputs.images)
    with Shard(inputs.sample, "relevance") as sample:
        table = sample.table()
        areas, patients, drawings = np.zeros(len(sample)), [], {}
        same = np.full(len(sample), np.nan)
        shown = _shown(table)
        for row in range(len(sample)):
            of = rows_of[table["image_id"][row]]
            values = sample.read("map", row).astype(np.float32)
            where = geometry.box(of["width"], of["height"], len(values), fit)
            pair = cutter.pair(
                table["finding"][row],
                values,
                pixels.read(of["shard"], of["row"]),
                where,
                label=PRESENT,
                probability=float(table["probability"][row]),
                scale=float(table["scale"][row]),
            )
            mask = cutter.chain(pair).foreground
            areas[row] = float(np.mean(mask))
            drawn: list[npt.NDArray[np.bool_]] = []
            if np.isfinite(table["randomised"][row]):
                blind = geometry.inside(sample.read("blind", row).astype(np.float32), where)
                drawn = [cutter.chain(replace(pair, map=each)).foreground for each in blind]
                same[row] = scores.nanmean(np.array([scores.iou(each, mask) for each in drawn]))
            patients.append(of["patient_id"])
            if row in shown:
                drawings[row] = _tiles(pair, [mask, *drawn])
    facts = judge(table, areas, same, patients, several=len(names) > 1)
    header = provenance.header(
        "sanity",
        {"recipe": recipe, "steps": list(cutter.steps), "fit": fit},
        inputs={
            "sample": sha256_file(inputs.sample),
            **({"thresholds": sha256_file(inputs.thresholds)} if inputs.thresholds else {}),
        },
    )
    rows = [(_words(table, row, same[row]), drawings[row]) for row in shown]
    titles = ("image", "map", "mask", "random weights", "another draw", "another draw")
    picture = overlay.sheet(rows, titles=titles, beside=True)
    with atomic_path(output.with_suffix(".png")) as file:
        file.write_bytes(overlay.to_png(picture, colours=None))
    write_json(output, {"recipe": recipe, **facts, "header": header})
    shows = f"{output.with_suffix('.png')} shows its masks beside those of random weights"
    print(f"sanity of recipe {recipe}: {facts['verdict']}; {shows}", file=sys.stderr)


def _shown(table: Table) -> list[int]:
    """Rows of the picture: checked pairs with the finding, then pairs without it."""
    present = table["label"] == PRESENT
    kinds = (present & np.isfinite(table["randomised"]), ~present)
    found = [np.flatnonzero(kind).tolist() for kind in kinds]
    return [
        rows[place]
        for rows, most in zip(found, _SHOWN, strict=True)
        for place in evenly(len(rows), most)
    ]


def _words(table: Table, row: int, same: float) -> str:
    """The finding, and how much of its mask those of random weights share: NaN of empty masks."""
    said = f"IoU {same:.2f}" if np.isfinite(same) else "no mask"
    return f"{table['finding'][row]}\n{said if table['label'][row] == PRESENT else 'is not there'}"


def _tiles(pair: Pair, masks: Sequence[npt.NDArray[np.bool_]]) -> list[overlay.Rgb]:
    """A pair's picture, its map over it, and its masks over it, the first its own."""
    height, width = pair.image.shape[1:]
    ground = overlay.to_rgb(pair.image, overlay.panel_shape(width, height, _TILE))
    drawn = [overlay.tint(ground, {overlay.MASK: mask}) for mask in masks]
    return [ground, overlay.heat(ground, pair.map), *drawn]


def judge(
    table: Table, areas: Floats, same: Floats, patients: Sequence[str], *, several: bool = True
) -> dict[str, Any]:
    """Numbers and verdicts; intervals are 95 % bootstrap intervals over patients.

    Whether a recipe ignores the model is asked of its masks: maps of mostly dark pictures have
    nearly the same ranks whatever the weights, and what is released are masks. It does, where the
    whole interval of the median IoU with the masks of random weights is over the limit, or where
    it reaches over the limit and the recipe is uninformative: either alone may be chance or a hard
    case, and a verdict should be the same for the next committee. Whether it ignores the finding is
    asked in the same way of the rank correlation with the map of another finding, if there are
    several.

    Of each pair in the ``table`` of the sample, ``areas`` are the share of foreground of its mask,
    ``same`` the IoU of its mask with those that random weights have for it, mean of the draws; NaN
    where none was drawn.

    Returns:
        ``positives``, ``negatives`` and ``checked`` (numbers of pairs); medians of ``same_masks``,
        ``randomised`` and ``other`` with ``_low`` and ``_high``, of ``insertion`` and ``deletion``
        (null if unknown); shares of pairs with a mask and their mean areas, on positives and
        negatives, and the difference of the two with ``_low`` and ``_high``; ``ignores_model``,
        ``ignores_finding`` and ``uninformative`` (masks of positives and negatives do not differ
        in these two), true, false, or null where there are under :data:`MIN_PAIRS` pairs;
        ``doubts``, which of the first two are not sure to be false; ``verdict``, in words.
    """
    positive = table["label"] == PRESENT
    facts: dict[str, Any] = {
        "positives": int(positive.sum()),
        "negatives": int((~positive).sum()),
        "checked": int(np.isfinite(table["randomised"]).sum()),
    }
    values_of = {"same_masks": same, "randomised": table["randomised"], "other": table["other"]}
    for name, values in values_of.items():
        facts |= _interval(name, _median(values.astype(np.float64), patients))
    for name in ("insertion", "deletion"):
        values = table[name][np.isfinite(table[name])].astype(np.float64)
        facts[name] = _number(float(np.median(values)) if len(values) else float("nan"))
    for name, values in (("masked", (areas > 0).astype(np.float64)), ("area", areas)):
        facts[f"{name}_positives"] = _number(scores.nanmean(values[positive]))
        facts[f"{name}_negatives"] = _number(scores.nanmean(values[~positive]))
        facts |= _interval(f"{name}_difference", _difference(values, positive, patients))
    facts["uninformative"] = _uninformative(facts)
    limits = {"model": ("same_masks", SAME_MASKS), "finding": ("other", IGNORES_FINDING)}
    facts["doubts"] = []
    for what, (name, limit) in limits.items():
        low, high = facts[f"{name}_low"], facts[f"{name}_high"]
        count = int(np.isfinite(values_of[name]).sum())
        if what == "finding" and not several:
            facts["ignores_finding"] = False
        elif count < MIN_PAIRS or low is None:
            facts[f"ignores_{what}"] = None
        else:
            reaches = high > limit
            ignores = low > limit or (reaches and facts["uninformative"] is True)
            facts[f"ignores_{what}"] = bool(ignores)
            facts["doubts"] += [f"ignores_{what}"] if reaches and not ignores else []
    facts["verdict"] = verdict(facts)
    return facts


def verdict(facts: dict[str, Any]) -> str:
    """What the numbers of :func:`judge` say, in a few words."""
    said = []
    for what in ("model", "finding"):
        ignores = facts[f"ignores_{what}"]
        if ignores is None:
            said.append(f"not known whether it ignores the {what}")
        elif ignores:
            said.append(f"ignores the {what}")
        elif f"ignores_{what}" in facts["doubts"]:
            said.append(f"may ignore the {what}")
    if facts["uninformative"]:
        said.append("uninformative: masks look the same where the finding is absent")
    compared = "model and finding" if facts["other"] is not None else "the model"
    return "; ".join(said) or f"depends on {compared}"


def _uninformative(facts: dict[str, Any]) -> bool | None:
    if min(facts["positives"], facts["negatives"]) < MIN_PAIRS:
        return None
    ends = [
        (facts[f"{n}_difference_low"], facts[f"{n}_difference_high"]) for n in ("masked", "area")
    ]
    if any(low is None for low, _ in ends):
        return None
    return all(low <= 0 <= high for low, high in ends)


def _median(values: Floats, patients: Sequence[str]) -> scores.Interval:
    known = np.isfinite(values)
    ordered = np.argsort(values[known], kind="stable")
    ascending = values[known][ordered]
    groups = np.asarray(patients, dtype=str)[known][ordered]

    def middle(weights: Floats) -> Floats:
        """The median of rows that are drawn so many times."""
        below = weights.cumsum(1)
        half = below[:, -1:] / 2
        lower, upper = (below < half).sum(1), (below <= half).sum(1)
        return np.asarray((ascending[lower] + ascending[np.minimum(upper, len(ascending) - 1)]) / 2)

    return scores.bootstrap(middle, len(ascending), groups, 1000, 0)


def _difference(
    values: Floats, positive: npt.NDArray[np.bool_], patients: Sequence[str]
) -> scores.Interval:
    """Mean over positives less mean over negatives; NaN where one of the two is not there."""

    def gap(weights: Floats) -> Floats:
        means = []
        for rows in (positive, ~positive):
            count = weights[:, rows].sum(1)
            some = np.where(count > 0, count, np.nan)
            means.append(weights[:, rows] @ values[rows] / some)
        return np.asarray(means[0] - means[1])

    return scores.bootstrap(gap, len(values), list(patients), 1000, 0)


def _interval(name: str, found: scores.Interval) -> dict[str, float | None]:
    ends = ("", "_low", "_high")
    return {name + end: _number(value) for end, value in zip(ends, found, strict=True)}


def _number(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None
