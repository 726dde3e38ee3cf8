"""Small labels: bright squares are the finding, dark images have none."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from segment_network import NETWORK

from dollmaker.config.settings import resolved
from dollmaker.store import provenance, tables
from dollmaker.store.shards import create_shard

SIZE = 32
FINDINGS = ["No Finding", "Bright", "Dark"]


@pytest.fixture
def config() -> dict[str, Any]:
    """A configuration with a network that trains in seconds."""
    return resolved(
        {
            "dataset": "fake",
            "source": {"kind": "phantoms"},
            "device": "cpu",
            "prepare": {"size": SIZE, "channels": 1},
            "segment": {**NETWORK, "epochs": 3, "batch_size": 4},
        }
    ).dump()


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Folder with index.parquet, images/ and labels/ of 20 images."""
    rng = np.random.default_rng(0)
    rows, images = [], []
    pairs: dict[str, list[tuple[str, str, float, bool]]] = {"train": [], "valid": []}
    masks: dict[str, list[np.ndarray]] = {"train": [], "valid": []}
    for i in range(20):
        split = "valid" if i >= 16 else "train"
        image = rng.integers(90, 110, (1, SIZE, SIZE)).astype(np.uint8)
        image_id = f"image{i}"
        bright = i % 4 != 3
        if bright:
            top, left = rng.integers(2, 14, 2)
            mask = np.zeros((SIZE, SIZE), np.uint8)
            mask[top : top + 14, left : left + 14] = 1
            image[0][mask == 1] = 220
            pairs[split].append((image_id, "Bright", 0.5 + i / 100, i != 1))
            masks[split].append(mask)
        images.append(image)
        rows.append(
            {
                "image_id": image_id,
                "path": f"{image_id}.png",
                "patient_id": image_id,
                "split": split,
                "width": 2 * SIZE,
                "height": 2 * SIZE,
                "shard": f"{i // 10:04d}",
                "row": i % 10,
                "No Finding": int(not bright),
                "Bright": int(bright),
                "Dark": None if i % 2 else 0,
            }
        )
    index = pl.DataFrame(rows).with_columns(pl.col(FINDINGS).cast(pl.Int8))
    header = provenance.header("prepare", {})
    tables.write(index, tmp_path / "index.parquet", {**header, "findings": FINDINGS})
    for shard in (0, 1):
        with create_shard(tmp_path / "images" / f"{shard:04d}.h5", "images", header) as writer:
            part = slice(10 * shard, 10 * shard + 10)
            ids = [row["image_id"] for row in rows[part]]
            writer.append({"image_id": ids}, image=np.stack(images[part]))
    for split, of_split in pairs.items():
        path = tmp_path / "labels" / "masks" / f"{split}-00000-of-00001.h5"
        with create_shard(path, "masks", header, gzip=True) as writer:
            ids, names, quality, kept = zip(*of_split, strict=True)
            table = {"image_id": ids, "finding": names, "quality": quality, "kept": kept}
            writer.append(table, mask=np.stack(masks[split]))
    return tmp_path
