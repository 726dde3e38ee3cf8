"""The texts of a release: README.md, LICENSE and CHANGELOG.md.

README.md is the data set card, a datasheet with every number computed. Questions and order are
those of Gebru et al., Datasheets for Datasets: templates/card.md.j2.
"""

import json
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from dollmaker.config.whole import Config, ReleaseConfig
from dollmaker.measures.baselines import BASELINES, MEAN_MAP, SEGMENTER, best_trivial
from dollmaker.measures.words import finite, headline_split, interval, number
from dollmaker.release.bounds import RANK_ONLY, percent, tell
from dollmaker.release.parts import BOUND, SPLITS, Row, Tree
from dollmaker.runtime.templates import open_templates

_TEMPLATES = Path(__file__).resolve().parent / "templates"

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))

#: SPDX name -> where its text is, for those that data sets usually have.
_LICENCES = {
    "CC0-1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "CC-BY-4.0": "https://creativecommons.org/licenses/by/4.0/",
    "CC-BY-SA-4.0": "https://creativecommons.org/licenses/by-sa/4.0/",
    "CC-BY-NC-4.0": "https://creativecommons.org/licenses/by-nc/4.0/",
    "CC-BY-NC-SA-4.0": "https://creativecommons.org/licenses/by-nc-sa/4.0/",
}

