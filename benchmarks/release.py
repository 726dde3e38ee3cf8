"""Seconds to make, verify and load a release, measured on one of made-up masks."""

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from dollmaker.config import settings as configuration
from dollmaker.config.whole import Config
from dollmaker.evaluate.means import MASKS, PAIRS
from dollmaker.release.labels import Inputs as LabelsInputs
from dollmaker.release.labels import collect_labels
from dollmaker.release.load import PseudoLabels
from dollmaker.release.stage import Inputs, build_release
from dollmaker.release.verify import verify
from dollmaker.store import provenance, tables
from dollmaker.store.files import write_json
from dollmaker.store.shards import create_shard
from shared import keep, options, write_sanity

_FINDINGS = [f"finding {number}" for number in range(13)]
_PER_IMAGE = 3
#: Size of the source images: CheXpert's small ones.
_WIDTH, _HEIGHT = 390, 320
_BLOCK = 256
#: Where the hills are cut: at ellipses that are this far from their middle, exp(-1).
_CUT = np.float32(np.exp(-1))


def measure(*, size: int, pairs: int) -> dict[str, Any]:
    """Make a release of hills, verify it, and load its training images without pictures.

    Args:
        size: Side of the masks in pixels.
        pairs: Image-finding pairs.

    Returns:
        What was measured: seconds of each step (``wall`` and ``cpu``), images per second of the
        loader, bytes on disk.
    """
    with TemporaryDirectory(prefix="dollmaker-bench-") as name:
        folder = Path(name)
        config = make_results(folder, size=size, pairs=pairs)
        member, sanity = folder / "member", folder / "sanity.json"
        labels, release = folder / "labels", folder / "release"
        seconds = {
            "labels": _time(
                lambda: collect_labels(
                    config,
                    LabelsInputs(
                        index=folder / "index.parquet", masks=[folder / "masks.h5"],
                        relevance=[folder / "maps.h5"], committee=[member], sanity=sanity,
                    ),
                    labels,
                )
            ),
            "release": _time(
                lambda: build_release(
                    config,
                    Inputs(
                        index=folder / "index.parquet", images=folder, labels=labels,
                        segmenter=folder / "segmenter", committee=[member], sanity=sanity,
                        scores=folder / "scores.parquet", pairs=folder / "pairs.parquet",
                    ),
                    release,
                )
            ),
        }  # fmt: skip
        cores = os.cpu_count() or 1
        for workers in sorted({1, cores}):
            seconds[f"verify, {workers} processes"] = _time(partial(_verify, release, workers))
        data = PseudoLabels(release)
        start = time.process_time()
        for item in range(len(data)):
            data[item]
        loading = time.process_time() - start
        return {
            "size": size,
            "pairs": pairs,
            "cores": cores,
            "bytes": sum(p.stat().st_size for p in release.rglob("*") if p.is_file()),
            "seconds": seconds,
            "images_per_second": len(data) / loading,
        }


