"""The page: everything it shows, as plain data for the template, which escapes all of it."""

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from dollmaker import __version__
from dollmaker.classify.labels import few, learns, lessons
from dollmaker.evaluate.classifiers import COMMITTEE, MACRO
from dollmaker.evaluate.means import MEAN
from dollmaker.evaluate.tasks import NOTHING
from dollmaker.explain.measures import MEASURES
from dollmaker.measures.baselines import BASELINES, MEAN_MAP, SEGMENTER, best_trivial
from dollmaker.measures.words import finite, headline_split
from dollmaker.pictures.charts import Chart
from dollmaker.pictures.overlay import data_uri, strip, to_png
from dollmaker.release.parts import SPLITS, Row, Tree
from dollmaker.release.sanity import judged
from dollmaker.report.gather import Results
from dollmaker.report.pictures import Examples, Gallery
from dollmaker.runtime.templates import open_templates
from dollmaker.store.findings import ABSENT, PRESENT, UNCERTAIN

_TEMPLATES = Path(__file__).resolve().parent / "templates"

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


def render(
    results: Results,
    summary: Tree,
    charts: Mapping[str, Chart],
    galleries: Mapping[str, Gallery],
    examples: Mapping[str, Examples],
) -> str:
    """The report as one HTML text without outside references.

    Charts go by their names, galleries by recipe, examples by task.
    """
    filters: dict[str, Any] = {
        "score": lambda value: _number(value, ".3f"),
        "signed": lambda value: _number(value, "+.3f"),
        "count": lambda value: f"{value:,}",
        "duration": _duration,
        "percent": _percent,
        "uri": data_uri,
        "strip": lambda tiles: data_uri(to_png(strip(tiles))),
    }
    environment = open_templates(_TEMPLATES, filters=filters)
    released, masks = results.config.release.recipe, _masks(results)
    return environment.get_template("report.html.j2").render(
        vars(results),
        version=__version__,
        config_text=yaml.safe_dump(results.config.dump(), sort_keys=False, allow_unicode=True),
        libraries=results.header.get("libraries", {}),
        explained=results.explanations,
        seconds={stage: value for stage, value in results.seconds.items() if value is not None},
        summary=summary,
        audit=_audit(results),
        classifier=_classifier(results),
        masks=masks,
        tasks={task: _task(results, task) for task in results.tasks},
        charts=charts,
        galleries=galleries,
        examples=examples,
        headline=_headline(masks, released),
        gains=_gains(results),
        baselines=(MEAN_MAP, *BASELINES),
        measures=MEASURES,
        released=released,
        verdict=judged(results.sanity.get(released, {})),
    )


# --- numbers to text ----------------------------------------------------------------------------


def _number(value: float | None, form: str) -> str:
    return "–" if finite(value) is None else format(value, form)  # noqa: RUF001


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _percent(value: float | None) -> str:
    """A share of 0..1 as a CSS length within 0..100 %."""
    if value is None or not math.isfinite(value):
        return "0%"
    return f"{100 * min(1.0, max(0.0, value)):.2f}%"


# --- the data -----------------------------------------------------------------------------------


def _audit(results: Results) -> Tree:
    """What is in the data set: splits, findings, views, what was left out."""
    index = results.index
    splits = [
        {
            "name": split,
            "images": len(rows := index.filter(split=split)),
            "patients": rows["patient_id"].n_unique(),
            "masks": rows["mask"].count(),
        }
        for split in SPLITS
    ]
    confounding: dict[str, dict[str, Row]] = {}  # finding -> part -> its row
    for row in results.confounding.to_dicts():
        confounding.setdefault(row["finding"], {})[row["part"]] = row
    views = index["view"].value_counts(sort=True).iter_rows()
    options = results.config.classify
    counts = lessons(index.filter(split="train"), results.names, options)
    patients = index.group_by("patient_id").agg(pl.col("split").n_unique())
    return {
        "splits": splits,
        "total": {"images": len(index), "patients": index["patient_id"].n_unique()},
        "findings": [_finding(index, name) for name in results.names],
        "views": [(view or "not given", count) for view, count in views],
        "shared": patients.filter(pl.col("split") > 1).height,
        "quarantine": results.header.get("quarantine", []),
        "sizes": [_range(index[side].to_list()) for side in ("width", "height")],
        "confounding": confounding,
        "few": few(counts) if learns(options) else "",
    }


def _range(values: list[int]) -> str:
    low, high = min(values, default=0), max(values, default=0)
    return str(low) if low == high else f"{low} to {high}"


def _finding(index: pl.DataFrame, name: str) -> Row:
    column = index[name]
    codes = {"present": PRESENT, "absent": ABSENT, "uncertain": UNCERTAIN}
    counts = {key: int((column == code).sum()) for key, code in codes.items()}
    counts["blank"] = column.null_count()
    total = max(1, len(column))
    shares = {key: 100 * count / total for key, count in counts.items()}
    present = index.filter(column == PRESENT)["split"].to_list()
    by_split = {split: present.count(split) for split in SPLITS}
    return {"name": name, **counts, "shares": shares, "by_split": by_split}


# --- scores -------------------------------------------------------------------------------------


