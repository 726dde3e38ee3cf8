"""The stage: explain one shard with all members and write the consensus.

Images go through in blocks: while one is explained, a thread reads the next and another writes the
one before. A finished block is a small shard in the job's work folder. A killed job goes on after
the last block; at the end all blocks become the output.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from dollmaker.attribute.committee import Committee
from dollmaker.attribute.selection import select_images, select_pairs
from dollmaker.classify.data import label_matrix
from dollmaker.networks.frames import Frames, frames_of
from dollmaker.networks.member import load_member
from dollmaker.runtime import devices
from dollmaker.runtime.errors import ArtifactError, ConfigError, unknown
from dollmaker.runtime.progress import Progress
from dollmaker.store import findings, provenance, tables
from dollmaker.store.files import sha256_file
from dollmaker.store.index import read_index
from dollmaker.store.shards import Array, Shard, create_shard
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


def explain_shard(
    config: dict[str, Any], inputs: Inputs, recipe: str, shard: str, output: Path
) -> None:
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
    if recipe not in config["recipes"]:
        raise ConfigError(unknown("recipe", recipe, config["recipes"]))
    options = config["recipes"][recipe]["attribute"]
    if isinstance(options, str):
        raise ConfigError(f"recipe {recipe!r} uses the maps of {options!r}; explain that one.")
    selection = config["attribute"]
    index, names = read_index(inputs.index)
    device = devices.choose(config["device"])
    devices.set_precision(selection["precision"])
    members = [load_member(folder, device) for folder in inputs.committee]
    for member in members:
        if member.findings != names:
            raise ArtifactError(
                f"member {member.name} was trained on other findings than the index has; "
                "train it again."
            )
    localized = findings.localized(names, selection["findings"])
    chosen = select_images(index, localized, selection).filter(pl.col("shard") == shard)
    header = provenance.header(
        "attribute",
        {"select": selection, "recipe": options},
        seed=config["seed"],
        inputs={"index": sha256_file(inputs.index), **{m.name: m.sha256 for m in members}},
    )
    experts = Committee(
        members,
        options,
        channel_mean=torch.tensor(tables.read_header(inputs.index)["channel_mean"]),
        size=config["prepare"]["size"],
        seed=config["seed"],
        precision=selection["precision"],
        compiled=selection["compile"],
        chunk=selection["chunk"],
    )
    length = BLOCK[device.type]
    blocks = [chosen[start : start + length] for start in range(0, len(chosen), length)]
    images_file = inputs.images / f"{shard}.h5"
    work = Work(output, provenance.digest([header, shard, length]))
    done = _finished(work.folder)
    started = time.monotonic()
    progress = Progress(
        f"attribute {recipe} {shard}", len(chosen), sum(len(blocks[number]) for number in done)
    )
    with ThreadPoolExecutor(1) as thread:
        writing: Future[float] | None = None
        spent = 0.0
        todo = [number for number in range(len(blocks)) if number not in done]
        images = _read_ahead(images_file, [blocks[number] for number in todo])
        for number, stored in zip(todo, images, strict=True):
            block = blocks[number]
            frames = frames_of(block, config["prepare"]["size"], config["prepare"]["fit"])
            table, maps = _explain_block(
                experts, stored.to(device), block, frames, names, localized, selection
            )
            if writing:
                spent += writing.result()
            work.require()
            writing = thread.submit(_write, _file(work, number), header, (table, maps))
            progress.add(len(block), len(maps), int(np.sum(table["nodes"])))
        if writing:
            spent += writing.result()
    spent += _assemble(work, len(blocks), header, output, config["prepare"]["size"])
    work.finish()
    total = max(time.monotonic() - started, 1e-9)
    print(
        f"attribute {recipe} {shard}: {total:.1f} s, of which writing {spent:.1f} s "
        f"({100 * spent / total:.1f} %)",
        file=sys.stderr,
    )


def _finished(work: Path) -> set[int]:
    """Numbers of the blocks that an earlier run finished; damaged blocks are removed."""
    done = set()
    for path in work.glob("*.h5"):
        try:
            with Shard(path, "relevance") as block:
                block.table(), block.read("map")
            done.add(int(path.stem))
        except ArtifactError:
            path.unlink()
    return done


def _read_ahead(path: Path, blocks: Sequence[pl.DataFrame]) -> Iterator[Tensor]:
    """The images of each block, (B, C, H, W); the next one is read meanwhile."""
    with Shard(path, "images") as source, ThreadPoolExecutor(1) as thread:
        waiting = [
            thread.submit(source.read, "image", block["row"].to_list()) for block in blocks[:1]
        ]
        for following in [*blocks[1:], None]:
            if not waiting:
                return
            current = waiting.pop()
            if following is not None:
                current.result()
                waiting.append(thread.submit(source.read, "image", following["row"].to_list()))
            yield torch.from_numpy(current.result())


def _explain_block(
    experts: Committee,
    images: Tensor,
    block: pl.DataFrame,
    frames: Frames,
    names: list[str],
    localized: list[str],
    selection: dict[str, Any],
) -> Block:
    """Explain the chosen pairs of some images."""
    outputs = [names.index(finding) for finding in localized]
    labels = label_matrix(block, localized)
    probabilities = experts.probabilities(images)[:, outputs].cpu().numpy()
    rows, columns = np.nonzero(select_pairs(labels, probabilities, selection["min_probability"]))
    if not len(rows):
        return _empty(images.shape[-1])
    ids = block["image_id"].to_list()
    pairs = [(int(i), outputs[int(k)]) for i, k in zip(rows, columns, strict=True)]
    result = experts.explain(images, ids, pairs, frames)
    table = {
        "image_id": [ids[i] for i in rows],
        "finding": [localized[k] for k in columns],
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


def _file(work: Work, number: int) -> Path:
    return work.folder / f"{number:06d}.h5"


def _write(path: Path, header: dict[str, Any], block: Block) -> float:
    """Write one block; returns the seconds it took."""
    started = time.monotonic()
    with create_shard(path, "relevance", header) as writer:
        writer.append(block[0], map=block[1])
    return time.monotonic() - started


def _assemble(work: Work, blocks: int, header: dict[str, Any], output: Path, size: int) -> float:
    """Make the output of all blocks; returns the seconds it took."""
    started = time.monotonic()
    pairs = missed = 0
    files = [_file(work, number) for number in range(blocks)]
    for path in files:
        with Shard(path, "relevance") as block:
            met = block.table()["met"]
        pairs, missed = pairs + len(met), missed + int((~met).sum())
    work.require()
    header = {**header, "pairs": pairs, "missed": missed}
    with create_shard(output, "relevance", header) as writer:
        table, maps = _empty(size)
        writer.append(table, map=maps)
        for path in files:
            with Shard(path, "relevance") as block:
                writer.append(block.table(), map=block.read("map"))
    if missed:
        print(f"{missed} of {pairs} maps missed the configured target", file=sys.stderr)
    return time.monotonic() - started
