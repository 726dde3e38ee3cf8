"""What every label-free criterion loses on a sample, in every family, against its true masks.

python docs/lab/2026-11-30-label-free.py CONFIG RESULTS TRUTH RECIPE [TARGET] >> TABLE

RESULTS is results/NAME with the recipe's sample (results/NAME/sample/RECIPE.h5), TRUTH the folder
that its truth lies under. Rows of CSV go to the output: data set, target, family, mean IoU of the
best candidate of each finding in hindsight, then for each criterion that of the candidate which it
chooses. Masks are of the mean of all views, at the views' resolution; where several findings have
pairs, the numbers are means over findings. The last columns are stability plus the expectation
times 0.25, 0.35, 0.5, 0.6 and 0.75.
"""

import csv
import sys
from pathlib import Path

import numpy as np
import polars as pl
from skimage.transform import resize

from dollmaker.binarize import label_free
from dollmaker.binarize.cuts import FAMILIES, levels
from dollmaker.binarize.label_free import Views
from dollmaker.config import settings
from dollmaker.evaluate.stage import load_truth
from dollmaker.store.findings import localized
from dollmaker.store.shards import Shard
from dollmaker.store.tables import read_index

WEIGHTS = (0.25, 0.35, 0.5, 0.6, 0.75)


def main(source: str, results: Path, root: Path, recipe: str, target: str = "") -> None:
    """Read, score and print."""
    config = settings.resolved(settings.read(source))
    index, names = read_index(results / "index.parquet")
    truth = load_truth(config, root, localized(names, config.attribute.findings))
    if truth is None:
        sys.exit("The configuration has no truth.")
    target = target or truth.targets[0]
    rows = {row["image_id"]: row for row in index.iter_rows(named=True)}
    with Shard(results / "sample" / f"{recipe}.h5", "relevance") as sample:
        table = pl.DataFrame({name: list(column) for name, column in sample.table().items()})
        maps, scales = sample.read("views").astype(np.float32), sample.read("view_scale")
    side, masks = maps.shape[-2:], []
    for image, finding in table.select("image_id", "finding").iter_rows():
        mask = truth.mask(rows[image], finding, target)
        known = np.zeros(side) if mask is None else resize(mask.astype(np.float32), side)
        masks.append(known.ravel() > 0.5)
    there = np.stack(masks)
    views = Views(maps.reshape(*maps.shape[:3], -1), scales)
    labels, findings = table["label"].to_numpy(), table["finding"].to_numpy()
    given, counts, scored = {}, {}, {}
    for finding in dict.fromkeys(findings[labels == 1]):
        of = findings == finding
        mine = views.by(views.experts(of))
        present = of & (labels == 1)
        with_it, without = mine.of(present), mine.of(of & (labels != 1))
        numbers = label_free._candidates(with_it, without)
        given[finding] = label_free.curves(with_it, without, numbers)
        counts[finding] = len(with_it.maps)
        joined, scale = with_it.joined()
        some = there[present].any(-1)
        scored[finding] = {
            family: np.array(
                [
                    _iou((joined > level[:, None])[some], there[present][some])
                    for level in levels(family, numbers[family], joined, scale)
                ]
            )
            for family in FAMILIES
        }
    chosen = label_free.choose(given, counts)
    out = csv.writer(sys.stdout)
    for family in FAMILIES:
        best = [scores[family].max() for scores in scored.values()]
        found = [
            [scores[family][chosen[name][criterion][family]] for name, scores in scored.items()]
            for criterion in label_free.CRITERIA
        ]
        for weight in WEIGHTS:
            curves = {
                name: {
                    criterion: {
                        family: each["stability"][family] + weight * each["expectation"][family]
                    }
                    for criterion in label_free.CRITERIA
                }
                for name, each in given.items()
            }
            places = label_free.choose(curves, counts)
            found.append([s[family][places[n]["evidence"][family]] for n, s in scored.items()])
        means = [f"{np.nanmean(values):.4f}" for values in (best, *found)]
        out.writerow([config.dataset, target, family, *means])


def _iou(masks: np.ndarray, true: np.ndarray) -> float:
    return float(((masks & true).sum(-1) / (masks | true).sum(-1)).mean())


if __name__ == "__main__":
    main(sys.argv[1], *(Path(name) for name in sys.argv[2:4]), *sys.argv[4:])
