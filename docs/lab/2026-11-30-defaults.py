"""The default recipe of before and of today on a run's committee, against true masks.

python docs/lab/2026-11-30-defaults.py CONFIG RESULTS TRUTH MOST FOLDER >> TABLE

RESULTS is results/NAME after `snakemake --configfile CONFIG`, TRUTH the folder that its truth lies
under, MOST how many images of each split are explained, FOLDER is for maps and masks. Rows of CSV
go to the output: pairs whose finding is there, with 95 % intervals over patients.
"""

import csv
import sys
from pathlib import Path
from typing import Any

import polars as pl

from dollmaker.attribute.stage import Inputs, explain_shard
from dollmaker.binarize.stage import binarize_shard
from dollmaker.config import settings
from dollmaker.evaluate.masks import Folders, score_pairs
from dollmaker.evaluate.stage import load_truth
from dollmaker.measures.scores import bootstrap_interval
from dollmaker.store.findings import localized
from dollmaker.store.tables import read_index

OTSU: list[dict[str, Any]] = [{"gate": {}}, {"otsu": {}}, {"clean": {}}]
CRF: list[dict[str, Any]] = [{"gate": {}}, {"otsu": {}}, {"dense_crf": {"unary": "map"}}]


def main(source: str, results: Path, truth_root: Path, most: int, folder: Path) -> None:
    """Explain, cut and score."""
    tree = settings.read(source)
    before = {"nodes": 8, "baselines": ["black"], "smoothing": 1.0}
    tree["recipes"] = {
        "before": {"attribute": before, "binarize": OTSU},
        "before, CRF": {"attribute": "before", "binarize": CRF},
        "today": {"attribute": {"nodes": 8}, "binarize": CRF},
        "today, Otsu alone": {"attribute": "today", "binarize": OTSU},
    }
    tree = {key: value for key, value in tree.items() if key not in ("tasks", "adapt", "study")}
    tree["attribute"] = {**tree.get("attribute", {}), "max_images": most}
    tree["release"] = {**tree["release"], "recipe": "today"}
    config = settings.resolved(tree)
    index, names = read_index(results / "index.parquet")
    members = [results / "committee" / name for name in config.classify.members]
    inputs = Inputs(index=results / "index.parquet", images=results / "images", committee=members)
    folders = Folders(
        images=results / "images", relevance=folder / "relevance", masks=folder / "masks"
    )
    for shard in sorted(index["shard"].unique()):
        for recipe in config.recipes:
            maps = folders.relevance / config.donor(recipe) / f"{shard}.h5"
            mask = folders.masks / recipe / f"{shard}.h5"
            for path in (maps, mask):
                path.parent.mkdir(parents=True, exist_ok=True)
            if not maps.exists():
                explain_shard(config, inputs, recipe, shard, maps)
            binarize_shard(config, folders.images / f"{shard}.h5", maps, recipe, mask)
    findings = localized(names, config.attribute.findings)
    truth = load_truth(config, truth_root, findings)
    pairs = score_pairs(config, index, findings, folders, truth)
    there = pairs.filter((pl.col("truth_area") > 0) & (pl.col("label") == 1))
    out = csv.writer(sys.stdout)
    keys = ["target", "recipe", "test"]
    of_test = there.with_columns(test=pl.col("split") == "test")
    for key, rows in of_test.group_by(keys, maintain_order=True):
        band = bootstrap_interval(rows["iou"].to_numpy(), rows["patient_id"].to_numpy())
        columns = rows.select("hit", "mask_area", "truth_area").to_numpy()
        out.writerow(
            [config.dataset, *key, len(rows), *(f"{x:.4f}" for x in (*band, *columns.mean(0)))]
        )


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
