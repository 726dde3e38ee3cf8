"""What is explained: a segmenter, and released pairs with what it predicts for them."""

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor, nn

from dollmaker.config.networks import SegmentConfig
from dollmaker.networks.frames import Frames, frames_of
from dollmaker.networks.inputs import Input
from dollmaker.networks.segmenters import NETWORK, create
from dollmaker.networks.weights import read_weights
from dollmaker.pictures.overlay import MASK, TRUTH, Rgb, heat, outline, to_rgb
from dollmaker.pixels.geometry import Fit, inside
from dollmaker.release.parts import find_parts
from dollmaker.runtime.errors import ArtifactError, DataError, ModelError
from dollmaker.store.files import read_json, sha256_file
from dollmaker.store.findings import PRESENT
from dollmaker.store.shards import ImageShards, ShardSeries

#: Images that are held at a time, rows of a forward pass, and side of a tile of the picture.
_BLOCK, CHUNK, _TILE = 32, 8, 160

#: Untrained networks of the randomisation test: one alone may resemble the trained one by chance.
BLIND = 3

_KEYS = ("image_id", "finding")

Floats = npt.NDArray[np.float32]

#: Text, and tiles beside it.
Drawn = tuple[str, list[Rgb]]


@dataclass(frozen=True, kw_only=True)
class Segmenter:
    """A network to explain."""

    network: nn.Module  #: In evaluation mode, parameters frozen.
    #: The same, each with other random weights, none with those the training began with.
    blind: list[nn.Module]
    findings: list[str]  #: Name of each output channel.
    input: Input  #: What the network expects.
    sha256: str  #: Checksum of the weights.


def load_segmenter(folder: Path, seed: int, device: torch.device) -> Segmenter:
    """Read the folder that ``dollmaker segment`` wrote.

    ``seed`` is what those of the untrained weights are derived from.

    Raises:
        ArtifactError: If the folder is damaged.
        ModelError: If weights are missing or do not fit the description.
    """
    description = read_json(folder / "segmenter.json")
    file = folder / "model.safetensors"
    state = read_weights(file)
    try:
        names, options = list(description["findings"]), description["header"]["config"]
        made_of = SegmentConfig(**{key: options[key] for key in NETWORK})
        spec, sha256 = Input(**description["input"]), description["sha256"]
        seeds = blind_seeds(seed, description["header"].get("seed"))
        shape = {"channels": spec.channels, "classes": len(names), "size": spec.size}
        networks = [create(made_of, **shape, seed=one) for one in (0, *seeds)]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(
            f"{folder / 'segmenter.json'} is not as written ({error}); make the segmenter again."
        ) from None
    if sha256 != sha256_file(file):
        raise ArtifactError(f"{file} is not what was written (checksum); make the segmenter again.")
    try:
        networks[0].load_state_dict(state)
    except RuntimeError as error:
        detail = str(error).strip().splitlines()[-1].strip()[:200]
        raise ModelError(
            f"{file} does not fit its description ({detail}); make the segmenter again."
        ) from None
    trained, *blind = (network.eval().requires_grad_(False).to(device) for network in networks)
    return Segmenter(network=trained, blind=blind, findings=names, input=spec, sha256=sha256)


def blind_seeds(seed: int, own: int | None = None) -> list[int]:
    """Seeds of the untrained networks: :data:`BLIND` different numbers.

    None draws the same weights as the global seed, or as ``own``, which the segmenter was created
    with.
    """
    # Of a seed torch takes the lowest 32 bits.
    taken = {number % 2**32 for number in (seed, own) if number is not None}
    texts = (f"explain {seed} {k}".encode() for k in itertools.count())
    drawn = (int.from_bytes(hashlib.sha256(text).digest()[:4], "big") for text in texts)
    seeds: list[int] = []
    while len(seeds) < BLIND:
        number = next(drawn)
        if number not in taken and number not in seeds:
            seeds.append(number)
    return seeds


# --- released pairs ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Released pairs of a split."""

    split: str  #: Test or valid.
    files: list[Path]  #: Shards of their masks.
    #: Image_id, finding, row of the mask, and of the image shard, row, width and height; sorted by
    #: image.
    table: pl.DataFrame


