"""A small results tree with known answers, written with the pipeline's own writers.

Sources are 64 x 48 pixels, letterboxed into 32 x 32: one pixel of the square is 2 x 2 pixels of the
source, rows 4 to 27 hold the image. Every truth is a rectangle of the square, so that every IoU is
a fraction known beforehand.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from PIL import Image
from pycocotools import mask as coco

from dollmaker.config import settings as configuration
from dollmaker.explain.measures import MEASURES
from dollmaker.store import provenance, tables
from dollmaker.store.files import write_json
from dollmaker.store.shards import create_shard

HOSTILE = "<script>alert(1)</script>"
FINDINGS = ["Cardiomegaly", "Lung Lesion", HOSTILE]
SIZE, WIDTH, HEIGHT = 32, 64, 48
SPLITS = ["train"] * 4 + ["valid"] * 4 + ["test"] * 8
CLASSES = ["lungs", "heart"]

#: Rectangle of each finding in the square: left, top, right, bottom.
AREAS = {"Cardiomegaly": (10, 14, 20, 24), "Lung Lesion": (4, 8, 9, 12), HOSTILE: (22, 8, 28, 20)}


def make_config(**changes: Any) -> dict[str, Any]:
    """The configuration of the tree."""
    return configuration.resolved(
        {
            "dataset": "fake",
            "source": {"kind": "phantoms"},
            "prepare": {"size": SIZE, "shards": 2},
            "classify": {"members": {"first": {}, "second": {}}},
            "recipes": {
                "doll": {"attribute": {}, "binarize": [{"otsu": {}}]},
                "tight": {"attribute": "doll", "binarize": [{"quantile": {}}]},
            },
            "tasks": {
                "organs": {
                    "table": "organs/index.csv",
                    "images": "organs/images",
                    "masks": "organs/masks",
                    "image_column": "image",
                    "mask_column": "mask",
                    "classes": {"lungs": [1], "heart": [2]},
                }
            },
            "truth": {"kind": "chexlocalize", "files": ["truth.json"]},
            "evaluate": {"bootstrap": 50, "min_pairs": 1},
            "report": {"gallery": 8, "explained": True},
            **changes,
        }
    ).dump()


def image_id(number: int) -> str:
    """Two images a patient; the last name is hostile."""
    return HOSTILE if number == len(SPLITS) - 1 else f"patient{number // 2:03d}_view{number % 2}"


def labels(number: int) -> list[int | None]:
    """The first finding on even images, the second on all but each fourth, the third on odd."""
    second = None if number % 4 == 3 else -1 if number == 0 else 1
    return [int(number % 2 == 0), second, number % 2]


def shift(number: int) -> int:
    """How far the mask of an image lies to the right of the truth, in pixels of the square."""
    return number % 3


def rectangle(area: tuple[int, int, int, int], offset: int = 0) -> npt.NDArray[np.bool_]:
    """A rectangle in the square."""
    mask = np.zeros((SIZE, SIZE), dtype=bool)
    left, top, right, bottom = area
    mask[top:bottom, left + offset : right + offset] = True
    return mask


def to_source(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The square's content in the source, written independently of the package."""
    return np.kron(mask[4:28], np.ones((2, 2), dtype=bool))


def expected_iou(finding: str, number: int) -> float:
    """IoU of two equal rectangles, one moved sideways."""
    left, _, right, _ = AREAS[finding]
    wide, moved = right - left, shift(number)
    return (wide - moved) / (wide + moved)


