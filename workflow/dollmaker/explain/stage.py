"""The stage: maps of a segmenter for the released pairs, their measures and a picture."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from dollmaker.explain.depth import DEEPEST
from dollmaker.explain.measures import mean_known, pointing_game, rank_correlation, share_inside
from dollmaker.explain.network import Segmenter, load_segmenter
from dollmaker.explain.page import page, side_by_side, tell_pixels
from dollmaker.explain.picture import Panel, overlays
from dollmaker.explain.seg_cam import (
    METHODS,
    Explained,
    Method,
    PixelSet,
    choose_pixels,
    explain_pixels,
)
from dollmaker.networks.frames import Frames, frames_of
from dollmaker.pixels.geometry import Fit, inside
from dollmaker.release.parts import find_parts
from dollmaker.runtime import devices
from dollmaker.runtime.errors import ArtifactError, ConfigError, DataError
from dollmaker.runtime.progress import Progress
from dollmaker.store import provenance, tables
from dollmaker.store.files import atomic_path, sha256_file, write_text
from dollmaker.store.findings import PRESENT
from dollmaker.store.index import read_index
from dollmaker.store.shards import ImageShards, ShardSeries, create_shard

#: Images that are held at a time, rows of a forward pass, and rows of the picture.
_BLOCK, _CHUNK, _SHOWN = 32, 8, 8


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What is explained.

    Attributes:
        segmenter: Folder of the segmenter.
        index: The index of the images.
        images: Folder of the image shards.
        labels: Folder of the labels, or a release.
    """

    segmenter: Path
    index: Path
    images: Path
    labels: Path


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked; the rest is as section explain of the configuration says.

    Attributes:
        method: Methods to set side by side; default: ``explain.methods``, both.
        layer: Module, or stage of encoder or decoder, whose feature maps are looked at; default:
            ``explain.layer``, encoder.-1, the deepest.
        pixels: Pixels whose logits are explained; default: point if ``--point`` is given, else
            ``explain.pixels``, class, those predicted as the class.
        point: Column and row of one pixel of the network's grid.
        images_limit: Explain so many images at most, the first by name.
    """

    method: Sequence[Method] | None = None
    layer: str | None = None
    pixels: PixelSet | None = None
    point: tuple[int, int] | None = None
    images_limit: int | None = None


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked, in full.

    Attributes:
        methods: Methods to set side by side.
        layer: Layer whose feature maps are looked at.
        pixels: Pixels whose logits are explained.
        point: x and y on the network's grid, for the pixel set ``point``.
        limit: Images to explain at most, the first by name; None: all.
    """

    methods: tuple[Method, ...] = METHODS
    layer: str = DEEPEST
    pixels: PixelSet = "class"
    point: tuple[int, int] | None = None
    limit: int | None = None

    @property
    def told(self) -> str:
        """The pixels in words."""
        return tell_pixels(self.pixels, self.point)


@dataclass(frozen=True, kw_only=True)
class _Pairs:
    """Released pairs of a split.

    Attributes:
        split: test or valid.
        files: Shards of their masks.
        table: image_id, finding, row of the mask, and of the image shard, row, width and height;
            sorted by image.
    """

    split: str
    files: list[Path]
    table: pl.DataFrame


def explain_segmenter(
    config: dict[str, Any],
    inputs: Inputs,
    output: Path,
    asked: Asked,
) -> None:
    """Show where a segmenter looks when it calls pixels a finding.

    Explained are the released pairs of the test images, else of the validation images.

    Writes a folder: ``{method}.h5`` (relevance; maps on the network's grid), ``measures.parquet``
    (one row per pair and method; the truth is the pseudo-mask), ``README.md`` (their means) and
    ``overlays.png``. Maps, predictions and measures are of the picture, without bars around it.

    Args:
        config: The resolved configuration (seed, device, prepare.fit).
        inputs: What is explained.
        output: Folder to make.
        asked: What is asked.

    Raises:
        ConfigError: If the request is not possible.
        DataError: If there is no pair to explain.
        ArtifactError: If a file of an earlier stage is damaged.
    """
    request = _request(asked, config["explain"])
    if request.point is not None and request.pixels != "point":
        raise ConfigError(f"a point is no part of the pixels {request.pixels!r}; leave out one.")
    if request.limit is not None and request.limit < 1:
        raise ConfigError("--images-limit must be at least 1; correct it or leave it out.")
    device = devices.choose(config["device"])
    subject = load_segmenter(inputs.segmenter, config["seed"], device)
    index, _ = read_index(inputs.index)
    pairs = _list_pairs(index, inputs.labels, subject.findings, request.limit)
    header = provenance.header(
        "explain",
        {**asdict(request), "split": pairs.split},
        seed=config["seed"],
        inputs={
            "segmenter": subject.sha256,
            "index": sha256_file(inputs.index),
            **{file.name: sha256_file(file) for file in pairs.files},
        },
    )
    shown = _shown(pairs.table)
    rows: list[pl.DataFrame] = []
    panels: dict[int, Panel] = {}
    progress = Progress("explain", pairs.table["image_id"].n_unique())
    with atomic_path(output) as folder, ExitStack() as stack:
        folder.mkdir()
        writers = {
            method: stack.enter_context(
                create_shard(folder / f"{method}.h5", "relevance", {**header, "method": method})
            )
            for method in request.methods
        }
        for block in _blocks(pairs, inputs.images, subject, config["prepare"]["fit"]):
            explained, blind = _explain(subject, block, request)
            facts = block.facts()
            for method, writer in writers.items():
                one = explained[method]
                scale = one.scale.cpu().numpy()
                writer.append({**facts, "scale": scale}, map=_array(one.maps).astype(np.float16))
                others = [_array(maps[method].maps) for maps in blind]
                rows.append(_measure(block, method, _array(one.maps), others))
            for number in range(len(block.ids)):
                if block.first + number in shown:
                    maps = {str(name): _array(m.maps)[number] for name, m in explained.items()}
                    panels[block.first + number] = block.panel(number, maps)
            progress.add(len(block.images), len(block.ids) * len(writers), 0)
        stack.close()  # the shards are whole before the folder appears
        measures = pl.concat(rows)
        tables.write(measures, folder / "measures.parquet", header)
        picture = overlays([panels[number] for number in shown], request.methods)
        (folder / "overlays.png").write_bytes(picture)
        text = page(measures, layer=request.layer, pixels=request.told, split=pairs.split)
        write_text(folder / "README.md", text)
    print(side_by_side(measures), file=sys.stderr)


def _request(asked: Asked, section: dict[str, Any]) -> Request:
    """What is asked, with what section ``explain`` says of the rest."""
    pixels, point = asked.pixels, asked.point
    if pixels is None and point is None:
        pixels, point = section["pixels"], section["point"]
    return Request(
        methods=tuple(dict.fromkeys(asked.method or section["methods"])),
        layer=asked.layer or section["layer"],
        pixels=pixels or ("class" if point is None else "point"),
        point=None if point is None else (point[0], point[1]),
        limit=section["images"] if asked.images_limit is None else asked.images_limit,
    )


