"""Seconds per image of each recipe: from stored images to masks, in one process, one by one."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch

from dollmaker.attribute import mixed
from dollmaker.attribute.committee import Committee
from dollmaker.binarize.choice import Cuts, cuts_of
from dollmaker.binarize.pair import Pair
from dollmaker.binarize.steps import make_chain
from dollmaker.classify.data import label_matrix
from dollmaker.config import catalogue
from dollmaker.config.whole import Config
from dollmaker.networks.frames import frames_of
from dollmaker.networks.member import load_member
from dollmaker.pixels.geometry import inside
from dollmaker.runtime import devices
from dollmaker.runtime.progress import Progress
from dollmaker.store import tables
from dollmaker.store.depth import to_eight_bits
from dollmaker.store.findings import PRESENT
from dollmaker.store.shards import ImageShards


def time_recipes(
    config: dict[str, Any],
    index_file: Path,
    rows: pl.DataFrame,
    names: Sequence[str],
    images: Path,
    committee: Path,
    cuts: Mapping[str, Cuts],
) -> dict[str, float]:
    """Seconds that each recipe takes for an image with all its positive findings.

    The first image warms up and is not counted (a committee measures its memory then).

    Args:
        config: The resolved configuration, with all recipes.
        index_file: The index.
        rows: Rows of the index, at least two, each with a positive finding.
        names: All findings.
        images: Folder of the image shards.
        committee: Folder with one folder per member.
        cuts: Recipe -> thresholds chosen without truth.
    """
    whole, device = Config.model_validate(config), devices.choose(config["device"])
    mean = torch.tensor(tables.read_header(index_file)["channel_mean"])
    pixels = ImageShards(images)
    stored = [torch.from_numpy(pixels.read(*p)) for p in rows.select("shard", "row").rows()]
    labels = label_matrix(rows, names)
    ids = rows["image_id"].to_list()
    size, fit = config["prepare"]["size"], config["prepare"]["fit"]
    frames = [frames_of(rows[number : number + 1], size, fit) for number in range(len(rows))]
    seconds: dict[str, float] = {}
    progress = Progress("time recipes", len(config["recipes"]) * len(stored))
    for recipe in config["recipes"]:
        donor = whole.donor(recipe)
        members = [load_member(committee / m, device) for m in catalogue.committee(whole, donor)]
        experts = Committee(
            members,
            config["recipes"][donor]["attribute"],
            channel_mean=mean,
            size=size,
            seed=config["seed"],
            chunk=config["attribute"]["chunk"] or 8,
        )
        chain = make_chain(config["recipes"][recipe]["binarize"])
        spent = []
        for number, image in enumerate(stored):
            started = time.perf_counter()
            outputs = [
                k
                for k in range(len(names))
                if labels[number, k] == PRESENT and mixed.experts(members, k)
            ]
            wanted = [(0, k) for k in outputs]
            frame = frames[number]
            found = experts.explain(image[None].to(device), [ids[number]], wanted, frame).consensus
            where = frame.cells(0, (size, size))
            maps, scales = inside(found.maps, where).cpu().numpy(), found.scale.tolist()
            for k, values, scale in zip(outputs, maps, scales, strict=True):
                chain(
                    Pair(
                        map=values,
                        image=to_eight_bits(inside(image, where).numpy()),
                        label=PRESENT,
                        probability=1.0,
                        scale=scale,
                        cuts=cuts_of(cuts.get(recipe, {}), names[k]),
                    )
                )
            spent.append(time.perf_counter() - started)
            progress.add(1)
        seconds[recipe] = sum(spent[1:]) / max(1, len(spent) - 1)
    return seconds
