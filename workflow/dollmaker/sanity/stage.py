"""The stage: one recipe's sample in, one verdict out."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dollmaker.binarize.label_free import cuts_of
from dollmaker.binarize.pair import Pair
from dollmaker.binarize.stage import open_recipe
from dollmaker.config.whole import Config
from dollmaker.measures import scores
from dollmaker.pixels import geometry
from dollmaker.sanity.judge import judge
from dollmaker.store import provenance
from dollmaker.store.depth import to_eight_bits
from dollmaker.store.files import sha256_file, write_json
from dollmaker.store.findings import PRESENT
from dollmaker.store.index import read_index
from dollmaker.store.shards import ImageShards, Shard


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a recipe is checked with.

    Attributes:
        index: The index.
        images: Folder of the image shards.
        sample: The sample of the recipe's maps.
        thresholds: Table made by ``dollmaker thresholds``, for the step label_free.
    """

    index: Path
    images: Path
    sample: Path
    thresholds: Path | None = None


def check_recipe(config: Config, inputs: Inputs, recipe: str, output: Path) -> None:
    """Check that a recipe's masks depend on the model and the finding.

    Pairs without the finding go through the steps as if they had it: how often is a mask drawn
    where there is nothing? The maps of networks with random weights go through the same steps, with
    the scale and the probability of the pair: what is compared is where they draw.

    Args:
        config: The resolved configuration.
        inputs: What earlier stages made.
        recipe: Recipe of the configuration.
        output: JSON file to write.
    """
    cutter, fit = open_recipe(config, recipe, inputs.thresholds), config.prepare.fit
    index, names = read_index(inputs.index)
    rows_of = {row["image_id"]: row for row in index.iter_rows(named=True)}
    pixels = ImageShards(inputs.images)
    with Shard(inputs.sample, "relevance") as sample:
        table = sample.table()
        areas, patients = np.zeros(len(sample)), []
        same = np.full(len(sample), np.nan)
        for row in range(len(sample)):
            of = rows_of[table["image_id"][row]]
            values = sample.read("map", row).astype(np.float32)
            where = geometry.box(of["width"], of["height"], len(values), fit)
            pair = Pair(
                map=geometry.inside(values, where),
                image=geometry.inside(to_eight_bits(pixels.read(of["shard"], of["row"])), where),
                label=PRESENT,
                probability=float(table["probability"][row]),
                scale=float(table["scale"][row]),
                cuts=cuts_of(cutter.cuts, table["finding"][row]),
            )
            mask = cutter.chain(pair).foreground
            areas[row] = float(np.mean(mask))
            if np.isfinite(table["randomised"][row]):
                blind = geometry.inside(sample.read("blind", row).astype(np.float32), where)
                drawn = [cutter.chain(replace(pair, map=each)).foreground for each in blind]
                same[row] = scores.nanmean(np.array([scores.iou(each, mask) for each in drawn]))
            patients.append(of["patient_id"])
    facts = judge(table, areas, same, patients, several=len(names) > 1)
    header = provenance.header(
        "sanity",
        {"recipe": recipe, "steps": list(cutter.steps), "fit": fit},
        inputs={
            "sample": sha256_file(inputs.sample),
            **({"thresholds": sha256_file(inputs.thresholds)} if inputs.thresholds else {}),
        },
    )
    write_json(output, {"recipe": recipe, **facts, "header": header})
