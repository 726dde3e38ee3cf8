"""The charts of a report and of a study."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
from matplotlib.figure import Figure

from dollmaker.evaluate.classifiers import COMMITTEE, MACRO
from dollmaker.evaluate.means import MEAN
from dollmaker.evaluate.tasks import MEAN as TASK_MEAN
from dollmaker.measures.baselines import BASELINES, MEAN_MAP
from dollmaker.measures.words import headline_split
from dollmaker.pictures.charts import SERIES, Chart, chart
from dollmaker.release.parts import Row
from dollmaker.report.gather import Results
from dollmaker.store import tables

#: Colour of each start; told apart by lightness as well (Okabe and Ito 2008).
INIT_COLOURS = {
    "random": "#8c8f99",
    "imagenet": "#e69f00",
    "classifier": "#009e73",
    "doll": "#3f7fd6",
    "doll+multi-task": "#56b4e9",
    "doll+structure": "#d55e00",
    "structure": "#cc79a7",
}

_TUNING_LINES: dict[str, Any] = {
    "full": "-",
    "adapter": "--",
    "head": ":",
    "bias": "-.",
    "decoder": (0, (5, 1)),
    "lora": (0, (3, 1, 1, 1, 1, 1)),
}


def make_charts(results: Results) -> dict[str, Chart]:
    """All charts of a report by name.

    ``classifier-curves``, ``reliability``, ``recipes``, ``segmenter`` and ``task-{task}``.
    """
    charts = {}
    curves = {name: model.get("curve") or [] for name, model in results.members.items()}
    if any(curves.values()):
        title = "Validation macro AUROC"
        charts["classifier-curves"] = _training_curves(curves, "valid_macro_auroc", title, 3)
    known = results.table("classifiers")
    if "bin_counts" in known.columns:
        whole = known.filter(member=COMMITTEE, finding=MACRO)
        charts["reliability"] = _reliability({row["split"]: row for row in whole.to_dicts()})
    masks = results.table("masks")
    split = headline_split(masks)
    if split is not None and results.truth is not None:
        target = results.truth.targets[0]
        told = f", target {target}" if len(results.truth.targets) > 1 else ""
        means = masks.filter(split=split, target=target, finding=MEAN)
        charts["recipes"] = _recipe_chart(means, told)
    if results.segmenter and results.segmenter.get("curve"):
        curve, title = {"": results.segmenter["curve"]}, "Validation mIoU (against pseudo-masks)"
        charts["segmenter"] = _training_curves(curve, "valid_miou", title, 2.8)
    for task, runs in results.tasks.items():
        files = {run: folder / "curve.parquet" for run, folder in runs.items()}
        there = {run: tables.read(file) for run, file in files.items() if file.exists()}
        if there:
            charts[f"task-{task}"] = task_curves(there)
    return charts


def _training_curves(
    curves: Mapping[str, Sequence[Row]], score: str, title: str, height: float
) -> Chart:
    """Training loss and validation score of each network by epoch."""

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        for number, (name, curve) in enumerate(curves.items()):
            for axis, key in ((left, "loss"), (right, score)):
                known = [row for row in curve if None not in (row.get("epoch"), row.get(key))]
                if known:
                    x, y = [row["epoch"] for row in known], [row[key] for row in known]
                    colour = SERIES[number % len(SERIES)]
                    axis.plot(x, y, color=colour, label=name, marker="o", markersize=3)
        left.set(title="Training loss", xlabel="epoch")
        right.set(title=title, xlabel="epoch")
        for axis in (left, right):
            axis.xaxis.get_major_locator().set_params(integer=True)
        if len(curves) > 1 or "" not in curves:
            right.legend(loc="best")

    return chart(draw, (9, height))


def _reliability(curves: Mapping[str, Row]) -> Chart:
    """What the committee says against what is there, by split: calibrated on the diagonal."""

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        axis.plot([0, 1], [0, 1], color=SERIES[-1], linewidth=1, linestyle=":")
        for number, (split, row) in enumerate(curves.items()):
            bins = zip(row["bin_said"], row["bin_there"], row["bin_counts"], strict=True)
            points = [one for one in bins if one[2]]
            said, there, counts = zip(*points, strict=True) if points else ((), (), ())
            colour = SERIES[number % len(SERIES)]
            axis.plot(said, there, color=colour, label=f"{split}, ECE {row['ece']:.3f}")
            axis.scatter(said, there, s=[4 + 60 * c / max(counts) for c in counts], color=colour)
        axis.set(xlabel="probability", ylabel="share with the finding", xlim=(0, 1), ylim=(0, 1))
        axis.legend(loc="best")

    return chart(draw, (4.5, 3.6))


def _recipe_chart(masks: pl.DataFrame, target: str) -> Chart:
    """Mean IoU of recipes and trivial baselines with intervals, both slices, from the mean rows."""
    names = masks["recipe"].unique(maintain_order=True).to_list()
    over = masks["mean_over"][0]

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        for place, name in enumerate(names):
            colour = SERIES[6] if name in (MEAN_MAP, *BASELINES) else SERIES[0]
            for slice_name, offset, fill in (("full", -0.13, colour), ("positive", 0.13, "none")):
                for row in masks.filter(recipe=name, slice=slice_name).to_dicts():
                    y, ends = place + offset, [row["miou_low"], row["miou_high"]]
                    axis.plot(ends, [y, y], color=colour, linewidth=2)
                    axis.plot(row["miou"], y, "o", color=colour, markerfacecolor=fill, markersize=7)
        axis.set_yticks(range(len(names)), names)
        axis.set(xlabel=f"mean IoU over {over}{target}", ylim=(len(names) - 0.4, -0.6))
        axis.set_xlim(left=0)
        axis.plot([], [], "o", color=SERIES[0], label="all pairs (full)")
        axis.plot([], [], "o", color=SERIES[0], markerfacecolor="none", label="true positives only")
        axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)

    return chart(draw, (8, 1.1 + 0.42 * len(names)))


def task_curves(curves: Mapping[str, pl.DataFrame]) -> Chart:
    """Validation mIoU while fine-tuning: the figure that says what a start is worth.

    ``curves`` are curve.parquet of runs called ``{init}-{tuning}``. Lines are means over seeds,
    bands reach from the lowest to the highest seed.
    """
    amounts: dict[str, int] = {}
    for table in curves.values():
        amounts |= dict(table.select(pl.col("n").cast(pl.String), "n_images").iter_rows())
    ordered = sorted(amounts, key=lambda n: amounts[n])

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, len(ordered), sharey=True, squeeze=False)[0]
        for axis, n in zip(axes, ordered, strict=True):
            for run, table in curves.items():
                init, _, tuning = run.rpartition("-")
                points = (
                    table.filter(pl.col("n").cast(pl.String) == n, pl.col("valid_miou").is_finite())
                    .group_by("step")
                    .agg(
                        pl.col("epoch").mean(),
                        pl.col("valid_miou").mean().alias("mean"),
                        pl.col("valid_miou").min().alias("low"),
                        pl.col("valid_miou").max().alias("high"),
                    )
                    .sort("step")
                )
                colour = INIT_COLOURS.get(init, SERIES[3])
                style = {"linestyle": _TUNING_LINES.get(tuning, "-"), "label": f"{init}, {tuning}"}
                _band(axis, points.drop("step"), colour, **style)
            axis.set(title=f"{amounts[n]} training images", xlabel="epoch")
        axes[0].set(ylabel="validation mIoU")
        axes[0].set_ylim(bottom=0)
        _legend(figure, axes[0])

    return chart(draw, (max(5.0, 3.6 * len(ordered) + 1), 3.7))


def amount_curves(study: pl.DataFrame) -> Chart:
    """Test mIoU over the number of training images, one panel a tuning, one line a start.

    ``study`` are rows of study.parquet of one architecture and task; intervals are drawn as bands.
    """
    means = study.filter(pl.col("class") == TASK_MEAN)
    tunings = means["tuning"].unique(maintain_order=True).to_list()

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, len(tunings), sharey=True, squeeze=False)[0]
        for axis, tuning in zip(axes, tunings, strict=True):
            for number, init in enumerate(means["init"].unique(maintain_order=True)):
                rows = means.filter(tuning=tuning, init=init).sort("n_images")
                colour = INIT_COLOURS.get(init, SERIES[number % len(SERIES)])
                points = rows.select("n_images", "miou", "miou_low", "miou_high")
                _band(axis, points, colour, marker="o", label=init)
            amounts = sorted(set(means["n_images"]))
            axis.set(title=tuning, xlabel="training images", xscale="log")
            axis.set_xticks(amounts, [str(amount) for amount in amounts])
            axis.minorticks_off()
        axes[0].set(ylabel="test mIoU")
        _legend(figure, axes[0])

    return chart(draw, (max(5.0, 3.4 * len(tunings) + 1), 3.9))


def _band(axis: Any, points: pl.DataFrame, colour: str, **style: Any) -> None:
    """A line through x and y of the points, and a band from their third to their fourth column."""
    x, y, low, high = points
    axis.plot(x, y, color=colour, **style)
    axis.fill_between(x, low, high, color=colour, alpha=0.13, linewidth=0)


def _legend(figure: Figure, axis: Any) -> None:
    handles, names = axis.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(4, len(names)))
