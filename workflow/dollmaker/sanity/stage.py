"""The stage: one recipe's sample in, one verdict out."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dollmaker import provenance
from dollmaker.binarize.choice import cuts_of, read_thresholds
from dollmaker.binarize.pair import FOREGROUND, Pair
from dollmaker.binarize.steps import make_chain
from dollmaker.errors import ConfigError, unknown
from dollmaker.files import sha256_file, write_json
from dollmaker.findings import PRESENT
from dollmaker.prepare.stage import read_index
from dollmaker.shards import ImageShards, Shard

#: A median rank correlation with the maps of random weights over this: the map ignores the model.
IGNORES_MODEL = 0.9

#: A median rank correlation with the maps of another finding over this: it ignores the finding.
IGNORES_FINDING = 0.99


def check_recipe(
    config: dict[str, Any],
    index_file: Path,
    images_folder: Path,
    sample_file: Path,
    recipe: str,
    output: Path,
    thresholds: Path | None = None,
) -> None:
    """Write what the sample says about a recipe.

    Pairs without the finding go through the steps as if they had it: how often is a mask drawn
    where there is nothing?

    Args:
        config: The resolved configuration.
        index_file: The index.
        images_folder: Folder of the image shards.
        sample_file: The sample of the recipe's maps.
        recipe: Name of the recipe.
        output: JSON file to write.
        thresholds: Table of thresholds chosen without truth, for the step label_free.
    """
    if recipe not in config["recipes"]:
        raise ConfigError(unknown("recipe", recipe, config["recipes"]))
    steps = config["recipes"][recipe]["binarize"]
    chain = make_chain(steps)
    cuts = read_thresholds(thresholds) if thresholds else {}
    index, _ = read_index(index_file)
    places = {row[0]: row[1:] for row in index.select("image_id", "shard", "row").iter_rows()}
    pixels = ImageShards(images_folder)
    with Shard(sample_file, "relevance") as sample:
        table = sample.table()
        areas = np.zeros(len(sample))
        for row in range(len(sample)):
            pair = Pair(
                map=sample.read("map", row).astype(np.float32),
                image=pixels.read(*places[table["image_id"][row]]),
                label=PRESENT,
                probability=float(table["probability"][row]),
                cuts=cuts_of(cuts, table["finding"][row]),
            )
            areas[row] = float(np.mean(np.asarray(chain(pair).mask) == FOREGROUND))
    facts = judge(table, areas)
    header = provenance.header(
        "sanity", {"recipe": recipe, "steps": steps}, inputs={"sample": sha256_file(sample_file)}
    )
    write_json(output, {"recipe": recipe, **facts, "header": header})


def judge(table: dict[str, npt.NDArray[Any]], areas: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Numbers and verdicts.

    Args:
        table: Columns of the sample.
        areas: Share of foreground of each pair's mask.

    Returns:
        ``positives`` and ``negatives`` (numbers of pairs); medians of ``randomised``, ``other``,
        ``insertion``, ``deletion`` (null if unknown); shares of pairs with a mask and their mean
        areas, on positives and negatives; ``ignores_model`` and ``ignores_finding``.
    """
    positive = table["label"] == PRESENT
    names = ("randomised", "other", "insertion", "deletion")
    medians = {name: _median(table[name][positive]) for name in names}
    facts: dict[str, Any] = {
        "positives": int(positive.sum()),
        "negatives": int((~positive).sum()),
        **medians,
    }
    for name, rows in (("positives", positive), ("negatives", ~positive)):
        facts[f"masked_{name}"] = _mean(areas[rows] > 0)
        facts[f"area_{name}"] = _mean(areas[rows])
    facts["ignores_model"] = (medians["randomised"] or 0) > IGNORES_MODEL
    facts["ignores_finding"] = (medians["other"] or 0) > IGNORES_FINDING
    return facts


def _median(values: npt.NDArray[Any]) -> float | None:
    known = values[np.isfinite(values)]
    return round(float(np.median(known)), 4) if len(known) else None


def _mean(values: npt.NDArray[Any]) -> float | None:
    return round(float(np.mean(values)), 4) if len(values) else None