def _headline(masks: Tree | None, released: str) -> list[Tree]:
    """Of every target the mean of the released recipe, and the best trivial baseline's mIoU."""
    shown = []
    for section in masks["sections"] if masks else []:
        rows = {row["recipe"]: row for row in section["means"]["full"]}
        if released in rows:
            facts = {"mean": rows[released], "rival": best_trivial(rows)}
            shown.append({"target": section["target"], **facts})
    return shown


def _gains(results: Results) -> Tree:
    """In how many settings the doll start, tuned in full, beats the best other start.

    A setting is a task and a number of training images. ``others`` counts the settings that a start
    is the best other one of, ``images`` is the range of the tasks' test images. Empty without any.
    """
    gains, scores = results.table("differences"), results.table("tasks")
    setting = {"class": MEAN, "init": "doll", "tuning": "full"}
    best: dict[tuple[str, str], Row] = {}  # the better the other start, the less is left
    for row in [] if gains.is_empty() else gains.filter(**setting).to_dicts():
        place = row["task"], row["n"]
        if place not in best or _least(row) < _least(best[place]):
            best[place] = row
    if not best:
        return {}
    rows = list(best.values())
    mine = scores.filter(pl.col("task").is_in([row["task"] for row in rows]), **setting)
    return {
        "of": len(rows),
        "better": sum((finite(row["low"]) or 0.0) > 0 for row in rows),
        "worse": sum((finite(row["high"]) or 0.0) < 0 for row in rows),
        "others": Counter(row["reference"] for row in rows).most_common(),
        "images": _range(mine["images"].to_list()),
    }


def _least(row: Row) -> float:
    """A difference to sort by; one that is not known comes last."""
    return math.inf if finite(row["difference"]) is None else float(row["difference"])


def _classifier(results: Results) -> Tree | None:
    table = results.table("classifiers")
    if table.is_empty():
        return None
    splits = [split for split in ("test", "valid") if split in set(table["split"])]
    committee = table.filter(member=COMMITTEE)
    return {
        "splits": {split: committee.filter(split=split).to_dicts() for split in splits},
        "members": table.filter(finding=MACRO, split=splits[0]).to_dicts(),
        "split": splits[0],
        "macro": MACRO,
    }


def _masks(results: Results) -> Tree | None:
    table = results.table("masks")
    split = headline_split(table)
    if split is None or results.truth is None:
        return None
    order = [*results.config.recipes, SEGMENTER, MEAN_MAP, *BASELINES]
    means = table.filter(finding=MEAN)
    sections = []
    for target in results.truth.targets:
        found = {
            (row["recipe"], row["slice"]): row
            for row in means.filter(target=target, split=split).to_dicts()
        }
        full = table.filter(target=target, split=split, slice="full")
        each = {(row["recipe"], row["finding"]): row for row in full.to_dicts()}
        sections.append(
            {
                "target": target,
                "means": {
                    name: [row for recipe in order if (row := found.get((recipe, name)))]
                    for name in ("full", "positive")
                },
                "over": next(iter(found.values()))["mean_over"],
                "findings": [f for f in results.findings if any((r, f) in each for r in order)],
                "recipes": [recipe for recipe in order if (recipe, "full") in found],
                "each": each,
            }
        )
    gates: dict[str, list[str]] = {}  # what decides which pairs have a mask -> recipes
    for recipe, gate in table.select("recipe", "gated_by").unique(maintain_order=True).iter_rows():
        if gate is not None:
            gates.setdefault(_GATES[gate], []).append(recipe)
    headline = means.filter(target=results.truth.targets[0], slice="full")
    return {
        "split": split,
        "sections": sections,
        "gates": gates,
        "others": [s for s in reversed(SPLITS) if s != split and s in set(table["split"])],
        "by_split": {(row["recipe"], row["split"]): row for row in headline.to_dicts()},
        "order": order,
    }


def _task(results: Results, task: str) -> Tree:
    scores = results.table("tasks")
    if scores.is_empty():
        return {"rows": [], "classes": [], "each": {}}
    mine = scores.filter(task=task)
    means = mine.filter(pl.col("class") == MEAN)
    gains = {
        (row["init"], row["tuning"], row["n"], row["reference"]): row
        for row in results.table("differences").filter(**{"task": task, "class": MEAN}).to_dicts()
    }
    order = list(results.tasks[task])
    rows = [
        row | {name: gains.get((*_setting(row), name)) for name in ("random", "imagenet")}
        for row in means.to_dicts()
        if f"{row['init']}-{row['tuning']}" in order
    ]
    rows.sort(key=lambda row: (row["n_images"], order.index(f"{row['init']}-{row['tuning']}")))
    none = {"random": None, "imagenet": None}
    rows += [row | none for row in means.filter(tuning=NOTHING).to_dicts()]
    classes = [name for name in mine["class"].unique(maintain_order=True) if name != MEAN]
    each = {(*_setting(row), row["class"]): row for row in mine.to_dicts()}
    return {"rows": rows, "classes": classes, "each": each}


def _setting(row: Row) -> tuple[str, str, str]:
    return row["init"], row["tuning"], row["n"]