@dataclass(frozen=True, kw_only=True)
class Block:
    """Some pairs with all that is known of them."""

    first: int  #: Number of the first pair.
    ids: list[str]  #: Image of each pair.
    findings: list[str]  #: Finding of each pair.
    pairs: list[tuple[int, int]]  #: (image of this block, output) of each pair.
    images: npt.NDArray[Any]  #: (B, C, H, W) in levels.
    inputs: Tensor  #: float32 (B, C, H, W), prepared.
    logits: Tensor  #: float32 (P, H, W).
    truth: npt.NDArray[np.uint8]  #: uint8 (P, H, W).
    frames: Frames  #: Where the pictures of the B images lie.

    @property
    def predicted(self) -> Tensor:
        """Where the sigmoid is over 0.5 in the picture, bool (P, H, W)."""
        return self.frames.of([image for image, _ in self.pairs]).cut(self.logits > 0)

    def pictures(self, squares: Any) -> list[Any]:
        """The pictures' parts of squares (P, H, W), NumPy or torch: of each pair (h, w)."""
        grid = squares.shape[1:]
        return [
            inside(square, self.frames.cells(image, grid))
            for square, (image, _) in zip(squares, self.pairs, strict=True)
        ]

    def share(self, areas: npt.NDArray[np.bool_]) -> Floats:
        """Share of each picture that areas (P, H, W) take, (P,)."""
        return np.array([part.mean() for part in self.pictures(areas)], np.float32)

    def facts(self) -> dict[str, Any]:
        """Columns of a shard of relevance that do not depend on the method."""
        highest = [float(part.sigmoid().amax()) for part in self.pictures(self.logits)]
        return {
            "image_id": self.ids,
            "finding": self.findings,
            "label": np.full(len(self.ids), PRESENT, np.int8),
            "probability": np.array(highest, np.float32),
        }

    def draw(self, number: int, maps: Mapping[str, Floats]) -> Drawn:
        """One pair for the picture: lines of text, the image, and each method's map over it.

        The prediction is outlined in orange, the truth in teal (on the image only).
        """
        predicted = self.predicted.cpu().numpy()
        share = f"predicted: {self.share(predicted)[number]:.1%}"
        title = [self.findings[number][:21], self.ids[number][:21], share]
        title += [f"{name}:\nno relevance" for name, one in maps.items() if not one.any()]
        ground = to_rgb(self.images[self.pairs[number][0]], (_TILE, _TILE))
        drawn = [outline(ground, self.truth[number] == 1, TRUTH)]
        drawn += [heat(ground, one) for one in maps.values()]
        return "\n".join(title), [outline(tile, predicted[number], MASK) for tile in drawn]


def list_pairs(
    index: pl.DataFrame, labels: Path, findings: Sequence[str], limit: int | None
) -> Pairs:
    """Kept pairs of the first split that has some, by image; of the first images if limited.

    Raises:
        DataError: If there is no pair.
    """
    for split in ("test", "valid"):
        files = find_parts(labels, "masks", split)
        columns = ShardSeries(files).table()
        names = {name: pl.Series(columns.get(name, []), dtype=pl.String) for name in _KEYS}
        table = pl.DataFrame(names).with_row_index("mask")
        if "kept" in columns:
            table = table.filter(pl.Series(columns["kept"].astype(bool), dtype=pl.Boolean))
        table = table.filter(pl.col("finding").is_in(list(findings))).join(
            index.select("image_id", "shard", "row", "width", "height"),
            on="image_id",
            maintain_order="left",
        )
        table = table.sort("image_id", "mask")
        if limit is not None:
            chosen = table["image_id"].unique(maintain_order=True).head(limit)
            table = table.filter(pl.col("image_id").is_in(chosen.to_list()))
        if len(table):
            return Pairs(split=split, files=files, table=table)
    raise DataError(
        f"{labels} has no mask of a test or validation image that is indexed; make the labels "
        "with validation images."
    )


def read_blocks(pairs: Pairs, images_folder: Path, subject: Segmenter, fit: Fit) -> Iterator[Block]:
    """The pairs of some images at a time, with what the network predicts for them.

    Raises:
        ArtifactError: If masks, images and the segmenter are not of one size.
    """
    table = pairs.table
    pixels, masks = ImageShards(images_folder), ShardSeries(pairs.files)
    ids = table["image_id"].unique(maintain_order=True).to_list()
    size = subject.input.size
    device = next(subject.network.parameters()).device
    first = 0
    for start in range(0, len(ids), _BLOCK):
        block = ids[start : start + _BLOCK]
        mine = table[first:].filter(pl.col("image_id").is_in(block))
        sources = mine.unique("image_id", maintain_order=True)
        images = np.stack([pixels.read(*p) for p in sources.select("shard", "row").rows()])
        truth = np.stack([masks.read("mask", row) for row in mine["mask"].to_list()])
        if truth.shape[1:] != (size, size) or images.shape[2:] != (size, size):
            raise ArtifactError(
                f"masks of {pairs.files[0]} are {truth.shape[-1]} pixels wide, images "
                f"{images.shape[-1]}, the segmenter's {size}; make the segmenter again."
            )
        wanted = [
            (block.index(image_id), subject.findings.index(finding))
            for image_id, finding in mine.select(_KEYS).iter_rows()
        ]
        inputs = subject.input.prepare(torch.from_numpy(images).to(device))
        with torch.no_grad():
            logits = torch.cat([subject.network(x).float() for x in torch.split(inputs, CHUNK)])
        yield Block(
            first=first,
            ids=mine["image_id"].to_list(),
            findings=mine["finding"].to_list(),
            pairs=wanted,
            images=images,
            inputs=inputs,
            logits=logits[[i for i, _ in wanted], [k for _, k in wanted]],
            truth=truth,
            frames=frames_of(sources, size, fit),
        )
        first += len(mine)
