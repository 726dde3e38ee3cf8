"""Draw docs/pipeline.png from a run of the demo: image, relevance, mask, what the segmenter says.

python docs/pipeline.py results/phantoms docs/pipeline.png

A row is the test pair of its finding whose mask has the median IoU, so that it is neither the best
nor the worst. Orange is the mask or the segmenter's word, teal the outline of the truth.
"""

import json
import sys
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  reads LZ4
import numpy as np
import polars as pl
import segmentation_models_pytorch as smp
import torch
from pycocotools.mask import decode

from dollmaker.pictures.overlay import MASK, TRUTH, heat, outline, sheet, tint, to_png, to_rgb
from dollmaker.pixels.geometry import fit_mask

FINDINGS = ("Cardiomegaly", "Consolidation", "Pneumothorax")
SIDE = (240, 240)


def main(run: Path, output: Path) -> None:
    """Draw one row for each finding."""
    pairs = pl.read_parquet(run / "scores/pairs.parquet").filter(
        (pl.col("recipe") == "doll") & (pl.col("split") == "test") & (pl.col("truth_area") > 0)
    )
    index = pl.read_parquet(run / "index.parquet")
    rows = []
    for finding in FINDINGS:
        mine = pairs.filter(pl.col("finding") == finding).sort("iou", "image_id")
        pair = mine.row(len(mine) // 2, named=True)
        image = index.row(by_predicate=pl.col("image_id") == pair["image_id"], named=True)
        words = f"{finding}\nIoU {pair['iou']:.2f} (median)"
        rows.append((words, _tiles(run, image, finding)))
    titles = ("image", "relevance", "pseudo-mask", "segmenter")
    output.write_bytes(to_png(sheet(rows, titles=titles, beside=True), colours=128))


def _tiles(run: Path, image: dict[str, Any], finding: str) -> list[Any]:
    with h5py.File(run / f"images/{image['shard']}.h5") as file:
        square = file["arrays/image"][image["row"]]
    grey = to_rgb(square, SIDE)
    truth = _truth(run, image, finding, square.shape[-1])
    spec = json.loads((run / "segmenter/segmenter.json").read_text())
    ready = (square / np.float32(255) - spec["input"]["mean"][0]) / spec["input"]["std"][0]
    with torch.no_grad():
        model = smp.from_pretrained(run / "segmenter").eval()
        logits = model(torch.from_numpy(ready.astype(np.float32))[None])[0]
    said = logits[spec["findings"].index(finding)].numpy() > 0
    drawn = (_row(run, "masks", "mask", image, finding) == 1, said)
    masks = [outline(tint(grey, {MASK: mask}), truth, TRUTH, thickness=2) for mask in drawn]
    return [grey, heat(grey, _row(run, "relevance", "map", image, finding)), *masks]


def _row(run: Path, kind: str, name: str, image: dict[str, Any], finding: str) -> Any:
    with h5py.File(run / f"{kind}/doll/{image['shard']}.h5") as file:
        names = (file[f"table/{key}"].asstr()[:] for key in ("image_id", "finding"))
        place = list(zip(*names, strict=True)).index((image["image_id"], finding))
        return file[f"arrays/{name}"][place].astype(np.float32)


def _truth(run: Path, image: dict[str, Any], finding: str, size: int) -> Any:
    for file in sorted((run / "phantoms/truth").glob("*.json")):
        found = json.loads(file.read_text()).get(image["image_id"], {}).get(finding)
        if found:
            return fit_mask(decode(found), size, "letterbox") == 1
    raise SystemExit(f"{image['image_id']} has no truth of {finding} under {run}/phantoms/truth.")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
