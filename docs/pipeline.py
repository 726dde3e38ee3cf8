"""Draw docs/pipeline.png from a run of the demo: image, relevance, mask, what the segmenter says.

python docs/pipeline.py results/phantoms docs/pipeline.png

A row is the test pair of its finding whose mask has the median IoU, so that it is neither the best
nor the worst. Yellow is the mask or the segmenter's word, white the true outline.
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
from matplotlib import colormaps, font_manager
from PIL import Image, ImageDraw, ImageFont
from pycocotools.mask import decode
from scipy.ndimage import binary_erosion, zoom

FINDINGS = ("Cardiomegaly", "Consolidation", "Pneumothorax")
TITLES = ("image", "relevance", "pseudo-mask", "segmenter")
SIDE, GAP, HEAD, LEFT = 240, 6, 26, 118


def main(run: Path, output: Path) -> None:
    """Draw the rows of three findings."""
    pairs = pl.read_parquet(run / "scores/pairs.parquet").filter(
        (pl.col("recipe") == "doll") & (pl.col("split") == "test") & (pl.col("truth_area") > 0)
    )
    index = pl.read_parquet(run / "index.parquet")
    model = smp.from_pretrained(run / "segmenter").eval()
    spec = json.loads((run / "segmenter/segmenter.json").read_text())
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 15)
    width = LEFT + len(TITLES) * (SIDE + GAP)
    sheet = Image.new("RGB", (width, HEAD + len(FINDINGS) * (SIDE + GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(TITLES):
        at = LEFT + column * (SIDE + GAP) + SIDE // 2
        draw.text((at, HEAD // 2), title, "black", font, anchor="mm")
    for row, finding in enumerate(FINDINGS):
        mine = pairs.filter(pl.col("finding") == finding).sort("iou", "image_id")
        pair = mine.row(len(mine) // 2, named=True)
        image = index.row(by_predicate=pl.col("image_id") == pair["image_id"], named=True)
        top = HEAD + row * (SIDE + GAP)
        words = f"{finding}\nIoU {pair['iou']:.2f}\n(median)"
        draw.text((4, top + SIDE // 2), words, "black", font, anchor="lm")
        for column, tile in enumerate(_tiles(run, image, finding, model, spec)):
            sheet.paste(tile, (LEFT + column * (SIDE + GAP), top))
    sheet.quantize(128, dither=Image.Dither.NONE).save(output, optimize=True)


def _tiles(run: Path, image: dict[str, Any], finding: str, model: Any, spec: Any) -> Any:
    with h5py.File(run / f"images/{image['shard']}.h5") as file:
        square = file["arrays/image"][image["row"], 0].astype(np.float32) / 255
    truth = _truth(run, image, finding, square.shape[0])
    grey = _shades(square)
    yield grey
    relevance, mask = (_row(run, kind, image, finding) for kind in ("relevance", "masks"))
    heat = colormaps["inferno"](zoom(relevance.clip(0, 1), SIDE / len(relevance), order=1))[..., :3]
    yield Image.blend(grey, Image.fromarray((heat * 255).astype(np.uint8)), 0.65)
    yield _outlined(grey, mask == 1, truth)
    mean, std = spec["input"]["mean"][0], spec["input"]["std"][0]
    with torch.no_grad():
        logits = model(torch.from_numpy((square - mean) / std)[None, None])[0]
    yield _outlined(grey, logits[spec["findings"].index(finding)].numpy() > 0, truth)


def _row(run: Path, kind: str, image: dict[str, Any], finding: str) -> Any:
    name = {"relevance": "map", "masks": "mask"}[kind]
    with h5py.File(run / f"{kind}/doll/{image['shard']}.h5") as file:
        names = (file[f"table/{key}"].asstr()[:] for key in ("image_id", "finding"))
        place = list(zip(*names, strict=True)).index((image["image_id"], finding))
        return file[f"arrays/{name}"][place].astype(np.float32)


def _truth(run: Path, image: dict[str, Any], finding: str, size: int) -> Any:
    for file in sorted((run / "phantoms/truth").glob("*.json")):
        found = json.loads(file.read_text()).get(image["image_id"], {}).get(finding)
        if found:
            whole = Image.fromarray(decode(found) * 255)
            whole.thumbnail((size, size), Image.Resampling.BICUBIC)
            square = Image.new("L", (size, size))
            square.paste(whole, ((size - whole.width) // 2, (size - whole.height) // 2))
            return np.asarray(square) > 127
    raise SystemExit(f"{image['image_id']} has no truth of {finding} under {run}/phantoms/truth.")


def _shades(square: Any) -> Image.Image:
    enlarged = zoom(square, SIDE / len(square), order=1).clip(0, 1)
    return Image.fromarray((enlarged * 255).astype(np.uint8)).convert("RGB")


def _outlined(grey: Image.Image, mask: Any, truth: Any) -> Image.Image:
    pixels = np.asarray(grey).copy()
    for shape, colour in ((mask, (255, 208, 0)), (truth, (255, 255, 255))):
        large = zoom(shape.astype(np.float32), SIDE / len(shape), order=1) > 0.5
        if colour[2] == 0:
            pixels[large] = (0.65 * pixels[large] + 0.35 * np.array(colour)).astype(np.uint8)
        pixels[large & ~binary_erosion(large, iterations=2)] = colour
    return Image.fromarray(pixels)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
