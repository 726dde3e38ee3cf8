"""What the calibration works on: a few images of the source, as shards with an index."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from PIL import Image
from scipy import ndimage

from dollmaker.pixels.stacks import write_stack
from dollmaker.plan.clock import Rate, say
from dollmaker.plan.count import Source
from dollmaker.prepare import stage as prepare
from dollmaker.store import provenance, tables
from dollmaker.store.depth import Stored, to_stored
from dollmaker.store.index import read_index
from dollmaker.store.shards import ImageShards, create_shard

#: Images of the calibration, and of each of its shards; the first shard is the warm-up.
SAMPLE, _SHARD = 32, 8

#: Width and height of images that are made up: those of CheXpert-v1.0-small.
_MADE_UP = (390, 320)


@dataclass(frozen=True, kw_only=True)
class Material:
    """Images that were decoded for the calibration.

    Attributes:
        folder: Folder for temporary files.
        index: Their index; all are called training images.
        findings: All findings.
        localized: Those that get maps.
        images: Their pixels.
        images_file: A shard with all of them, in the order of the index.
        channel_mean: Mean of each channel, (C,), 0..255.
        real: Whether they are the source's; else they are smooth noise.
        image_bytes: Compressed bytes of an image in a shard.
        decode: What decoding takes.
    """

    folder: Path
    index: pl.DataFrame
    findings: list[str]
    localized: list[str]
    images: ImageShards
    images_file: Path
    channel_mean: torch.Tensor
    real: bool
    image_bytes: float
    decode: Rate

    def unopened(self) -> ImageShards:
        """The images again, with no file open: open ones do not survive the fork of a loader."""
        return ImageShards(self.images.folder)

    def tiled(self, number: int) -> pl.DataFrame:
        """So many rows of the index, which is repeated as needed."""
        return pl.concat([self.index] * -(-number // len(self.index)))[:number]

    def pixels(self, rows: pl.DataFrame) -> torch.Tensor:
        """Images (B, C, H, W) in levels."""
        places = rows.select("shard", "row").iter_rows()
        return torch.from_numpy(np.stack([self.images.read(*place) for place in places]))


def gather(config: dict[str, Any], source: Source, sample: pl.DataFrame, folder: Path) -> Material:
    """Decode a few images as the stage prepare does; make some up if none can be read.

    Args:
        config: The resolved configuration.
        source: The source.
        sample: Some of its rows.
        folder: Folder for temporary files.
    """
    work = folder / "real"
    rate, reason = _decode(config, sample, source.findings, source.root, work)
    index, _ = read_index(work / "index.parquet")
    real = not index.is_empty()
    if not real:
        say(f"no sampled image can be read (the first: {reason}): going on with made-up ones")
        work = folder / "made-up"
        sample = _make_up(sample, config, folder / "source")
        rate, _ = _decode(config, sample, source.findings, folder / "source", work)
        index, _ = read_index(work / "index.parquet")
    elif reason:
        broken = len(sample) - len(index)
        say(f"{broken} of {len(sample)} sampled images cannot be read, the first: {reason}")
    kind = "files of the source" if real else "made-up JPEG files"
    images = ImageShards(work)
    pixels = np.stack([images.read(*place) for place in index.select("shard", "row").iter_rows()])
    return Material(
        folder=folder,
        index=index,
        findings=source.findings,
        localized=source.localized,
        images=images,
        images_file=folder / "all.h5",
        channel_mean=torch.tensor(tables.read_header(work / "index.parquet")["channel_mean"]),
        real=real,
        image_bytes=_image_bytes(index, to_stored(pixels), folder),
        decode=Rate(
            what="decode",
            unit="image",
            seconds=float(np.median(rate)),
            repetitions=len(rate),
            how=f"{len(index)} {kind}, one core",
        ),
    )


def _decode(
    config: dict[str, Any], sample: pl.DataFrame, findings: list[str], root: Path, folder: Path
) -> tuple[list[float], str]:
    """Decode into shards and an index; seconds of an image by shard, and why one was refused."""
    config = {**config, "prepare": {**config["prepare"], "max_quarantined": 1.0}}
    names = [f"{number // _SHARD:04d}" for number in range(len(sample))]
    plan = sample.drop("row").with_columns(
        pl.Series("shard", names), pl.lit("train").alias("split")
    )
    header = {**provenance.header("prepare", config["prepare"]), "findings": findings}
    tables.write(plan, folder / "plan.parquet", header)
    rows, times = [], []
    for name in sorted(set(names)):
        rows.append(folder / f"{name}.parquet")
        began = time.perf_counter()
        prepare.decode_shard(
            config, folder / "plan.parquet", name, root, folder / f"{name}.h5", rows[-1], 1
        )
        times.append((time.perf_counter() - began) / names.count(name))
    index = folder / "index.parquet"
    prepare.build_index(config, folder / "plan.parquet", rows, index, folder / "quarantine.csv")
    broken = tables.read_header(index)["quarantine"]
    return times[1:] or times, str(broken[0]["reason"]) if broken else ""


def _image_bytes(index: pl.DataFrame, pixels: Stored, folder: Path) -> float:
    """By how much an image lets a shard grow: two shards differ by one set of the images."""
    sizes = []
    for name, copies in (("all", 1), ("twice", 2)):
        with create_shard(folder / f"{name}.h5", "images", {"format": 1}) as writer:
            for _ in range(copies):
                writer.append(
                    {
                        "image_id": index["image_id"].to_list(),
                        **{side: index[side].to_numpy() for side in ("width", "height")},
                    },
                    image=pixels,
                )
        sizes.append((folder / f"{name}.h5").stat().st_size)
    return (sizes[1] - sizes[0]) / len(index)


def _make_up(sample: pl.DataFrame, config: dict[str, Any], folder: Path) -> pl.DataFrame:
    """Files of smooth noise under new names, with the labels of the sample."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(config["seed"])
    channels = config["prepare"]["channels"]
    suffix = "jpg" if channels in (1, 3) else "tif"
    names = [f"{number}.{suffix}" for number in range(len(sample))]
    for name in names:
        grey = (255 * smooth_noise(rng, (_MADE_UP[1], _MADE_UP[0]), 4.0)).astype(np.uint8)
        if suffix == "tif":
            write_stack(folder / name, np.stack([grey] * channels))
            continue
        image = Image.fromarray(grey)
        if channels == 3:
            image = image.convert("RGB")
        image.save(folder / name, quality=90)
    return sample.with_columns(pl.Series("path", names))


def smooth_noise(
    rng: np.random.Generator, shape: tuple[int, int], sigma: float
) -> npt.NDArray[np.float32]:
    """Blurred noise, scaled to 0..1."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), sigma)
    noise -= noise.min()
    return np.asarray(noise / max(noise.max(), 1e-9), np.float32)
