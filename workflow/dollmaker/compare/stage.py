"""The stage: scores/recipes.parquet, its pairs, a table to read and two pictures."""

import time
from collections.abc import Mapping
from pathlib import Path

import polars as pl
import torch

from dollmaker.attribute.committee import Committee, Setup, experts
from dollmaker.attribute.stage import read_negatives
from dollmaker.binarize.label_free import Cuts, read_thresholds
from dollmaker.binarize.stage import Cutter
from dollmaker.binarize.steps import make_chain
from dollmaker.classify.labels import label_matrix
from dollmaker.compare.report import mask_sheet, scores_chart, write_report
from dollmaker.compare.rules import RECIPES, apply_rules, is_tuning, summarize_rules
from dollmaker.config import catalogue
from dollmaker.config.settings import complete
from dollmaker.config.whole import Config
from dollmaker.evaluate.masks import Folders, score_pairs
from dollmaker.evaluate.stage import load_truth
from dollmaker.networks.frames import frames_of
from dollmaker.networks.member import load_member
from dollmaker.pixels.truth import require_sound
from dollmaker.runtime import devices
from dollmaker.runtime.errors import DataError
from dollmaker.runtime.progress import Progress
from dollmaker.store import findings, provenance, tables
from dollmaker.store.files import atomic_path, read_json, write_text
from dollmaker.store.findings import PRESENT
from dollmaker.store.shards import ImageShards
from dollmaker.store.tables import read_index


def compare(config: Config, results: Path, data_root: Path) -> None:
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
    config = complete(config)
    index, names = read_index(results / "index.parquet")
    localized = findings.localized(names, config.attribute.findings)
    truth = load_truth(config, data_root, localized)
    if truth is None:
        raise DataError("there is no truth to compare recipes by; describe it in section truth.")
    cuts = {
        name: read_thresholds(results / "thresholds" / f"{config.donor(name)}.parquet")
        for name in config.recipes
    }
    folders = Folders(**{name: results / name for name in ("images", "relevance", "masks")})
    pairs = score_pairs(config, index, localized, folders, truth, cuts)
    pairs = pairs.drop("label", "probability", "explained")  # the same of all
    if pairs.is_empty():
        raise DataError(
            "no explained pair has a true mask; check section truth and attribute.max_images."
        )
    require_sound(truth, "truth.targets")
    options, scoring = config.compare, config.evaluate
    ruled = apply_rules(pairs, cuts, tuning=options.tuning, few=options.few)
    summary = summarize_rules(
        ruled, localized, scoring.bootstrap, config.seed, min_pairs=scoring.min_pairs
    )
    positive = pl.any_horizontal([pl.col(name) == PRESENT for name in localized])
    scored = index.filter(pl.col("image_id").is_in(pairs["image_id"].unique()) & positive)
    timed = scored.sort("image_id")[: 1 + options.timed]
    seconds = time_recipes(config, timed, names, results, cuts)
    spent = pl.DataFrame({"recipe": list(seconds), "seconds": list(seconds.values())})
    summary = summary.join(spent, on="recipe", how="left").select(list(RECIPES))
    header = provenance.header("compare", options.dump(), seed=config.seed)
    header["targets"] = truth.targets
    tables.write(summary, results / "scores/recipes.parquet", header)
    tables.write(pairs, results / "scores/recipe_pairs.parquet", header)
    sanity = {name: read_json(results / "sanity" / f"{name}.json") for name in config.recipes}
    tuned = sum(is_tuning(p, options.tuning) for p in pairs["patient_id"].unique())
    with atomic_path(results / "comparison") as folder:
        folder.mkdir()
        write_text(folder / "README.md", write_report(config, summary, ruled, sanity, tuned))
        (folder / "scores.png").write_bytes(scores_chart(summary, truth.targets[0]))
        (folder / "masks.png").write_bytes(mask_sheet(config, index, pairs, results, truth))


def time_recipes(
    config: Config,
    rows: pl.DataFrame,
    names: list[str],
    results: Path,
    cuts: Mapping[str, Cuts],
) -> dict[str, float]:
    """Seconds that each recipe takes for an image with all its positive findings, one by one.

    Rows of the index are at least two, each with a positive finding. The first image warms up and
    is not counted (a committee measures its memory then).
    """
    device = devices.choose(config.device)
    size, fit = config.prepare.size, config.prepare.fit
    index, every = read_index(results / "index.parquet")
    header = tables.read_header(results / "index.parquet")
    images = ImageShards(results / "images")
    stored = [torch.from_numpy(images.read(*p)) for p in rows.select("shard", "row").rows()]
    labels = label_matrix(rows, names)
    seconds: dict[str, float] = {}
    progress = Progress("time recipes", len(config.recipes) * len(stored))
    for name, recipe in config.recipes.items():
        folders = catalogue.committee(config, name)
        members = [load_member(results / "committee" / member, device) for member in folders]
        maps = config.maps(name)
        setup = Setup(
            channel_mean=torch.tensor(header["channel_mean"]),
            size=size,
            negatives=read_negatives(config, maps, index, every, results / "images"),
            seed=config.seed,
            precision=config.attribute.precision,
            compiled=config.attribute.compile,
            chunk=config.attribute.chunk or 8,
        )
        committee = Committee(members, maps, setup)
        cutter = Cutter(steps=recipe.binarize, chain=make_chain(recipe.binarize), cuts=cuts[name])
        spent = []
        for number, image in enumerate(stored):
            started = time.perf_counter()
            outputs = [
                k for k in range(len(names)) if labels[number, k] == PRESENT and experts(members, k)
            ]
            wanted = [(0, k) for k in outputs]
            frame = frames_of(rows[number : number + 1], size, fit)
            found = committee.explain(
                image[None].to(device), [rows["image_id"][number]], wanted, frame
            ).consensus
            where = frame.cells(0, (size, size))
            drawn, scales, pixels = found.maps.cpu().numpy(), found.scale.tolist(), image.numpy()
            facts = {"label": PRESENT, "probability": 1.0}
            for k, values, scale in zip(outputs, drawn, scales, strict=True):
                cutter.chain(cutter.pair(names[k], values, pixels, where, scale=scale, **facts))
            spent.append(time.perf_counter() - started)
            progress.add(1)
        seconds[name] = sum(spent[1:]) / max(1, len(spent) - 1)
    return seconds
