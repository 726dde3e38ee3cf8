"""Draw docs/figures: one plot for each experiment of docs/evidence.md, from the tables in docs/lab.

python docs/figures.py

Plots only: no picture of a patient is in them. Dots are means, lines 95 % intervals.
"""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import polars as pl

mpl.use("Agg")
from matplotlib import pyplot as plt

DOCS = Path(__file__).parent
OURS, OTHER, TRIVIAL = "#c8561b", "#2b7a86", "#8a8a8a"


def main() -> None:
    """Draw all of them."""
    mpl.rcParams |= {"svg.hashsalt": "dollmaker", "font.size": 9, "axes.axisbelow": True}
    (DOCS / "figures").mkdir(exist_ok=True)
    opacities()
    polyps()
    brain_mr()
    segmenters_looked_into()


def opacities() -> None:
    """Experiment 1: hit rates of maps against the readers' boxes, the best lever first."""
    rows = pl.read_csv(DOCS / "lab/2026-11-30-opacities.csv")
    named = {row["map"]: (row["hit_rate"], row["low"], row["high"]) for row in rows.to_dicts()}
    figure, axis = plt.subplots(figsize=(6.4, 3.4))
    shown = [*reversed(_LEVERS)]
    values = [named[name] for name in shown]
    intervals(axis, [_LEVERS[name][1] for name in shown], values, [_LEVERS[n][0] for n in shown])
    save(figure, axis, "opacities", "hit rate on 69 images: the map's maximum is in a reader's box")


#: Rows of the table of levers that are drawn: how, and under which name.
_LEVERS = {
    "six negatives, positive where brighter": ("ours", "six negatives, brighter (the recipe)"),
    "mean of negatives, positive where brighter": ("ours", "mean of negatives, brighter"),
    "six negatives, positive": ("ours", "six negatives, positive part"),
    "white, magnitude": ("ours", "white, magnitude"),
    "black, positive": ("ours", "black, positive part"),
    "mean and blur, positive": ("ours", "mean and blur, positive part (before)"),
    "saliency, positive": ("other", "gradient"),
    "layer_cam, positive": ("other", "LayerCAM"),
    "tokens, labels alone, top tenth": ("other", "DINOv2-derived tokens, labels alone"),
    "random networks 0": ("trivial", "the recipe, random networks"),
    "brighter than six negatives, times a bell in the centre (sigma 0.5)": (
        "trivial",
        "brighter than six negatives x centre, no network",
    ),
    "brighter than six negatives": ("trivial", "brighter than six negatives, no network"),
    "centre": ("trivial", "centre disk"),
    "mean box map of the other patients": ("trivial", "told boxes: mean of other patients"),
    "tokens, told the boxes": ("trivial", "told boxes: tokens, ridge regression"),
}


def polyps() -> None:
    """Experiment 2: mIoU of recipes as published and of trivial masks on held-out patches."""
    rows = (
        pl.read_csv(DOCS / "lab/2026-12-01-polyps.csv")
        .filter(pl.col("rule") == "as published")
        .sort("miou")
    )
    trivial = ("whole", "centre", "intensity")
    kinds = [
        "trivial" if name in trivial else "ours" if name in ("patches", "doll") else "other"
        for name in rows["recipe"]
    ]
    figure, axis = plt.subplots(figsize=(6.4, 3))
    intervals(
        axis, rows["recipe"].to_list(), rows.select("miou", "miou_low", "miou_high").rows(), kinds
    )
    axis.axvline(0.5, color="black", linewidth=0.8, linestyle=":")
    save(figure, axis, "polyps", "mIoU, held-out patches with a polyp (dotted: what was asked)")


def brain_mr() -> None:
    """Experiment 3: every seed of every start and rate, 200 steps."""
    runs = pl.read_csv(DOCS / "lab/2026-11-30-brain-mr.csv").filter(steps=200)
    runs = runs.sort("n", "start", "learning_rate")
    figure, axes = plt.subplots(1, 2, figsize=(6.4, 2.8), sharey=True)
    for axis, n in zip(axes, (5, 20), strict=True):
        for start, colour in (("imagenet", OTHER), ("doll", OURS)):
            mine = runs.filter((pl.col("n") == n) & (pl.col("start") == start))
            axis.plot(
                mine["learning_rate"],
                mine["test_tumour_slices"],
                "o",
                color=colour,
                alpha=0.5,
                markersize=4,
                label=start,
            )
        axis.set(xscale="log", xlabel="learning rate", title=f"n = {n} true masks")
        axis.grid(color="#dddddd")
    axes[0].axhline(0.496, color="black", linewidth=0.8, linestyle=":", label="no true mask")
    axes[0].set_ylabel("mIoU, tumour slices")
    axes[0].legend(frameon=False, loc="lower right")
    figure.savefig(DOCS / "figures/brain-mr.svg", bbox_inches="tight", metadata={"Date": None})


def segmenters_looked_into() -> None:
    """Experiment 4: share of relevance inside the prediction, by layer and method."""
    rows = pl.read_csv(DOCS / "lab/2026-11-30-seg-cam.csv").filter(pl.col("set") == "class")
    layers = rows["layer"].unique(maintain_order=True).to_list()
    figure, axis = plt.subplots(figsize=(6.4, 2.6))
    for method, colour, shift in (("seg_grad_cam", OTHER, -0.12), ("seg_hires_cam", OURS, 0.12)):
        mine = rows.filter(pl.col("method") == method)
        places = [layers.index(layer) + shift for layer in mine["layer"]]
        low, high = (
            mine["inside_prediction"] - mine["low"],
            mine["high"] - mine["inside_prediction"],
        )
        axis.errorbar(
            places,
            mine["inside_prediction"],
            (low, high),
            fmt="o",
            color=colour,
            markersize=4,
            label=method,
        )
    axis.set_xticks(range(len(layers)), layers, rotation=20)
    axis.set_ylabel("inside the prediction")
    axis.grid(color="#dddddd", axis="y")
    axis.legend(frameon=False)
    figure.savefig(DOCS / "figures/seg-cam.svg", bbox_inches="tight", metadata={"Date": None})


def intervals(
    axis: plt.Axes, names: Sequence[str], values: Sequence[tuple[float, ...]], kinds: Sequence[str]
) -> None:
    """Draw a row for each name: (mean, low, high)."""
    colours = {"ours": OURS, "other": OTHER, "trivial": TRIVIAL}
    for place, (value, kind) in enumerate(zip(values, kinds, strict=True)):
        mean, low, high = value
        axis.plot((low, high), (place, place), color=colours[kind], linewidth=2)
        axis.plot(mean, place, "o", color=colours[kind], markersize=5)
    axis.set_yticks(range(len(names)), names)


def save(figure: plt.Figure, axis: plt.Axes, name: str, label: str) -> None:
    """Finish and write a plot whose values go along x."""
    axis.set_xlim(left=0)
    axis.set_xlabel(label)
    axis.grid(color="#dddddd", axis="x")
    figure.savefig(DOCS / f"figures/{name}.svg", bbox_inches="tight", metadata={"Date": None})


if __name__ == "__main__":
    main()
