"""The data set card: README.md of a release, a datasheet with every number computed.

Questions and order are those of Gebru et al., Datasheets for Datasets: templates/card.md.j2.
"""

import json
import textwrap
from pathlib import Path
from typing import Any

import polars as pl

from dollmaker.measures.words import interval, number
from dollmaker.release.bounds import RANK_ONLY, percent, tell
from dollmaker.release.facts import Facts, headline, means, of_recipe, summary, worst
from dollmaker.release.licence import hub_licence, licence_url
from dollmaker.release.parts import BOUND, SPLITS
from dollmaker.runtime.templates import open_templates

_TEMPLATES = Path(__file__).resolve().parent / "templates"

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def write_card(facts: Facts) -> str:
    """The card in Markdown with a YAML front matter."""
    filters: dict[str, Any] = {
        "text": _text,
        "quoted": lambda value: json.dumps(value, ensure_ascii=False),
        "number": number,
        "percent": _percent,
        "interval": interval,
        "median": _median,
    }  # Markdown: what comes of data passes through "text" or "quoted"
    environment = open_templates(_TEMPLATES, html=False, filters=filters)
    text = environment.get_template("card.md.j2").render(_context(facts))
    head, body = text.split("\n\n", 1)
    return f"{head}\n\n{_reflow(body)}"


def _context(facts: Facts) -> dict[str, Any]:
    options, table, images = facts.config["release"], facts.table, facts.images
    scores = headline(facts)
    baselines = means(facts, scores)
    mine = baselines.pop(options["recipe"], None)
    recipe = facts.config["recipes"][options["recipe"]]
    bounds = table[BOUND].drop_nulls().to_list()
    masks = {name: len(table.filter(finding=name)) for name in facts.findings}
    confidence = facts.bounds["confidence"] if facts.bounds else None
    return {
        **{name: getattr(facts, name) for name in Facts.__dataclass_fields__},
        "splits": [split for split in SPLITS if split in table["split"].unique()],
        "size": next((name for limit, name in _SIZES if len(table) < limit), "n>1M"),
        "hub": hub_licence(options["license"]),
        "licence_url": licence_url(options["license"]),
        "key": "".join(c for c in options["name"].lower() if c.isalnum()) or "release",
        "summary": summary(facts),
        "explained": int(images["explained"].sum()),
        "counts": [
            f"{len(rows)} {split} ({rows['patient_id'].n_unique()} patients)"
            for split in SPLITS
            if len(rows := images.filter(split=split))
        ],
        "steps": ", ".join(next(iter(step)) for step in recipe["binarize"]),
        "scored": [mine, *of_recipe(facts, scores).to_dicts()] if mine else [],
        "positive": means(facts, headline(facts, pairs="positive")).get(options["recipe"]),
        "baselines": baselines,
        "rank_only": RANK_ONLY,
        "bounds_known": len(bounds),
        "best_bound": tell(max(bounds, default=None), confidence),
        "sure": percent(confidence) if confidence else "",
        "worst": worst(facts),
        "few": {name: count for name, count in masks.items() if count < 10},
        "half": len(table.filter(pl.col("quality") < 0.5)) / len(table),
        "torn": len(table.filter(pl.col("components") > 3)) / len(table),
    }


def _reflow(text: str) -> str:
    """Paragraphs of prose in lines of one length; tables, lists and code as they are."""
    blocks = text.split("\n\n")
    return "\n\n".join(
        textwrap.fill(block, 100, break_long_words=False, break_on_hyphens=False)
        + "\n" * block.endswith("\n")
        if (block[:1].isalpha() or block.startswith("**")) and "```" not in block
        else block
        for block in blocks
    )


def _median(values: pl.Series) -> str:
    middle: Any = values.median()
    return "-" if middle is None else f"{middle:.3f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def _text(value: str) -> str:
    """Text from data, harmless in Markdown and HTML."""
    escaped = value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{c}" if c in "\\`*[]|#!" else c for c in escaped.replace("\n", " "))
