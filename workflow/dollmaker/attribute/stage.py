"""The stage: explain one shard with all members and write the consensus.

Images go through in blocks: while one is explained, a thread reads the next and another writes the
one before. A finished block is a small shard in the job's work folder. A killed job goes on after
the last block; at the end all blocks become the output.
"""

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from dollmaker.attribute.baselines import COUNT, NEGATIVES
from dollmaker.attribute.committee import Committee, Setup
from dollmaker.attribute.selection import draw_negatives, select_images, select_pairs
from dollmaker.classify.labels import label_matrix
from dollmaker.config.masks import MapsConfig
from dollmaker.config.whole import Config
from dollmaker.networks.frames import Frames, frames_of
from dollmaker.networks.member import Member, load_member
from dollmaker.pixels.geometry import inside
from dollmaker.runtime import devices
from dollmaker.runtime.errors import ArtifactError, ConfigError, unknown
from dollmaker.runtime.progress import Progress
from dollmaker.store import findings, provenance, tables
from dollmaker.store.files import sha256_file
from dollmaker.store.shards import Array, ImageShards, Shard, create_shard
from dollmaker.store.tables import read_index
from dollmaker.store.work import Work

#: Images explained and written at a time.
BLOCK = {"cpu": 32, "cuda": 128}

_COLUMNS: dict[str, Any] = {
    "image_id": object,
    "finding": object,
    "label": np.int8,
    "probability": np.float32,
    "scale": np.float32,
    "completeness": np.float32,
    "convergence": np.float32,
    "nodes": np.int32,
    "met": np.bool_,
    "agreement": np.float32,
}

#: Columns of the table of pairs, and their maps float16 (P, H, W).
Block = tuple[dict[str, Any], Array]


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What is explained, and by whom.

    Attributes:
        index: The index.
        images: Folder of the image shards.
        committee: Folders of all members.
    """

    index: Path
    images: Path
    committee: Sequence[Path]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a job has read before it explains anything: ``localized`` are findings that get maps."""

    index: pl.DataFrame
    names: list[str]
    localized: list[str]
    members: list[Member]
    options: MapsConfig
    setup: Setup
    sums: dict[str, str]


def begin(config: Config, inputs: Inputs, recipe: str) -> Task:
    """Read the index and the committee.

    Raises:
        ConfigError: If the recipe is unknown or uses the maps of another.
        ArtifactError: If the members do not share the data set's findings.
    """
    if recipe not in config.recipes:
        raise ConfigError(unknown("recipe", recipe, config.recipes))
    options, selection = config.recipes[recipe].attribute, config.attribute
    if isinstance(options, str):
        raise ConfigError(f"recipe {recipe!r} uses the maps of {options!r}; explain that one.")
    index, names = read_index(inputs.index)
    device = devices.choose(config.device)
    devices.set_precision(selection.precision)
    members = [load_member(folder, device) for folder in inputs.committee]
    for member in members:
        if member.findings != names:
            raise ArtifactError(
                f"member {member.name} was trained on other findings than the index has; "
                "train it again."
            )
    return Task(
        index=index,
        names=names,
        localized=findings.localized(names, selection.findings),
        members=members,
        options=options,
        setup=Setup(
            channel_mean=torch.tensor(tables.read_header(inputs.index)["channel_mean"]),
            size=config.prepare.size,
            negatives=read_negatives(config, options, index, names, inputs.images),
            seed=config.seed,
            precision=selection.precision,
            compiled=selection.compile,
            chunk=selection.chunk,
        ),
        sums={"index": sha256_file(inputs.index), **{m.name: m.sha256 for m in members}},
    )


def read_negatives(
    config: Config, options: MapsConfig, index: pl.DataFrame, names: Sequence[str], images: Path
) -> list[Tensor]:
    """The pictures of a recipe's baselines ``negatives``, without bars; none if it has no such.

    Of the data set's findings ``names``, those that are localized are absent.

    Raises:
        DataError: If every training image has a finding.
    """
    if NEGATIVES not in options.baselines:
        return []
    wanted = findings.localized(names, config.attribute.findings)
    rows = draw_negatives(index, wanted, COUNT, config.seed)
    frames = frames_of(rows, config.prepare.size, config.prepare.fit)
    pixels = ImageShards(images)
    found = [torch.from_numpy(pixels.read(*place)) for place in rows.select("shard", "row").rows()]
    device = devices.choose(config.device)
    return [
        inside(image, frames.cells(row, image.shape[1:])).float().to(device)
        for row, image in enumerate(found)
    ]