def draw(number: int) -> npt.NDArray[np.uint8]:
    """A grey picture that resembles a chest, (1, 32, 32)."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:SIZE, :SIZE]
    picture = 150 - 4 * np.abs(x - 15.5)
    for centre in (9, 22):
        picture = picture - 80 * (((x - centre) / 5) ** 2 + ((y - 16) / 10) ** 2 < 1)
    for finding, label in zip(FINDINGS, labels(number), strict=True):
        picture = picture + 60 * rectangle(AREAS[finding]) * (label == 1)
    picture = picture + rng.normal(0, 6, picture.shape)
    picture[:4], picture[28:] = 0, 0
    return np.clip(picture, 0, 255).astype(np.uint8)[None]


def scored_things(results: Path, data: Path) -> dict[str, Any]:
    """What the stage evaluate reads of the tree, by the names of its inputs; no segmenter."""
    return {
        "index": results / "index.parquet",
        "images": results / "images",
        "data_root": data,
        "committee": sorted((results / "committee").iterdir()),
        "relevance": results / "relevance",
        "masks": results / "masks",
        "tasks": sorted((results / "tasks" / "organs").iterdir()),
    }


def build(root: Path, config: dict[str, Any]) -> tuple[Path, Path]:
    """Write the tree.

    Returns:
        The results folder and the data root.
    """
    results, data = root / "results" / "fake", root / "data"
    write_json(data / "truth.json", _truth())
    _write_index(results, config)
    for shard in ("0000", "0001"):
        _write_shard(results, config, shard)
    for member, noise in (("first", 0.2), ("second", 0.4)):
        _write_member(results / "committee" / member, noise)
    write_json(
        results / "segmenter" / "segmenter.json",
        {
            "findings": FINDINGS,
            "architecture": "Unet",
            "encoder": "mobilenet_v2",
            "input": {"channels": 1, "size": SIZE, "mean": 0.5, "std": 0.5},
            "curve": [
                {"epoch": e, "loss": 1 / (e + 1), "valid_miou": 0.2 + 0.1 * e} for e in range(4)
            ],
            "header": provenance.header("segment", {}),
            "sha256": "0" * 64,
        },
    )
    _write_explained(results / "explained")
    for run in ("random-full", "doll-full", "doll-adapter"):
        _write_task(
            results / "tasks" / "organs" / run,
            {"random": 0.4, "doll": 0.6}[run[:-5]] if run.endswith("full") else 0.5,
        )
    benchmarks = results / "benchmarks"
    benchmarks.mkdir()
    for name, seconds in (
        ("train_member-first", 10.5),
        ("train_member-second", 11.5),
        ("explain_images-doll-0000", 3.0),
        ("evaluate", 2.0),
    ):
        text = f"s\th:m:s\tmax_rss\n{seconds}\t0:00:10\t100\n"
        (benchmarks / f"{name}.tsv").write_text(text, encoding="utf-8")
    return results, data


def _truth() -> dict[str, Any]:
    """True masks of the valid and test images; the second finding is truly present everywhere."""
    content: dict[str, Any] = {}
    for number, split in enumerate(SPLITS):
        if split == "train":
            continue
        content[image_id(number)] = {}
        for finding, label in zip(FINDINGS, labels(number), strict=True):
            present = label == 1 or finding == "Lung Lesion"
            mask = to_source(rectangle(AREAS[finding])) & present
            code = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
            counts = code["counts"].decode("ascii")
            content[image_id(number)][finding] = {"size": [HEIGHT, WIDTH], "counts": counts}
    return content


def _write_index(results: Path, config: dict[str, Any]) -> None:
    half = len(SPLITS) // 2
    rows = [
        {
            "image_id": image_id(number),
            "path": f"images/{number}.png",
            "patient_id": f"patient{number // 2:03d}",
            "split": split,
            "view": "frontal",
            "mask": None,
            "width": WIDTH,
            "height": HEIGHT,
            "sha256": hashlib.sha256(str(number).encode()).hexdigest(),
            "orientation": 1,
            "shard": f"{number // half:04d}",
            "row": number % half,
            **dict(zip(FINDINGS, labels(number), strict=True)),
        }
        for number, split in enumerate(SPLITS)
    ]
    schema = {"mask": pl.String, **dict.fromkeys(FINDINGS, pl.Int8)}
    index = pl.DataFrame(rows, schema_overrides=schema)
    header = provenance.header("prepare", config["prepare"])
    broken = [{"image_id": "broken", "path": "images/<b>.png", "reason": "file is missing"}]
    tables.write(
        index, results / "index.parquet", {**header, "findings": FINDINGS, "quarantine": broken}
    )


def _write_shard(results: Path, config: dict[str, Any], shard: str) -> None:
    half = len(SPLITS) // 2
    numbers = range(int(shard) * half, (int(shard) + 1) * half)
    header = provenance.header("prepare", config["prepare"])
    with create_shard(results / "images" / f"{shard}.h5", "images", header) as writer:
        writer.append(
            {"image_id": [image_id(n) for n in numbers]}, image=np.stack([draw(n) for n in numbers])
        )
    pairs = [
        (n, f) for n in numbers for f, label in zip(FINDINGS, labels(n), strict=True) if label == 1
    ]
    common = {
        "image_id": [image_id(n) for n, _ in pairs],
        "finding": [finding for _, finding in pairs],
        "label": np.ones(len(pairs), dtype=np.int8),
        "probability": np.array([0.9 - 0.05 * (n % 8) for n, _ in pairs], dtype=np.float32),
        "agreement": np.full(len(pairs), 0.8, dtype=np.float32),
        "completeness": np.full(len(pairs), 0.03, dtype=np.float32),
    }
    maps = np.stack([_map(AREAS[f], shift(n)) for n, f in pairs])
    file = f"{shard}.h5"
    with create_shard(results / "relevance" / "doll" / file, "relevance", header) as writer:
        extra = {
            "scale": np.ones(len(pairs), dtype=np.float32),
            "convergence": np.full(len(pairs), np.nan, dtype=np.float32),
            "nodes": np.full(len(pairs), 16, dtype=np.int32),
        }
        writer.append(common | extra, map=maps)
    for recipe, keep in (("doll", 99), ("tight", 14)):
        # Recipe "tight" gates out the last images.
        kept = np.array([n < keep for n, _ in pairs])
        masks = np.stack([rectangle(AREAS[f], shift(n)) for n, f in pairs]) & kept[:, None, None]
        codes = masks.astype(np.uint8)
        codes[:, 5, :] = 255  # a line to ignore, which counts as background
        extra = {
            "threshold": np.full(len(pairs), np.nan, dtype=np.float32),  # drawn by hand
            "area": masks.mean(axis=(1, 2)).astype(np.float32),
            "quality": np.array([0.2 + 0.04 * n for n, _ in pairs], dtype=np.float32),
            "kept": kept,
        }
        with create_shard(results / "masks" / recipe / file, "masks", header) as writer:
            writer.append(common | extra, mask=codes)


def _map(area: tuple[int, int, int, int], offset: int) -> npt.NDArray[np.float16]:
    """A hill over the moved rectangle, maximum 1."""
    left, top, right, bottom = area
    y, x = np.mgrid[:SIZE, :SIZE]
    centre = ((left + right - 1) / 2 + offset, (top + bottom - 1) / 2)
    hill = np.exp(
        -(((x - centre[0]) / (right - left)) ** 2 + ((y - centre[1]) / (bottom - top)) ** 2) * 2
    )
    return (hill / hill.max()).astype(np.float16)


def _write_member(folder: Path, noise: float) -> None:
    rng = np.random.default_rng(int(noise * 10))
    numbers = [n for n, split in enumerate(SPLITS) if split != "train"]
    table = pl.DataFrame(
        {
            "image_id": [image_id(n) for n in numbers],
            "split": [SPLITS[n] for n in numbers],
            **{
                finding: pl.Series(
                    [
                        np.clip((labels(n)[k] or 0) * 0.5 + rng.random() * noise, 0, 1)
                        for n in numbers
                    ],
                    dtype=pl.Float32,
                )
                for k, finding in enumerate(FINDINGS)
            },
        }
    )
    header = provenance.header("classify", {}, seed=0)
    tables.write(table, folder / "predictions.parquet", header)
    curve = [
        {"epoch": e, "loss": 0.7 / (e + 1), "valid_macro_auroc": None if e == 0 else 0.5 + 0.08 * e}
        for e in range(6)
    ]
    write_json(
        folder / "model.json",
        {
            "architecture": "torchvision:mobilenet_v2",
            "findings": FINDINGS,
            "input": {"channels": 1, "size": SIZE, "mean": 0.5, "std": 0.5},
            "sha256": "0" * 64,
            "metrics": {},
            "curve": curve,
            "header": header,
        },
    )


def _write_explained(folder: Path) -> None:
    """Two methods over two findings; the second pair has no relevance by the first method."""
    nan = float("nan")
    values = {
        ("seg_grad_cam", "Cardiomegaly"): (0.5, 0.25, 1.0, 0.125),
        ("seg_grad_cam", HOSTILE): (nan, nan, nan, nan),
        ("seg_hires_cam", "Cardiomegaly"): (0.75, 0.375, 0.0, nan),
        ("seg_hires_cam", HOSTILE): (0.9, 0.9, 1.0, 0.9),
    }
    rows = [
        {"image_id": image_id(8), "finding": finding, "method": method}
        | dict(zip(MEASURES, numbers, strict=True))
        for (method, finding), numbers in values.items()
    ]
    asked = {"layer": "encoder.-1", "pixels": "class", "point": None, "split": "test"}
    header = provenance.header("explain", asked)
    tables.write(pl.DataFrame(rows), folder / "measures.parquet", header)
    Image.new("RGB", (40, 20), "navy").save(folder / "overlays.png")


def _write_task(folder: Path, level: float) -> None:
    """IoU is ``level`` plus a known trifle of image, class, seed and n."""
    scores, curve, runs = [], [], []
    for n, images in (("5", 5), ("all", 40)):
        for seed in (0, 1):
            gain = level + 0.1 * (n == "all") + 0.02 * seed
            for number in range(6):
                for k, name in enumerate(CLASSES):
                    empty = number == 5 and name == "heart"
                    value = float("nan") if empty else gain + 0.01 * number - 0.05 * k
                    scores.append(
                        {
                            "n": n,
                            "n_images": images,
                            "seed": seed,
                            "image_id": f"organs{number}",
                            "patient_id": f"organs{number // 2}",
                            "class": name,
                            "present": not empty,
                            "iou": value,
                            "dice": 2 * value / (1 + value),
                        }
                    )
            for point in range(6):
                curve.append(
                    {
                        "n": n,
                        "n_images": images,
                        "seed": seed,
                        "step": 20 * point,
                        "epoch": point * 100 / images,
                        "loss": 1 / (1 + point),
                        "valid_miou": gain * (1 - 0.5**point),
                    }
                )
            runs.append(
                {
                    "n": n,
                    "n_images": images,
                    "seed": seed,
                    "seconds": 4.5,
                    "trainable": 1000,
                    "encoder_trainable_share": 1.0,
                    "optimizer_mb": 12.0,
                    "steps": 100,
                    "test_miou": gain,
                }
            )
    header = provenance.header("adapt", {}, seed=0)
    baselines = [
        {
            "baseline": name,
            "image_id": f"organs{number}",
            "patient_id": f"organs{number // 2}",
            "class": cls,
            "present": number < 5 or cls != "heart",
            "iou": value if number < 5 or cls != "heart" else float(name == "empty"),
            "dice": value,
        }
        for name, value in (("empty", 0.0), ("centre", 0.25), ("whole", 0.125))
        for number in range(6)
        for cls in CLASSES
    ]
    tables.write(pl.DataFrame(baselines), folder / "baselines.parquet", header)
    tables.write(pl.DataFrame(scores), folder / "scores.parquet", header)
    tables.write(pl.DataFrame(curve), folder / "curve.parquet", header)
    write_json(folder / "runs.json", {"header": header, "runs": runs})
    truth = np.stack([rectangle((4, 8, 14, 24)), rectangle((14, 14, 22, 26))]).astype(np.uint8)
    truth[:, 6, :] = 255
    moved = np.roll(truth == 1, round(10 * (1 - level)), axis=-1).astype(np.uint8)
    np.savez(
        folder / "examples.npz",
        image=np.stack([draw(20), draw(21)]),
        truth=np.stack([truth, truth]),
        image_id=np.array(["organs0", HOSTILE]),
        classes=np.array(CLASSES),
        prediction_5=np.stack([moved, moved]),
        prediction_all=np.stack([truth % 255, truth % 255]),
    )


def inline(config: dict[str, Any]) -> str:
    """The configuration as the command line takes it."""
    return json.dumps(config)