@dataclass(frozen=True, kw_only=True)
class _Block:
    """Some pairs with all that is known of them.

    Attributes:
        first: Number of the first pair.
        ids, findings: Of each pair.
        pairs: (image of this block, output) of each pair.
        images: (B, C, H, W) in levels.
        inputs: float32 (B, C, H, W), prepared.
        logits: float32 (P, H, W).
        truth: uint8 (P, H, W).
        frames: Where the pictures of the B images lie.
    """

    first: int
    ids: list[str]
    findings: list[str]
    pairs: list[tuple[int, int]]
    images: npt.NDArray[Any]
    inputs: Tensor
    logits: Tensor
    truth: npt.NDArray[np.uint8]
    frames: Frames

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

    def share(self, areas: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        """Share of each picture that areas (P, H, W) take, (P,)."""
        return np.array([part.mean() for part in self.pictures(areas)], np.float32)

    def facts(self) -> dict[str, Any]:
        """Columns of a shard of relevance that do not depend on the method."""
        return {
            "image_id": self.ids,
            "finding": self.findings,
            "label": np.full(len(self.ids), PRESENT, np.int8),
            "probability": np.array(
                [float(part.sigmoid().amax()) for part in self.pictures(self.logits)], np.float32
            ),
        }

    def panel(self, number: int, maps: dict[str, npt.NDArray[np.float32]]) -> Panel:
        """One pair for the picture."""
        predicted = self.predicted.cpu().numpy()
        share = f"predicted: {self.share(predicted)[number]:.1%}"
        title = [self.findings[number][:21], self.ids[number][:21], share]
        return Panel(
            title=title,
            image=self.images[self.pairs[number][0]],
            predicted=predicted[number],
            truth=self.truth[number] == 1,
            maps=maps,
        )


def _list_pairs(
    index: pl.DataFrame, labels: Path, findings: Sequence[str], limit: int | None
) -> _Pairs:
    """Kept pairs of the first split that has some, by image; of the first images if limited."""
    for split in ("test", "valid"):
        files = find_parts(labels, "masks", split)
        columns = ShardSeries(files).table()
        table = pl.DataFrame(
            {
                "image_id": pl.Series(columns.get("image_id", []), dtype=pl.String),
                "finding": pl.Series(columns.get("finding", []), dtype=pl.String),
            }
        ).with_row_index("mask")
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
            return _Pairs(split=split, files=files, table=table)
    raise DataError(
        f"{labels} has no mask of a test or validation image that is indexed; make the labels "
        "with validation images."
    )


def _blocks(pairs: _Pairs, images_folder: Path, subject: Segmenter, fit: Fit) -> Iterator[_Block]:
    """The pairs of some images at a time, with what the network predicts for them."""
    table = pairs.table
    pixels = ImageShards(images_folder)
    ids = table["image_id"].unique(maintain_order=True).to_list()
    size = subject.input.size
    device = next(subject.network.parameters()).device
    first = 0
    masks = ShardSeries(pairs.files)
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
            for image_id, finding in mine.select("image_id", "finding").iter_rows()
        ]
        inputs = subject.input.prepare(torch.from_numpy(images).to(device))
        with torch.no_grad():
            logits = torch.cat([subject.network(x).float() for x in torch.split(inputs, _CHUNK)])
        yield _Block(
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


def _explain(
    subject: Segmenter, block: _Block, request: Request
) -> tuple[dict[Method, Explained], list[dict[Method, Explained]]]:
    """Maps by each method, of the network and of the untrained ones for the same pixels."""
    truth = torch.from_numpy(block.truth == 1).to(block.logits.device)
    chosen = choose_pixels(request.pixels, block.predicted, truth, request.point)
    networks = (subject.network, *subject.blind)
    plain, *blind = (
        {
            method: explain_pixels(
                network, block.inputs, block.pairs, chosen,
                method=method, layer=request.layer, chunk=_CHUNK, frames=block.frames,
            )
            for method in request.methods
        }
        for network in networks
    )  # fmt: skip
    return plain, blind


def _measure(
    block: _Block,
    method: str,
    maps: npt.NDArray[np.float32],
    blind: Sequence[npt.NDArray[np.float32]],
) -> pl.DataFrame:
    """Rows of measures.parquet."""
    predicted = block.predicted.cpu().numpy()
    pictures = block.pictures(maps)
    return pl.DataFrame(
        {
            "image_id": block.ids,
            "finding": block.findings,
            "method": [method] * len(block.ids),
            "predicted": block.share(predicted),
            "truth": block.share(block.truth == 1),
            "inside_prediction": share_inside(maps, predicted.astype(np.uint8)),
            "inside_truth": share_inside(maps, block.truth),
            "pointing": pointing_game(maps, block.truth),
            "randomised": mean_known(
                [rank_correlation(pictures, block.pictures(other)) for other in blind]
            ),
        }
    )


def _shown(table: pl.DataFrame) -> list[int]:
    """Numbers of the pairs of the picture, spread over findings."""
    order = table.with_row_index("number").sort("finding", "number")["number"].to_list()
    picks = np.linspace(0, len(order) - 1, min(_SHOWN, len(order))).round().astype(int)
    return [order[pick] for pick in picks]


def _array(values: Tensor) -> npt.NDArray[np.float32]:
    return np.asarray(values.float().cpu().numpy())