def explain_shard(config: Config, inputs: Inputs, recipe: str, shard: str, output: Path) -> None:
    """Explain one shard of images with the committee.

    Args:
        config: The resolved configuration.
        inputs: What earlier stages made.
        recipe: Recipe of the configuration.
        shard: Shard to explain, e.g. 0000.
        output: Relevance shard to write.

    Raises:
        ConfigError: If the recipe is unknown or uses the maps of another.
        ArtifactError: If the members do not share the data set's findings.
        ModelError: If the method does not fit a member's network.
    """
    task, selection, prepare = begin(config, inputs, recipe), config.attribute, config.prepare
    chosen = select_images(task.index, task.localized, selection).filter(pl.col("shard") == shard)
    header = provenance.header(
        "attribute",
        {"select": selection.dump(), "recipe": task.options.dump()},
        seed=config.seed,
        inputs=task.sums,
    )
    experts = Committee(task.members, task.options, task.setup)
    device = devices.choose(config.device)
    length = BLOCK[device.type]
    blocks = [chosen[start : start + length] for start in range(0, len(chosen), length)]
    work = Work(output, provenance.digest([header, shard, length]))
    files = [work.folder / f"{number:06d}.h5" for number in range(len(blocks))]
    done = _finished(work.folder)
    todo = [(block, file) for block, file in zip(blocks, files, strict=True) if file not in done]
    left = sum(len(block) for block, _ in todo)
    progress = Progress(f"attribute {recipe} {shard}", len(chosen), len(chosen) - left)
    images = _read_ahead(inputs.images / f"{shard}.h5", [block for block, _ in todo])
    with ThreadPoolExecutor(1) as thread:
        writing: Future[None] | None = None
        for (block, file), stored in zip(todo, images, strict=True):
            frames = frames_of(block, prepare.size, prepare.fit)
            table, maps = _explain_block(
                experts, stored.to(device), block, frames, task, selection.min_probability
            )
            if writing:
                writing.result()
            work.require()
            writing = thread.submit(_write, file, header, (table, maps))
            progress.add(len(block), len(maps), int(np.sum(table["nodes"])))
        if writing:
            writing.result()
    work.require()
    _assemble(files, header, output, prepare.size)
    work.finish()


def _finished(work: Path) -> set[Path]:
    """The blocks that an earlier run finished; damaged ones are removed."""
    done = set()
    for path in work.glob("*.h5"):
        try:
            with Shard(path, "relevance") as block:
                block.table(), block.read("map")
            done.add(path)
        except ArtifactError:
            path.unlink()
    return done


def _read_ahead(path: Path, blocks: Sequence[pl.DataFrame]) -> Iterator[Tensor]:
    """The images of each block, (B, C, H, W); the next one is read meanwhile."""
    with Shard(path, "images") as source, ThreadPoolExecutor(1) as thread:
        ready: Future[Array] | None = None
        for block in blocks:
            following = thread.submit(source.read, "image", block["row"].to_list())
            if ready:
                yield torch.from_numpy(ready.result())
            ready = following
        if ready:
            yield torch.from_numpy(ready.result())


def _explain_block(
    experts: Committee,
    images: Tensor,
    block: pl.DataFrame,
    frames: Frames,
    task: Task,
    min_probability: float | None,
) -> Block:
    outputs = [task.names.index(finding) for finding in task.localized]
    labels = label_matrix(block, task.localized)
    probabilities = experts.probabilities(images)[:, outputs].cpu().numpy()
    rows, columns = np.nonzero(select_pairs(labels, probabilities, min_probability))
    if not len(rows):
        return _empty(images.shape[-1])
    ids = block["image_id"].to_list()
    pairs = [(int(i), outputs[int(k)]) for i, k in zip(rows, columns, strict=True)]
    result = experts.explain(images, ids, pairs, frames)
    table = {
        "image_id": [ids[i] for i in rows],
        "finding": [task.localized[k] for k in columns],
        "label": labels[rows, columns],
        "probability": probabilities[rows, columns],
        "scale": result.consensus.scale.cpu().numpy(),
        "completeness": result.completeness.cpu().numpy(),
        "convergence": result.convergence.cpu().numpy(),
        "nodes": result.nodes.cpu().numpy(),
        "met": result.met.cpu().numpy(),
        "agreement": result.consensus.agreement.cpu().numpy(),
    }
    return table, result.consensus.maps.half().cpu().numpy()


def _empty(size: int) -> Block:
    table = {name: np.array([], dtype) for name, dtype in _COLUMNS.items()}
    return table, np.zeros((0, size, size), np.float16)


def _write(path: Path, header: dict[str, Any], block: Block) -> None:
    with create_shard(path, "relevance", header) as writer:
        writer.append(block[0], map=block[1])


def _assemble(files: Sequence[Path], header: dict[str, Any], output: Path, size: int) -> None:
    pairs = missed = 0
    for file in files:
        with Shard(file, "relevance") as block:
            met = block.table()["met"]
        pairs, missed = pairs + len(met), missed + int((~met).sum())
    with create_shard(output, "relevance", {**header, "pairs": pairs, "missed": missed}) as writer:
        table, maps = _empty(size)
        writer.append(table, map=maps)
        for file in files:
            with Shard(file, "relevance") as block:
                writer.append(block.table(), map=block.read("map"))
    if missed:
        print(f"{missed} of {pairs} maps missed the configured target", file=sys.stderr)
