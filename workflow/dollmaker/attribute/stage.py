"""The stage: explain one shard with all members, write only the consensus."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from dollmaker import devices, findings, provenance, tables
from dollmaker.attribute.consensus import agree, reduce_channels, smooth
from dollmaker.attribute.methods import explain
from dollmaker.attribute.selection import select_images, select_pairs
from dollmaker.classify.data import label_matrix
from dollmaker.classify.member import Member, load_member
from dollmaker.errors import ArtifactError, ConfigError, unknown
from dollmaker.files import sha256_file
from dollmaker.prepare.stage import read_index
from dollmaker.shards import Shard, ShardWriter, create_shard

#: Images explained and written at a time.
_BLOCK = 32

_COLUMNS: dict[str, Any] = {
    "image_id": object,
    "finding": object,
    "label": np.int8,
    "probability": np.float32,
    "scale": np.float32,
    "completeness": np.float32,
    "convergence": np.float32,
    "nodes": np.int32,
    "agreement": np.float32,
}


def explain_shard(
    config: dict[str, Any],
    index_file: Path,
    images_folder: Path,
    committee: Sequence[Path],
    recipe: str,
    shard: str,
    output: Path,
) -> None:
    """Write the relevance shard of one image shard.

    Raises:
        ConfigError: If the recipe is unknown or uses the maps of another.
        ArtifactError: If the members do not share the data set's findings.
    """
    if recipe not in config["recipes"]:
        raise ConfigError(unknown("recipe", recipe, config["recipes"]))
    options = config["recipes"][recipe]["attribute"]
    if isinstance(options, str):
        raise ConfigError(f"recipe {recipe!r} uses the maps of {options!r}; explain that one.")
    selection = config["attribute"]
    index, names = read_index(index_file)
    channel_mean = torch.tensor(tables.read_header(index_file)["channel_mean"])
    localized = findings.localized(names, selection["findings"])
    device = devices.choose(config["device"])
    members = [load_member(folder, device) for folder in committee]
    for member in members:
        if member.findings != names:
            raise ArtifactError(
                f"member {member.name} was trained on other findings than the index has; "
                "train it again."
            )
    chosen = select_images(index, localized, selection).filter(pl.col("shard") == shard)
    size = config["prepare"]["size"]
    header = provenance.header(
        "attribute",
        {"select": selection, "recipe": options},
        seed=config["seed"],
        inputs={"index": sha256_file(index_file), **{m.name: m.sha256 for m in members}},
    )
    progress = _Progress(f"attribute {recipe} {shard}", len(chosen))
    with Shard(images_folder / f"{shard}.h5", "images") as source:
        with create_shard(output, "relevance", header) as writer:
            empty = {name: np.array([], dtype) for name, dtype in _COLUMNS.items()}
            writer.append(empty, map=np.zeros((0, size, size), np.float16))
            for start in range(0, len(chosen), _BLOCK):
                block = chosen[start : start + _BLOCK]
                images = torch.from_numpy(source.read("image", block["row"].to_list())).to(device)
                pairs = _explain_block(
                    members,
                    images,
                    block,
                    names,
                    localized,
                    channel_mean,
                    selection,
                    options,
                    writer,
                )
                progress.add(len(block), pairs)


def _explain_block(
    members: Sequence[Member],
    images: Tensor,
    block: pl.DataFrame,
    names: list[str],
    localized: list[str],
    channel_mean: Tensor,
    selection: dict[str, Any],
    options: dict[str, Any],
    writer: ShardWriter,
) -> int:
    """Explain the pairs of some images and append them; returns their number."""
    outputs = [names.index(finding) for finding in localized]
    labels = label_matrix(block, localized)
    probabilities = _probabilities(members, images)[:, outputs]
    chosen = select_pairs(labels, probabilities, selection["min_probability"])
    rows, columns = np.nonzero(chosen)
    if not len(rows):
        return 0
    pairs = [(int(i), outputs[int(k)]) for i, k in zip(rows, columns, strict=True)]
    maps, errors, nodes = [], [], 0
    for member in members:
        result = explain(member, images, pairs, channel_mean, selection["chunk"], options)
        reduced = _resize(
            reduce_channels(result.attributions, options["reduction"]), images.shape[-1]
        )
        maps.append(smooth(reduced, options["smoothing"]))
        errors.append(result.completeness)
        nodes = result.nodes
    consensus = agree(maps)
    ids = block["image_id"].to_list()
    writer.append(
        {
            "image_id": [ids[i] for i in rows],
            "finding": [localized[k] for k in columns],
            "label": labels[rows, columns],
            "probability": probabilities[rows, columns],
            "scale": consensus.scale,
            "completeness": np.max(errors, axis=0),
            "convergence": np.full(len(rows), np.nan, np.float32),
            "nodes": np.full(len(rows), nodes, np.int32),
            "agreement": consensus.agreement,
        },
        map=consensus.maps.astype(np.float16),
    )
    return len(rows)


def _probabilities(members: Sequence[Member], images: Tensor) -> npt.NDArray[np.float32]:
    """The committee's mean probabilities (B, K); always in batches of one size."""
    padded = torch.cat([images, images[-1:].expand(_BLOCK - len(images), -1, -1, -1)])
    with torch.no_grad():
        total = sum(torch.sigmoid(m.network(m.prepare(padded)).float()) for m in members)
    assert isinstance(total, Tensor)  # there is at least one member
    return (total / len(members))[: len(images)].cpu().numpy()


def _resize(maps: npt.NDArray[np.float32], size: int) -> npt.NDArray[np.float32]:
    if maps.shape[-1] == size:
        return maps
    scaled = torch.nn.functional.interpolate(
        torch.from_numpy(maps)[:, None], size=(size, size), mode="bilinear"
    )
    return scaled[:, 0].numpy()


class _Progress:
    """A line on stderr every few seconds."""

    def __init__(self, label: str, images: int, every: float = 10.0) -> None:
        self._label, self._images, self._every = label, images, every
        self._start = self._last = time.monotonic()
        self._done = self._maps = 0

    def add(self, images: int, maps: int) -> None:
        self._done += images
        self._maps += maps
        now = time.monotonic()
        if now - self._last >= self._every or self._done == self._images:
            self._last = now
            rate = self._maps / max(now - self._start, 1e-9)
            left = (now - self._start) / self._done * (self._images - self._done)
            print(
                f"{self._label}: {self._done}/{self._images} images, {self._maps} maps, "
                f"{rate:.1f} maps/s, {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )
