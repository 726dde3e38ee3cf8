"""What the card of a release says in numbers."""

from dataclasses import dataclass
from typing import Any

import polars as pl

from dollmaker.measures.baselines import BASELINES
from dollmaker.measures.words import headline_split, interval, number

#: Name of the row of the mean.
_MEAN = "mean"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that a card is made from.

    Attributes:
        config: The resolved configuration.
        findings: Names, in order.
        table: All rows of the release.
        images: All images, with or without a mask.
        members: Member -> model.json.
        segmenter: segmenter.json.
        sanity: What the stage sanity says about the recipe.
        scores: masks.parquet of the evaluation; empty without truth.
        bounds: What bounds.json says; ``None`` where no released mask has truth.
    """

    config: dict[str, Any]
    findings: list[str]
    table: pl.DataFrame
    images: pl.DataFrame
    members: dict[str, dict[str, Any]]
    segmenter: dict[str, Any]
    sanity: dict[str, Any]
    scores: pl.DataFrame
    bounds: dict[str, Any] | None


def headline(facts: Facts, *, pairs: str = "full") -> pl.DataFrame:
    """Scores of the first target on the most held-out split there is; empty without truth.

    Args:
        facts: The facts.
        pairs: ``full`` (every pair where mask or truth has pixels) or ``positive`` (both have).
    """
    scores = facts.scores.filter(pl.col("slice") == pairs)
    target = next(iter(scores["target"]), "")
    split = headline_split(scores) or ""
    return scores.filter(pl.col("split") == split, pl.col("target") == target)


def of_recipe(facts: Facts, scores: pl.DataFrame) -> pl.DataFrame:
    """Rows of the released recipe by finding, without the mean."""
    recipe = facts.config["release"]["recipe"]
    return scores.filter(pl.col("recipe") == recipe, pl.col("finding") != _MEAN)


def means(facts: Facts, scores: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """The mean over findings of the released recipe and of the trivial baselines."""
    names = (facts.config["release"]["recipe"], *BASELINES)
    rows = scores.filter(pl.col("finding") == _MEAN, pl.col("recipe").is_in(names)).to_dicts()
    return {row["recipe"]: row for row in rows}


def worst(facts: Facts, number: int = 5) -> list[dict[str, Any]]:
    """The findings with the lowest mean IoU."""
    rows = of_recipe(facts, headline(facts)).filter(pl.col("miou").is_not_null())
    return rows.sort("miou", "finding").head(number).to_dicts()


def summary(facts: Facts) -> str:
    """One sentence: how good the masks are, as far as anybody knows."""
    scores = headline(facts)
    found = means(facts, scores).get(facts.config["release"]["recipe"])
    if found is None or found["miou"] is None:
        return "There is no truth for these images: nobody has measured how good the masks are."
    best = max(
        (row["miou"] or 0.0 for name, row in means(facts, scores).items() if name in BASELINES),
        default=0.0,
    )
    return (
        f"Against true masks of {found['split']} images the mean IoU over {found['mean_over']} is "
        f"{interval(found, 'miou')}; that of the best trivial baseline is {number(best)}."
    )