#: Name of the row of the mean.
_MEAN = "mean"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that a card is made from."""

    config: Config
    findings: list[str]
    table: pl.DataFrame  #: All rows of the release.
    images: pl.DataFrame  #: All images, with or without a mask.
    members: dict[str, Tree]  #: Member -> model.json.
    segmenter: Tree  #: segmenter.json.
    sanity: Tree  #: What the stage sanity says about the recipe.
    scores: pl.DataFrame  #: masks.parquet of the evaluation; empty without truth.
    bounds: Tree | None  #: What bounds.json says; ``None`` where no released mask has truth.

    def targets(self) -> list[str]:
        """Areas that the masks were scored against, in order; none without truth."""
        return list(self.scores["target"].unique(maintain_order=True))

    def headline(self, *, pairs: str = "full", target: str | None = None) -> pl.DataFrame:
        """Scores of a target on the most held-out split there is; empty without truth.

        ``pairs`` are ``full`` (mask or truth has pixels) or ``positive`` (both have); without
        ``target`` it is the first.
        """
        scores = self.scores.filter(slice=pairs)
        area = next(iter(self.targets()), "") if target is None else target
        return scores.filter(split=headline_split(scores) or "", target=area)

    def of_recipe(self) -> pl.DataFrame:
        """Headline scores of the released recipe by finding, without the mean."""
        mine = self.headline().filter(recipe=self.config.release.recipe)
        return mine.filter(pl.col("finding") != _MEAN)

    def means(self, *, pairs: str = "full", target: str | None = None) -> dict[str, Row]:
        """Means over findings: of the released recipe, the segmenter and trivial baselines."""
        names = (self.config.release.recipe, SEGMENTER, MEAN_MAP, *BASELINES)
        scores = self.headline(pairs=pairs, target=target)
        rows = scores.filter(pl.col("recipe").is_in(names), finding=_MEAN)
        return {row["recipe"]: row for row in rows.to_dicts()}

    def summary(self, told: Callable[[str], str] = str) -> str:
        """One sentence: how good the masks are, as far as anybody knows, by every target.

        Names of targets, which come of data, pass through ``told``.
        """
        known = {}  # target -> the mean of the released recipe, that of the best trivial baseline
        for target in self.targets():
            means = self.means(target=target)
            _, trivial = best_trivial(means) or ("", 0.0)
            found = means.get(self.config.release.recipe)
            if found is not None:
                known[target] = found, number(trivial)
        if all(finite(found["miou"]) is None for found, _ in known.values()):
            return "There is no truth for these images: nobody has measured how good the masks are."
        found, rival = next(iter(known.values()))
        start = f"Against true masks of {found['split']} images the mean IoU"
        if len(known) == 1:
            return (
                f"{start} over {found['mean_over']} is {interval(found, 'miou')}; "
                f"that of the best trivial baseline is {rival}."
            )
        each = (
            f"{interval(found, 'miou')} for the target {told(target)}, over {found['mean_over']} "
            f"(best trivial baseline: {rival})"
            for target, (found, rival) in known.items()
        )
        return f"{start} is {'; '.join(each)}."


def write_card(facts: Facts) -> str:
    """The card in Markdown with a YAML front matter."""
    filters: dict[str, Any] = {
        "text": _text,
        "quoted": lambda value: json.dumps(value, ensure_ascii=False),
        "number": number,
        "percent": lambda value: "-" if value is None else f"{100 * value:.0f} %",
        "interval": interval,
        "median": lambda values: number(values.median(), 3),
    }  # Markdown: what comes of data passes through "text" or "quoted"
    environment = open_templates(_TEMPLATES, html=False, filters=filters)
    text = environment.get_template("card.md.j2").render(_context(facts))
    head, body = text.split("\n\n", 1)
    return f"{head}\n\n{_reflow(body)}"


def _context(facts: Facts) -> dict[str, Any]:
    options, table, images = facts.config.release, facts.table, facts.images
    baselines = facts.means()
    mine, learned = (baselines.pop(name, None) for name in (options.recipe, SEGMENTER))
    scored = facts.of_recipe()
    bounds = table[BOUND].drop_nulls().to_list()
    masks = {name: len(table.filter(finding=name)) for name in facts.findings}
    confidence = facts.bounds["confidence"] if facts.bounds else None
    steps = facts.config.recipes[options.recipe].binarize or []
    return {
        **vars(facts),
        "splits": [split for split in SPLITS if split in table["split"].unique()],
        "size": next((name for limit, name in _SIZES if len(table) < limit), "n>1M"),
        "hub": options.license.lower() if options.license in _LICENCES else "other",
        "licence_url": licence_url(options.license),
        "key": "".join(c for c in options.name.lower() if c.isalnum()) or "release",
        "summary": facts.summary(_text),
        "explained": int(images["explained"].sum()),
        "counts": [
            f"{len(rows)} {split} ({rows['patient_id'].n_unique()} patients)"
            for split in SPLITS
            if len(rows := images.filter(split=split))
        ],
        "steps": ", ".join(next(iter(step)) for step in steps),
        "scored": [mine, *scored.to_dicts()] if mine else [],
        "positive": facts.means(pairs="positive").get(options.recipe),
        "baselines": baselines,
        "learned": learned,
        "rank_only": RANK_ONLY,
        "bounds_known": len(bounds),
        "best_bound": tell(max(bounds, default=None), confidence),
        "sure": percent(confidence) if confidence else "",
        "worst": scored.drop_nulls("miou").sort("miou", "finding").head(5).to_dicts(),
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


def _text(value: str) -> str:
    """Text from data, harmless in Markdown and HTML."""
    escaped = value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{c}" if c in "\\`*[]|#!" else c for c in escaped.replace("\n", " "))


def licence_url(name: str) -> str:
    """Where the text of a licence is, by its SPDX name."""
    return _LICENCES.get(name, f"https://spdx.org/licenses/{name}.html")


def write_licence(options: ReleaseConfig) -> str:
    """The notice: of the labels, and of the images that they were made from."""
    return f"""{options.name} {options.version}

Labels (masks, tables, scores, texts) and models of this data set: {options.license}
{licence_url(options.license)}

They are derived from source images that are not part of it (but for the pictures of
contact-sheet.png, where it shows any). Licence of the source images, whose terms also hold for
what you make of both together: {options.source_license}
"""


def write_changes(options: ReleaseConfig) -> str:
    """The changelog, newest version first."""
    changes = options.changes or {options.version: ["First release."]}
    versions = sorted(changes, key=lambda v: tuple(map(int, v.split("."))), reverse=True)
    entries = (
        f"\n## {version}\n" + "".join(f"- {line}\n" for line in changes[version])
        for version in versions
    )
    return f"# Changelog of {options.name}\n" + "".join(entries)
