"""The page: everything it shows, as plain data for the template, which escapes all of it."""

import math
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from dollmaker import __version__
from dollmaker.evaluate.classifiers import COMMITTEE, MACRO
from dollmaker.evaluate.means import MEAN
from dollmaker.evaluate.tasks import NOTHING
from dollmaker.explain.page import MEASURES
from dollmaker.measures.baselines import BASELINES
from dollmaker.measures.words import headline_split
from dollmaker.pictures.charts import Chart
from dollmaker.pictures.sheet import data_uri, strip, to_png
from dollmaker.report.audit import audit
from dollmaker.report.examples import Examples
from dollmaker.report.gallery import Gallery
from dollmaker.report.gather import Results
from dollmaker.runtime.templates import open_templates

_TEMPLATES = Path(__file__).resolve().parent / "templates"


def render(
    results: Results,
    summary: dict[str, Any],
    charts: dict[str, Chart],
    galleries: dict[str, Gallery],
    examples: dict[str, Examples],
) -> str:
    """The report as one HTML text without outside references.

    Args:
        results: What was gathered.
        summary: The summary.
        charts: Chart name -> chart.
        galleries: Recipe -> gallery.
        examples: Task -> examples.
    """
    filters: dict[str, Any] = {
        "score": _score,
        "signed": _signed,
        "count": lambda value: f"{value:,}",
        "duration": _duration,
        "percent": _percent,
        "uri": data_uri,
        "strip": lambda tiles: data_uri(to_png(strip(tiles))),
    }
    environment = open_templates(_TEMPLATES, filters=filters)
    return environment.get_template("report.html.j2").render(
        version=__version__,
        config=results.config,
        config_text=yaml.safe_dump(results.config, sort_keys=False, allow_unicode=True),
        libraries=results.header.get("libraries", {}),
        members=results.members,
        segmenter=results.segmenter,
        explained=results.explanations,
        release=results.release,
        seconds={stage: value for stage, value in results.seconds.items() if value is not None},
        summary=summary,
        audit=audit(results),
        classifier=_classifier(results),
        masks=_masks(results),
        sanity=results.sanity,
        tasks={task: _task(results, task) for task in results.tasks},
        charts=charts,
        galleries=galleries,
        examples=examples,
        rival=_rival(summary["masks"]),
        gains=_gains(results),
        baselines=BASELINES,
        measures=MEASURES,
        released=results.config["release"]["recipe"],
    )


# --- numbers to text ----------------------------------------------------------------------------


def _score(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.3f}"  # noqa: RUF001


def _signed(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:+.3f}"  # noqa: RUF001


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _percent(value: float | None) -> str:
    """A share of 0..1 as a CSS length within 0..100 %."""
    good = value is not None and math.isfinite(value)
    return f"{100 * min(1.0, max(0.0, value)):.2f}%" if good and value is not None else "0%"


# --- sections -----------------------------------------------------------------------------------


def _rival(masks: dict[str, Any]) -> tuple[str, float] | None:
    """The best trivial baseline and its mIoU."""
    known = {name: masks[name]["miou"] or 0.0 for name in BASELINES if name in masks}
    return max(known.items(), key=lambda item: item[1], default=None)


def _gains(results: Results) -> dict[str, int]:
    """In how many settings the doll start, tuned in full, beats a random one; empty without any."""
    gains = results.scores.get("differences", pl.DataFrame())
    if gains.is_empty():
        return {}
    full = gains.filter(
        pl.col("class") == MEAN, init="doll", reference="random", tuning="full"
    ).select("low", "high")
    counts = {"better": (full["low"] > 0).sum(), "worse": (full["high"] < 0).sum()}
    return (
        {"of": len(full), **{name: int(count) for name, count in counts.items()}}
        if len(full)
        else {}
    )


def _classifier(results: Results) -> dict[str, Any] | None:
    table = results.scores.get("classifiers", pl.DataFrame())
    if table.is_empty():
        return None
    splits = [split for split in ("test", "valid") if split in set(table["split"])]
    committee = table.filter(pl.col("member") == COMMITTEE)
    return {
        "splits": {
            split: list(committee.filter(pl.col("split") == split).iter_rows(named=True))
            for split in splits
        },
        "members": list(
            table.filter(pl.col("finding") == MACRO, pl.col("split") == splits[0]).iter_rows(
                named=True
            )
        ),
        "split": splits[0],
        "macro": MACRO,
    }


