"""A small release with known masks, made by the stages themselves."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy import ndimage

from dollmaker.config import settings as configuration
from dollmaker.config.whole import Config
from dollmaker.evaluate.means import MASKS, PAIRS
from dollmaker.release.labels import Inputs as LabelsInputs
from dollmaker.release.labels import collect_labels
from dollmaker.release.stage import Inputs, build_release
from dollmaker.store import provenance, tables
from dollmaker.store.files import write_json, write_text
from dollmaker.store.shards import create_shard

FINDINGS = ["Edema", "<b>Odd|name</b>"]


def make_results(
    folder: Path, shards: int, *, drawn: bool = False, **sections: Mapping[str, Any]
) -> Config:
    """12 images, two findings each, in so many shards.

    Maps are the same everywhere and have nothing to do with the masks; with ``drawn`` they are
    hills over the masks, which are cut from them. Other options are more of the configuration.
    """
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (12, 1, 24, 24), dtype=np.uint8)
    masks = np.zeros((24, 24, 24), np.uint8)
    for i in range(24):
        y, x = rng.integers(0, 12, 2)
        masks[i, y : y + 8, x : x + 6] = 1
    masks[3] = 0  # an empty mask
    masks[5, :3] = 255
    maps = np.linspace(-1, 1, 24, dtype=np.float16)[:, None, None] * np.ones((24, 24), np.float16)
    if drawn:
        maps = ndimage.gaussian_filter((masks == 1).astype(np.float32), (0, 2, 2)).astype(
            np.float16
        )
        masks[5, 4:7] = 255  # inside the picture
        masks[masks != 255] = (maps > np.float32(0.3))[masks != 255]
    header = provenance.header("binarize", {})
    per = 12 // shards
    for number in range(shards):
        part = range(number * per, (number + 1) * per)
        with create_shard(folder / f"images/{number:04d}.h5", "images", header) as writer:
            writer.append(
                {"image_id": [f"i{i}" for i in part]}, image=images[part.start : part.stop]
            )
        rows = range(2 * part.start, 2 * part.stop)
        with create_shard(folder / f"masks/{number:04d}.h5", "masks", header) as writer:
            writer.append(
                {
                    "image_id": [f"i{r // 2}" for r in rows],
                    "finding": [FINDINGS[r % 2] for r in rows],
                    "label": np.ones(len(rows), np.int8),
                    "probability": np.full(len(rows), 0.7, np.float32),
                    "threshold": np.full(len(rows), 0.3, np.float32),
                    "area": np.array([(masks[r] == 1).mean() for r in rows], np.float32),
                    "quality": np.array([r / 24 for r in rows], np.float32),
                    "agreement": np.ones(len(rows), np.float32),
                    "completeness": np.zeros(len(rows), np.float32),
                    "kept": np.array([r != 7 for r in rows]),
                },
                mask=masks[rows.start : rows.stop],
            )
        with create_shard(folder / f"relevance/{number:04d}.h5", "relevance", header) as writer:
            writer.append(
                {
                    "image_id": [f"i{r // 2}" for r in rows],
                    "finding": [FINDINGS[r % 2] for r in rows],
                },
                map=maps[rows.start : rows.stop],
            )
    index = pl.DataFrame(
        {
            "image_id": [f"i{i}" for i in range(12)],
            "path": [f"a/{i}.png" for i in range(12)],
            "patient_id": [f"p{i // 2}" for i in range(12)],
            "split": ["train"] * 8 + ["valid"] * 2 + ["test"] * 2,
            "width": [30] * 12,
            "height": [20] * 12,
            "sha256": ["0" * 64] * 12,
            "orientation": pl.Series([1] * 12, dtype=pl.Int8),
            "shard": [f"{i // per:04d}" for i in range(12)],
            "row": [i % per for i in range(12)],
            **{f: pl.Series([1] * 12, dtype=pl.Int8) for f in FINDINGS},
        }
    )
    tables.write(index, folder / "index.parquet", {**header, "findings": FINDINGS})
    metrics = {"macro_auroc": 0.8, "split": "test"}
    member = {"architecture": "timm:x", "sha256": "f" * 64, "metrics": metrics}
    (folder / "a").mkdir(exist_ok=True)
    write_json(folder / "a/model.json", member)
    release = {"name": "A <script>alert(1)</script> set", **sections.pop("release", {})}
    return configuration.resolved(
        {
            "dataset": "x",
            "source": {"kind": "phantoms"},
            "prepare": {"size": 24, "shards": shards},
            "release": release,
            **sections,
        }
    )


SANITY = {
    "recipe": "doll",
    **dict.fromkeys(("positives", "negatives"), 8),
    **dict.fromkeys(
        ("same_masks", "randomised", "other", "insertion", "deletion", "masked_negatives"), 0.5
    ),
    **dict.fromkeys(("ignores_model", "ignores_finding", "uninformative"), False),
    "doubts": [],
    "verdict": "depends on model and finding",
}


def sane(folder: Path, **changes: Any) -> Path:
    write_json(folder / "sanity.json", {**SANITY, **changes, "header": {}})
    return folder / "sanity.json"


def make_labels(folder: Path, config: Config, **checks: Any) -> Path:
    """The stage labels."""
    masks = sorted((folder / "masks").glob("*.h5"))
    maps = sorted((folder / "relevance").glob("*.h5"))
    collect_labels(
        config,
        LabelsInputs(
            index=folder / "index.parquet",
            masks=masks,
            relevance=maps,
            committee=[folder / "a"],
            sanity=sane(folder, **checks),
        ),
        folder / "labels",
    )
    return folder / "labels"


def make_segmenter(folder: Path) -> Path:
    """What looks like a segmenter, for those who only copy it."""
    folder.mkdir(exist_ok=True)
    facts = {"architecture": "Unet", "findings": FINDINGS, "sha256": "e" * 64}
    write_json(folder / "segmenter.json", facts)
    (folder / "model.safetensors").write_bytes(bytes(range(256)))
    write_text(folder / "README.md", "# A segmenter\n")
    return folder


def score_rows(recipe: str, level: float, target: str = "finding") -> list[dict[str, Any]]:
    """Rows of masks.parquet: the same score everywhere."""
    names = ("miou", "dice", "hit_rate", "auprc")
    values = {f"{name}{end}": level for name in names for end in ("", "_low", "_high")}
    keys = {"recipe": recipe, "target": target, "split": "test", "n": 2, "n_truth": 2}
    keys |= {"gated_by": "label", "mean_over": "findings", "area_correlation": 0.5}
    slices = ("full", "positive")
    return [
        {**keys, "slice": s, "finding": f, **values} for s in slices for f in ("mean", *FINDINGS)
    ]


def build(
    folder: Path,
    shards: int = 1,
    *,
    truth: bool | Mapping[str, tuple[float, float]] = False,
    drawn: bool = False,
    pairs: Sequence[dict[str, Any]] = (),
    evaluated: Mapping[str, Any] | None = None,
    other: str = "",
    checks: Mapping[str, Any] | None = None,
    **options: Any,
) -> Path:
    """All stages from the masks on.

    Args:
        folder: Folder to make.
        shards: Number of shards.
        truth: With scores; those of the recipe and of a trivial baseline by target.
        drawn: As for :func:`make_results`.
        pairs: Rows of pairs.parquet, without what is the same of all.
        evaluated: More of the section evaluate.
        other: Another recipe, which made the same masks.
        checks: What differs of the sanity checks.
        options: More of the section release.
    """
    folder.mkdir(exist_ok=True)
    sections: dict[str, Mapping[str, Any]] = {"release": options, "evaluate": evaluated or {}}
    if truth:
        sections["truth"] = {"kind": "chexlocalize", "files": []}
    config = make_results(folder, shards, drawn=drawn, **sections)
    scores = truth if isinstance(truth, Mapping) else {"finding": (0.25, 0.125)} if truth else {}
    rows = [
        row
        for target, levels in scores.items()
        for recipe, level in zip(("doll", "centre"), levels, strict=True)
        for row in score_rows(recipe, level, target)
    ]
    tables.write(pl.DataFrame(rows, schema=MASKS, orient="row"), folder / "scores.parquet", {})
    same = {"recipe": "doll", "target": "finding", "explained": True}
    scored = pl.DataFrame([same | row for row in pairs], schema=PAIRS, orient="row")
    tables.write(scored, folder / "pairs.parquet", {"targets": ["finding"]})
    if other:
        shutil.copytree(folder / "masks", folder / other)
    build_release(
        config,
        Inputs(
            index=folder / "index.parquet",
            images=folder / "images",
            labels=make_labels(folder, config, **checks or {}),
            segmenter=make_segmenter(folder / "segmenter"),
            committee=[folder / "a"],
            sanity=folder / "sanity.json",
            scores=folder / "scores.parquet",
            pairs=folder / "pairs.parquet",
            others=sorted((folder / other).glob("*.h5")) if other else (),
        ),
        folder / "release",
    )
    return folder / "release"
