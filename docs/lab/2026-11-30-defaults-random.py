"""Networks with random weights by the default recipe: are its masks the networks' doing?

python docs/lab/2026-11-30-defaults-random.py CONFIG RESULTS TRUTH [released]

Arguments as in 2026-11-30-defaults.py; ``released`` asks it of the configuration's own recipe. Of
24 pairs whose finding is there, drawn by the hash of their image: IoU with the truth of the
committee's own masks and of two random draws of its weights (mean), and IoU of the two with each
other (median), as the sanity check has it.
"""

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dollmaker.attribute.committee import Committee, Setup
from dollmaker.attribute.sample import _randomised
from dollmaker.binarize.label_free import cuts_of, read_thresholds
from dollmaker.binarize.pair import Pair
from dollmaker.binarize.steps import make_chain
from dollmaker.config import settings
from dollmaker.config.masks import MapsConfig
from dollmaker.evaluate.stage import load_truth
from dollmaker.measures.scores import iou
from dollmaker.networks.frames import Frames
from dollmaker.networks.member import load_member
from dollmaker.pixels.geometry import box, inside, level_set, source_mask
from dollmaker.store import tables
from dollmaker.store.findings import localized
from dollmaker.store.shards import ImageShards
from dollmaker.store.tables import read_index

PAIRS, DRAWS = 24, 2
DEFAULT: list[dict[str, Any]] = [{"otsu": {}}, {"dense_crf": {"unary": "map"}}]


def main(source: str, results: Path, truth_root: Path, released: bool) -> None:
    """Explain, cut and score."""
    config = settings.loaded(source)
    size, fit = config.prepare.size, config.prepare.fit
    index, names = read_index(results / "index.parquet")
    truth = load_truth(config, truth_root, localized(names, config.attribute.findings))
    assert truth is not None
    target, images = truth.targets[0], ImageShards(results / "images")
    found: list[tuple[dict[str, Any], str, np.ndarray]] = []
    rows = sorted(index.to_dicts(), key=lambda r: hashlib.sha256(r["image_id"].encode()).digest())
    for row in rows:
        for finding in localized(names, config.attribute.findings):
            area = truth.mask(row, finding, target) if row[finding] == 1 else None
            if area is not None and area.any() and len(found) < PAIRS:
                found.append((row, finding, area))
    mean = torch.tensor(tables.read_header(results / "index.parquet")["channel_mean"])
    folders = [results / "committee" / name for name in config.classify.members]
    members = [load_member(folder, torch.device("cpu")) for folder in folders]
    recipe = config.release.recipe
    options = config.maps(recipe) if released else MapsConfig(nodes=8)
    steps = config.recipes[recipe].binarize if released else DEFAULT
    table = results / f"thresholds/{recipe}.parquet"
    cuts = read_thresholds(table) if released and table.exists() else {}
    chain = make_chain([step for step in steps if "gate" not in step])
    kinds = [members, *([_randomised(m, seed) for m in members] for seed in range(DRAWS))]
    drawn: list[list[np.ndarray]] = []
    scales: dict[tuple[str, str], float] = {}  # random networks are cut at the scale of the pair
    for kind in kinds:
        committee = Committee(kind, options, Setup(channel_mean=mean, size=size))
        masks = []
        for row, finding, area in found:
            stored = images.read(row["shard"], row["row"])
            where = box(row["width"], row["height"], size, fit)
            pair = [(0, names.index(finding))]
            frames = Frames((where,), size)
            shown = torch.from_numpy(np.ascontiguousarray(stored))[None]
            made = committee.explain(shown, [row["image_id"]], pair, frames)
            values = made.consensus.maps[0].numpy().astype(np.float16).astype(np.float32)
            key = row["image_id"], finding
            scales.setdefault(key, float(made.consensus.scale[0]))
            given = Pair(
                map=inside(values, where),
                image=inside(stored, where),
                label=1,
                probability=1.0,
                scale=scales[key],
                cuts=cuts_of(cuts, finding),
            )
            cut = chain(given)
            mask = np.zeros(values.shape, np.uint8)
            inside(mask, where)[...] = cut.mask
            levels = level_set(mask, values, cut.threshold)
            masks.append(source_mask(levels, area.shape[1], area.shape[0], fit))
        drawn.append(masks)
    scores = [np.mean([iou(m, p[2]) for m, p in zip(d, found, strict=True)]) for d in drawn]
    same = [iou(a, b) for blind in drawn[1:] for a, b in zip(drawn[0], blind, strict=True)]
    print(config.dataset, target, len(found), "own", round(float(scores[0]), 3), end=" ")
    print("random", round(float(np.mean(scores[1:])), 3), "same", round(float(np.median(same)), 3))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:] == ["released"])