def _masks(results: Results) -> dict[str, Any] | None:
    table = results.scores.get("masks", pl.DataFrame())
    split = headline_split(table)
    if split is None or results.truth is None:
        return None
    order = [*results.config["recipes"], *BASELINES]
    sections = []
    for target in results.truth.targets:
        here = table.filter(pl.col("target") == target, pl.col("split") == split)
        means = {
            (row["recipe"], row["slice"]): row
            for row in here.filter(pl.col("finding") == MEAN).iter_rows(named=True)
        }
        each = {
            (row["recipe"], row["finding"]): row
            for row in here.filter(pl.col("slice") == "full").iter_rows(named=True)
        }
        findings = [f for f in results.findings if any((r, f) in each for r in order)]
        sections.append(
            {
                "target": target,
                "means": {
                    name: [row for recipe in order if (row := means.get((recipe, name)))]
                    for name in ("full", "positive")
                },
                "over": next(iter(means.values()))["mean_over"],
                "findings": findings,
                "recipes": [recipe for recipe in order if (recipe, "full") in means],
                "each": each,
            }
        )
    return {
        "split": split,
        "sections": sections,
        "gates": _gates(table),
        "others": [
            s for s in ("test", "valid", "train") if s != split and s in set(table["split"])
        ],
        "by_split": {
            (row["recipe"], row["split"]): row
            for row in table.filter(
                pl.col("target") == results.truth.targets[0],
                pl.col("finding") == MEAN,
                pl.col("slice") == "full",
            ).iter_rows(named=True)
        },
        "order": order,
    }


#: Who says that a finding is there -> what that means for a score.
_GATES = {
    "label": "the label says that the finding is there: scores say where, not whether",
    "model": "the model finds it likely, whatever the label, as on CheXlocalize's own set: what "
    "the model misses and its false alarms count",
    "label and model": "label and model both say so: what the model misses counts, false alarms "
    "are not drawn",
    "label or model": "label or model says so: the model's false alarms count",
    "nothing": "it is explained at all: every pair has one",
}


def _gates(table: pl.DataFrame) -> dict[str, list[str]]:
    """What decides which pairs have a mask -> recipes."""
    found: dict[str, list[str]] = {}
    for recipe, gate in table.select("recipe", "gated_by").unique(maintain_order=True).iter_rows():
        if gate is not None:
            found.setdefault(_GATES[gate], []).append(recipe)
    return found


def _task(results: Results, task: str) -> dict[str, Any]:
    scores = results.scores.get("tasks", pl.DataFrame())
    if scores.is_empty():
        return {"rows": [], "classes": [], "each": {}}
    mine = scores.filter(pl.col("task") == task)
    gains = {
        (row["init"], row["tuning"], row["n"], row["reference"]): row
        for row in results.scores["differences"]
        .filter(pl.col("task") == task, pl.col("class") == MEAN)
        .iter_rows(named=True)
    }
    order = list(results.tasks[task])
    rows = [
        row
        | {
            "random": gains.get((row["init"], row["tuning"], row["n"], "random")),
            "imagenet": gains.get((row["init"], row["tuning"], row["n"], "imagenet")),
        }
        for row in mine.filter(pl.col("class") == MEAN).iter_rows(named=True)
        if f"{row['init']}-{row['tuning']}" in order
    ]
    rows.sort(key=lambda row: (row["n_images"], order.index(f"{row['init']}-{row['tuning']}")))
    trivial = pl.col("class") == MEAN, pl.col("tuning") == NOTHING
    none = {"random": None, "imagenet": None}
    rows += [row | none for row in mine.filter(*trivial).iter_rows(named=True)]
    classes = [name for name in mine["class"].unique(maintain_order=True) if name != MEAN]
    each = {
        (row["init"], row["tuning"], row["n"], row["class"]): row
        for row in mine.iter_rows(named=True)
    }
    return {"rows": rows, "classes": classes, "each": each}
