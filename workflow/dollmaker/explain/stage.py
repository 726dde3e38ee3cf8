"""The stage: maps of a segmenter for the released pairs, their measures and a picture."""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor, nn

from dollmaker.attribute.passes import Question
from dollmaker.config.networks import ExplainConfig
from dollmaker.config.whole import Config
from dollmaker.explain.measures import (
    mean_known,
    page,
    pointing_game,
    rank_correlation,
    share_inside,
    side_by_side,
    tell_pixels,
)
from dollmaker.explain.seg_cam import Explained, Method, PixelSet, choose_pixels, explain_pixels
from dollmaker.explain.subject import (
    CHUNK,
    Block,
    Drawn,
    Segmenter,
    list_pairs,
    load_segmenter,
    read_blocks,
)
from dollmaker.pictures.overlay import sheet, to_png
from dollmaker.runtime import devices
from dollmaker.runtime.errors import ConfigError
from dollmaker.runtime.picks import evenly
from dollmaker.runtime.progress import Progress
from dollmaker.store import provenance, tables
from dollmaker.store.files import atomic_path, sha256_file, write_text
from dollmaker.store.shards import create_shard
from dollmaker.store.tables import read_index

#: Rows of the picture.
_SHOWN = 8


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
    """What is asked, in full: as :class:`Asked`, ``limit`` the images to explain at most."""

    methods: tuple[Method, ...]
    layer: str
    pixels: PixelSet
    point: tuple[int, int] | None
    limit: int | None


def explain_segmenter(config: Config, inputs: Inputs, output: Path, asked: Asked) -> None:
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
    request = _request(asked, config.explain)
    subject = load_segmenter(inputs.segmenter, config.seed, devices.choose(config.device))
    index, _ = read_index(inputs.index)
    pairs = list_pairs(index, inputs.labels, subject.findings, request.limit)
    header = provenance.header(
        "explain",
        {**asdict(request), "split": pairs.split},
        seed=config.seed,
        inputs={
            "segmenter": subject.sha256,
            "index": sha256_file(inputs.index),
            **{file.name: sha256_file(file) for file in pairs.files},
        },
    )
    shown = _shown(pairs.table)
    rows: list[pl.DataFrame] = []
    drawn: dict[int, Drawn] = {}
    progress = Progress("explain", pairs.table["image_id"].n_unique())
    with atomic_path(output) as folder, ExitStack() as stack:
        folder.mkdir()
        writers = {
            method: stack.enter_context(
                create_shard(folder / f"{method}.h5", "relevance", {**header, "method": method})
            )
            for method in request.methods
        }
        for block in read_blocks(pairs, inputs.images, subject, config.prepare.fit):
            explained, *blind = _explain(subject, block, request)
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
                    drawn[block.first + number] = block.draw(number, maps)
            progress.add(len(block.images), len(block.ids) * len(writers), 0)
        stack.close()  # the shards are whole before the folder appears
        measures = pl.concat(rows)
        tables.write(measures, folder / "measures.parquet", header)
        titles = ["orange predicted, teal truth", *request.methods]
        picture = sheet([drawn[number] for number in shown], titles=titles, beside=True)
        (folder / "overlays.png").write_bytes(to_png(picture, colours=None))
        told = tell_pixels(request.pixels, request.point)
        text = page(measures, layer=request.layer, pixels=told, split=pairs.split)
        write_text(folder / "README.md", text)
    print(side_by_side(measures), file=sys.stderr)


def _request(asked: Asked, section: ExplainConfig) -> Request:
    """What is asked, with what section ``explain`` says of the rest."""
    pixels, point = asked.pixels, asked.point
    if pixels is None and point is None:
        pixels = section.pixels
        point = (section.point[0], section.point[1]) if section.point else None
    pixels = pixels or ("class" if point is None else "point")
    if point is not None and pixels != "point":
        raise ConfigError(f"a point is no part of the pixels {pixels!r}; leave out one.")
    limit = section.images if asked.images_limit is None else asked.images_limit
    if limit is not None and limit < 1:
        raise ConfigError("--images-limit must be at least 1; correct it or leave it out.")
    return Request(
        methods=tuple(dict.fromkeys(asked.method or section.methods)),
        layer=asked.layer or section.layer,
        pixels=pixels,
        point=point,
        limit=limit,
    )


def _explain(subject: Segmenter, block: Block, request: Request) -> list[dict[Method, Explained]]:
    """Maps by each method, of the network and then of the untrained ones for the same pixels."""
    truth = torch.from_numpy(block.truth == 1).to(block.logits.device)
    chosen = choose_pixels(request.pixels, block.predicted, truth, request.point)

    def of_network(network: nn.Module) -> dict[Method, Explained]:
        question = Question(network, block.inputs, block.pairs, CHUNK, block.frames)
        maps = partial(explain_pixels, question, chosen, layer=request.layer)
        return {method: maps(method=method) for method in request.methods}

    return [of_network(network) for network in (subject.network, *subject.blind)]


def _measure(
    block: Block,
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
    return [order[place] for place in evenly(len(order), _SHOWN)]


def _array(values: Tensor) -> npt.NDArray[np.float32]:
    return np.asarray(values.float().cpu().numpy())