def make_results(folder: Path, *, size: int, pairs: int) -> Config:
    """What the stages before the labels leave, with hills for maps and ellipses for masks.

    Returns:
        The resolved configuration.
    """
    images = -(-pairs // _PER_IMAGE)
    header = provenance.header("binarize", {})
    index = pl.DataFrame(
        {
            "image_id": [f"patient{i:06d}_view1" for i in range(images)],
            "path": [f"patient{i:06d}/view1.jpg" for i in range(images)],
            "patient_id": [f"patient{i:06d}" for i in range(images)],
            "split": ["train" if i % 10 else "valid" for i in range(images)],
            "width": [_WIDTH] * images,
            "height": [_HEIGHT] * images,
            "sha256": ["0" * 64] * images,
            "orientation": pl.Series([1] * images, dtype=pl.Int8),
            "shard": ["0000"] * images,
            "row": list(range(images)),
        }
    )
    tables.write(index, folder / "index.parquet", {**header, "findings": _FINDINGS})
    rng = np.random.default_rng(0)
    with (
        create_shard(folder / "masks.h5", "masks", header) as writer,
        create_shard(folder / "maps.h5", "relevance", header) as other,
    ):
        for start in range(0, pairs, _BLOCK):
            rows = np.arange(start, min(start + _BLOCK, pairs))
            maps = np.stack([_hills(rng, size) for _ in rows])
            masks = (maps > _CUT).astype(np.uint8)
            names = {
                "image_id": [index["image_id"][int(r) // _PER_IMAGE] for r in rows],
                "finding": [_FINDINGS[(r // _PER_IMAGE + 4 * (r % _PER_IMAGE)) % 13] for r in rows],
            }
            ones = np.ones(len(rows), np.float32)
            other.append(names, map=maps)
            writer.append(
                {
                    **names,
                    "label": np.ones(len(rows), np.int8),
                    "area": masks.mean((1, 2), dtype=np.float32),
                    "kept": np.ones(len(rows), bool),
                    "threshold": _CUT * ones,
                    **dict.fromkeys(("probability", "quality"), ones),
                    **dict.fromkeys(("agreement", "completeness"), ones),
                },
                mask=masks,
            )
    member = {"architecture": "none", "sha256": "0" * 64, "metrics": {}}
    write_json(folder / "member" / "model.json", member)
    facts = {"architecture": "Unet", "sha256": "0" * 64}
    write_json(folder / "segmenter" / "segmenter.json", facts)
    write_sanity(folder / "sanity.json")
    tables.write(pl.DataFrame(schema=MASKS), folder / "scores.parquet", header)
    tables.write(pl.DataFrame(schema=PAIRS), folder / "pairs.parquet", header)
    prepare = {"size": size}
    source = {"kind": "phantoms"}
    return configuration.resolved({"dataset": "bench", "source": source, "prepare": prepare})


def _hills(rng: np.random.Generator, size: int) -> npt.NDArray[np.float16]:
    """A map of two hills."""
    y, x = np.ogrid[:size, :size]
    hills = np.zeros((size, size))
    for _ in range(2):
        (cy, cx), (ry, rx) = rng.uniform(0.2, 0.8, 2) * size, rng.uniform(0.05, 0.2, 2) * size
        hills = np.maximum(hills, np.exp(-(((y - cy) / ry) ** 2) - ((x - cx) / rx) ** 2))
    return hills.astype(np.float16)


def _verify(release: Path, workers: int) -> None:
    faults = verify(release, workers=workers)
    assert not faults, faults[:3]


def _time(work: Callable[[], object]) -> dict[str, float]:
    """Seconds on the clock, and of all cores: the first suffer from what else the machine does."""
    wall, cpu = time.perf_counter(), sum(os.times()[:4])
    work()
    return {"wall": time.perf_counter() - wall, "cpu": sum(os.times()[:4]) - cpu}


def print_seconds(results: dict[str, Any]) -> None:
    """Print what was measured."""
    size, pairs = results["size"], results["pairs"]
    print(
        f"{pairs} pairs, masks of {size} px, source images of {_WIDTH}x{_HEIGHT}, "
        f"{results['cores']} cores; a release of {results['bytes'] / 1e6:.1f} MB"
    )
    print(f"{'':<22}{'seconds':>10}{'of cores':>10}   per 100,000 pairs")
    for step, seconds in results["seconds"].items():
        wall, cpu = seconds["wall"], seconds["cpu"]
        whole = [100_000 / pairs * value for value in (wall, cpu)]
        print(f"{step:<22}{wall:>10.2f}{cpu:>10.2f}   {whole[0]:.1f}, of cores {whole[1]:.1f}")
    print(f"loader, one core       {results['images_per_second']:8.0f} images/s (masks only)")


def main() -> None:
    """Measure and print."""
    given = options(__doc__, size=224, pairs=2000).parse_args()
    results = measure(size=given.size, pairs=given.pairs)
    print_seconds(results)
    keep(results, given.json)


if __name__ == "__main__":
    main()
