"""The stage: scores/recipes.parquet, its pairs, a table to read and two pictures."""

from pathlib import Path
from typing import Any

import polars as pl

from dollmaker.binarize.choice import Cuts, read_thresholds
from dollmaker.compare import picture
from dollmaker.compare.report import write_report
from dollmaker.compare.rules import RECIPES, apply_rules, is_tuning, summarize_rules
from dollmaker.compare.timing import time_recipes
from dollmaker.config import settings as configuration
from dollmaker.config.whole import Config
from dollmaker.evaluate.masks import score_pairs
from dollmaker.evaluate.truth import load_truth, require_sound
from dollmaker.runtime.errors import DataError
from dollmaker.store import findings, provenance, tables
from dollmaker.store.files import atomic_path, read_json, write_text
from dollmaker.store.findings import PRESENT
from dollmaker.store.index import read_index


def compare(config: dict[str, Any], results: Path, data_root: Path) -> None:
    """Score all recipes side by side.

    Reads what the earlier stages wrote under ``results`` and writes ``scores/recipes.parquet``,
    ``scores/recipe_pairs.parquet`` and ``comparison/`` (README.md, scores.png, masks.png).

    Args:
        config: The resolved configuration; recipes of the comparison are added.
        results: ``results/{dataset}``.
        data_root: Folder of the source data, for the truth.

    Raises:
        DataError: If there is no truth, or none of an explained pair.
    """
    config = configuration.complete(Config.model_validate(config)).dump()
    index_file = results / "index.parquet"
    index, names = read_index(index_file)
    localized = findings.localized(names, config["attribute"]["findings"])
    truth = load_truth(config, data_root, localized)
    if truth is None:
        raise DataError("there is no truth to compare recipes by; describe it in section truth.")
    cuts = _cuts(config, results)
    images, relevance, masks = (results / name for name in ("images", "relevance", "masks"))
    pairs = score_pairs(config, index, localized, images, relevance, masks, truth, cuts)
    pairs = pairs.drop("label", "probability", "explained")  # the same of all
    if pairs.is_empty():
        raise DataError(
            "no explained pair has a true mask; check section truth and attribute.max_images."
        )
    require_sound(truth, "truth.targets")
    options, seed = config["compare"], config["seed"]
    ruled = apply_rules(pairs, cuts, tuning=options["tuning"], few=options["few"])
    scoring = config["evaluate"]
    summary = summarize_rules(
        ruled, localized, scoring["bootstrap"], seed, min_pairs=scoring["min_pairs"]
    )
    timed = _timed(index.filter(pl.col("image_id").is_in(pairs["image_id"].unique())), localized)
    seconds = time_recipes(
        config, index_file, timed[: 1 + options["timed"]], names, results / "images",
        results / "committee", cuts,
    )  # fmt: skip
    spent = pl.DataFrame({"recipe": list(seconds), "seconds": list(seconds.values())})
    summary = summary.join(spent, on="recipe", how="left").select(list(RECIPES))
    header = provenance.header("compare", options, seed=seed)
    header["targets"] = truth.targets
    tables.write(summary, results / "scores/recipes.parquet", header)
    tables.write(pairs, results / "scores/recipe_pairs.parquet", header)
    sanity = {name: read_json(results / "sanity" / f"{name}.json") for name in config["recipes"]}
    tuned = sum(is_tuning(p, options["tuning"]) for p in pairs["patient_id"].unique())
    with atomic_path(results / "comparison") as folder:
        folder.mkdir()
        write_text(folder / "README.md", write_report(config, summary, ruled, sanity, tuned))
        (folder / "scores.png").write_bytes(picture.scores_chart(summary, truth.targets[0]))
        (folder / "masks.png").write_bytes(picture.mask_sheet(config, index, pairs, results, truth))


def _cuts(config: dict[str, Any], results: Path) -> dict[str, Cuts]:
    donors = {name: Config.model_validate(config).donor(name) for name in config["recipes"]}
    return {
        name: read_thresholds(results / "thresholds" / f"{donor}.parquet")
        for name, donor in donors.items()
    }


def _timed(rows: pl.DataFrame, localized: list[str]) -> pl.DataFrame:
    positive = pl.any_horizontal([pl.col(name) == PRESENT for name in localized])
    return rows.filter(positive).sort("image_id")
