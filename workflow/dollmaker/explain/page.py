"""The measures of the methods side by side: in words, and as README.md of the folder."""

from typing import Any

import polars as pl

#: Columns of measures.parquet that are measures -> what they say.
MEASURES = {
    "inside_prediction": "share of the relevance inside the prediction",
    "inside_truth": "share of the relevance inside the truth",
    "pointing": "share of pairs whose most relevant pixel lies in the truth",
    "randomised": "rank correlation with the maps of untrained networks; near 1, the maps do not "
    "show what was learned",
}


def side_by_side(measures: pl.DataFrame) -> str:
    """Means of the measures, a line for each method, over the pairs that every method maps."""
    methods, common = _common(measures)
    pairs = len(measures) // len(methods)
    lines = [f"means over {len(common) // len(methods)} pairs with relevance by every method:"]
    for method in methods:
        mine = common.filter(method=method)
        values = (f"{name} {_number(mine[name].fill_nan(None).mean())}" for name in MEASURES)
        count = measures.filter(pl.col("inside_prediction").is_not_nan(), method=method).height
        lines.append(f"{method}: {', '.join(values)}; relevance in {count} of {pairs} pairs")
    return "\n".join(lines)


def page(measures: pl.DataFrame, *, layer: str, pixels: str, split: str) -> str:
    """README.md of the folder.

    Args:
        measures: Rows of measures.parquet.
        layer: Layer whose feature maps are looked at.
        pixels: Pixels whose logits are explained.
        split: The images' split.
    """
    methods, common = _common(measures)
    findings = measures["finding"].unique().sort().to_list()
    lines = [
        f"| method | finding | pairs | {' | '.join(MEASURES)} |",
        f"|---|---|---:|{'---:|' * len(MEASURES)}",
    ]
    for method in methods:
        used, every = (table.filter(method=method) for table in (common, measures))
        for finding in findings:
            mine = [table.filter(finding=finding) for table in (used, every)]
            lines.append(_row(method, finding.replace("|", "\\|"), *mine))
        lines.append(_row(method, "**all pairs**", used, every))
    meanings = "\n".join(f"- `{name}`: {meaning}." for name, meaning in MEASURES.items())
    table = "\n".join(lines)
    return f"""# Where the segmenter looks

Layer `{layer}`, pixel set `{pixels}`, released pairs of the split `{split}`.

**Truth here is the released pseudo-mask**, which the segmenter learned from or is of the same kind
as what it learned from. It was made from explanations of classifiers, not drawn by people:
relevance inside it is no evidence of a right localisation.

{table}

Each cell is a mean (pairs used; pairs left out). Left out are pairs without relevance by one of the
methods, so that all have the same pairs, and those for which the measure is not defined (NaN).

{meanings}
"""


def _common(measures: pl.DataFrame) -> tuple[list[str], pl.DataFrame]:
    """The methods, and the rows of the pairs that every one of them maps."""
    methods = measures["method"].unique(maintain_order=True).to_list()
    mapped = measures.filter(pl.col("inside_prediction").is_not_nan())
    return methods, mapped.filter(pl.len().over("image_id", "finding") == len(methods))


def _row(method: str, name: str, used: pl.DataFrame, every: pl.DataFrame) -> str:
    cells = []
    for measure in MEASURES:
        known = used[measure].drop_nans()
        cells.append(f"{_number(known.mean())} ({len(known)}; {len(every) - len(known)})")
    return f"| {method} | {name} | {len(every)} | {' | '.join(cells)} |"


def _number(value: Any) -> str:
    return "unknown" if value is None else f"{value:.3f}"
