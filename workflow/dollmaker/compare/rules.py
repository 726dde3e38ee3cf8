"""Which threshold: chosen with truth (tuned, few-shot), without (label-free), or as published."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from dollmaker.binarize.cuts import FAMILY
from dollmaker.binarize.label_free import CRITERIA, Cuts, chosen_of
from dollmaker.evaluate.means import MASKS, summarize

PUBLISHED, TUNED, FEW_SHOT = "as published", "tuned", "few-shot"

#: Rules in the order of the tables.
RULES = (PUBLISHED, TUNED, FEW_SHOT, *CRITERIA)

#: Columns of recipes.parquet: one row per recipe, rule, target, part, slice and finding.
RECIPES: dict[str, Any] = {
    "recipe": MASKS["recipe"],
    "rule": pl.String,
    **MASKS,
    "seconds": pl.Float64,
}

#: How images stand to the training of the classifiers.
HELD_OUT, TRAINED = "held-out", "training"


def is_tuning(patient: str, share: float) -> bool:
    """Whether a patient's true masks may choose thresholds (then they are not scored)."""
    return _fraction(f"tuning/{patient}") < share


def apply_rules(
    pairs: pl.DataFrame, cuts: Mapping[str, Cuts], *, tuning: float, few: int
) -> pl.DataFrame:
    """The scored pairs (:func:`dollmaker.evaluate.masks.score_pairs`) under every rule.

    ``tuning`` is the share of the patients that choose the tuned thresholds, ``few`` the true masks
    of each finding that the few-shot rule sees.

    Returns:
        The pairs of the other patients with a column ``rule``; ``iou``, ``dice``, ``mask_area``
        and ``split`` (held-out or training) are the rule's. Thresholds chosen without truth are
        those of the family that is the default; the others choose among all families.
    """
    chosen = pl.Series([is_tuning(p, tuning) for p in pairs["patient_id"]], dtype=pl.Boolean)
    parts = []
    for (recipe, _), group in pairs.with_columns(tuning=chosen).group_by(
        ("recipe", "target"), maintain_order=True
    ):
        scored = group.filter(~pl.col("tuning"))
        parts.append(scored.with_columns(rule=pl.lit(PUBLISHED)))
        if group["iou_at"].null_count():
            continue
        tune = group.filter(pl.col("tuning"))
        rules = {TUNED: best(tune), FEW_SHOT: best(first(tune, few))}
        chosen_for = {f: chosen_of(cuts[str(recipe)], f) for f in scored["finding"].unique()}
        for criterion in CRITERIA:
            rules[criterion] = {f: c.places[criterion, FAMILY] for f, c in chosen_for.items()}
        parts += [at(scored, rule, where) for rule, where in rules.items() if where]
    if not parts:
        return pairs.clear().with_columns(rule=pl.lit(PUBLISHED))
    table = pl.concat(parts, how="diagonal").drop("tuning")
    part = pl.when(pl.col("split") == "train").then(pl.lit(TRAINED)).otherwise(pl.lit(HELD_OUT))
    return table.with_columns(split=part)


def best(tune: pl.DataFrame) -> dict[str, int]:
    """The candidate with the highest mean IoU for each finding of tuning pairs.

    Findings without tuning pairs get the best over all, under the key "".
    """
    if tune.is_empty():
        return {}
    found = {"": _argmax(tune)}
    for (finding,), group in tune.group_by(("finding",), maintain_order=True):
        found[str(finding)] = _argmax(group)
    return found


def first(tune: pl.DataFrame, few: int) -> pl.DataFrame:
    """The same few pairs of each finding for every recipe, by hash."""
    keys = [_fraction(f"few/{i}") for i in tune["image_id"]]
    ordered = tune.with_columns(key=pl.Series(keys, dtype=pl.Float64)).sort("key")
    return ordered.group_by("finding", maintain_order=True).head(few).drop("key")


def at(scored: pl.DataFrame, rule: str, where: Mapping[str, int]) -> pl.DataFrame:
    """Pairs with the scores of one candidate per finding."""
    numbers = [where[f] if f in where else where[""] for f in scored["finding"]]
    place = pl.lit(pl.Series(numbers, dtype=pl.Int64))
    curves = {"iou": "iou_at", "dice": "dice_at", "mask_area": "area_at"}
    return scored.with_columns(
        rule=pl.lit(rule),
        **{name: pl.col(c).list.get(place).cast(pl.Float64) for name, c in curves.items()},
    )


def summarize_rules(
    ruled: pl.DataFrame, findings: Sequence[str], replicates: int, seed: int, *, min_pairs: int
) -> pl.DataFrame:
    """Means with bootstrap intervals, a table with the columns :data:`RECIPES` but seconds.

    Every scored pair is a positive one, which all recipes were asked for.
    """
    gates = dict.fromkeys(ruled["recipe"].unique(), "label")
    parts = [
        summarize(
            group, findings, replicates, seed, min_pairs=min_pairs, gated_by=gates
        ).with_columns(rule=pl.lit(rule))
        for (rule,), group in ruled.group_by(("rule",), maintain_order=True)
    ]
    return pl.concat(parts) if parts else pl.DataFrame(schema={**MASKS, "rule": pl.String})


def _argmax(pairs: pl.DataFrame) -> int:
    return int(np.argmax(np.stack(pairs["iou_at"].to_list()).mean(0)))


def _fraction(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48
