"""Seconds of a map and of a mask: attribution, binarization, release."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dollmaker.attribute.committee import Committee
from dollmaker.attribute.stage import BLOCK
from dollmaker.binarize.stage import binarize_shard
from dollmaker.classify.data import label_matrix
from dollmaker.networks.frames import frames_of
from dollmaker.networks.member import Member
from dollmaker.plan.clock import measure, measure_each, seconds_of
from dollmaker.plan.count import midpoints
from dollmaker.plan.material import Material, smooth_noise
from dollmaker.release.collect import collect_split
from dollmaker.release.parts import find_parts
from dollmaker.runtime.errors import DataError
from dollmaker.store import provenance
from dollmaker.store.findings import PRESENT
from dollmaker.store.shards import Shard, create_shard

#: Most rows of a forward pass that the engine takes on a CPU by itself.
_CPU_ROWS = 32
#: Adaptive paths take about a fourth of ``max_nodes``; a trial that takes all may last so long.
_EARLY, _OVERDRAW = 4, 4
#: Backward passes cost about so many forward passes.
_BACKWARD = 1.5


@dataclass(frozen=True, kw_only=True)
class Attribution:
    """What a recipe's maps take.

    Attributes:
        map: Seconds of a map, by all members.
        nodes: Mean nodes of a path.
        assumed: Whether adaptive nodes were not measured, but taken as ``max_nodes``.
        build: Seconds to set the committee up, once a job.
        repetitions: Measurements behind the median.
        how: With what it was measured.
    """

    map: float
    nodes: float
    assumed: bool
    build: float
    repetitions: int
    how: str


def attribution(
    config: dict[str, Any],
    recipe: str,
    members: Sequence[Member],
    material: Material,
    device: torch.device,
    budget: float,
) -> Attribution:
    """Explain some images with the whole committee as the stage attribute does.

    Args:
        config: The resolved configuration.
        recipe: A recipe with maps of its own.
        members: The members.
        material: Images.
        device: Where they are.
        budget: Seconds to spend.

    Raises:
        ModelError: If the method does not fit a member's network.
    """
    options = config["recipes"][recipe]["attribute"]
    labels = label_matrix(material.index, material.localized) == PRESENT
    each = _forward_seconds(members, material, device)
    each *= 1 + _BACKWARD * max(1.0, float(labels.sum(1).mean()))
    trial = fit_budget(options, each, budget / 3, BLOCK[device.type])
    chunk, need = config["attribute"]["chunk"], trial.images * _nodes(trial.options)
    if device.type == "cpu" and need < (chunk or _CPU_ROWS):
        chunk = min(need, 4)  # a pass is padded to its rows: more would be wasted work
    made: list[Committee] = []
    build = seconds_of(
        lambda: made.append(_committee(config, trial.options, members, material, chunk))
    )
    experts = made[0]
    order = np.argsort(labels.sum(1), kind="stable")
    chosen = np.resize(order[midpoints(len(order), trial.images)], trial.images)
    rows = material.index[chosen.tolist()]
    stored = material.pixels(rows).to(device)
    frames = frames_of(rows, config["prepare"]["size"], config["prepare"]["fit"])
    ids = [str(number) for number in range(trial.images)]
    outputs = [material.findings.index(finding) for finding in material.localized]
    pairs = [(int(i), outputs[int(k)]) for i, k in zip(*np.nonzero(labels[chosen]), strict=True)]
    pairs = pairs or [(i, outputs[0]) for i in range(trial.images)]
    nodes: list[float] = []

    def explain() -> None:
        experts.probabilities(stored)
        nodes.append(float(experts.explain(stored, ids, pairs, frames).nodes.float().mean()))

    seconds, repetitions = measure(explain, budget / 2 if trial.more else budget)
    if trial.more:
        experts.options = trial.more
        few, some = _nodes(trial.options), _nodes(trial.more)
        more, _ = measure(explain, budget / 2)
        seconds = extrapolate(few, seconds, some, more, _nodes(options))
    copies = _copies(options) / _copies(trial.options)
    return Attribution(
        map=seconds / len(pairs) * copies,
        nodes=nodes[0] if trial.options == options else float(_nodes(options)),
        assumed=bool(options["adaptive"]) and not trial.options["adaptive"],
        build=build,
        repetitions=repetitions,
        how=f"{len(pairs)} maps of {trial.images} images{trial.cut}",
    )


def _forward_seconds(members: Sequence[Member], material: Material, device: torch.device) -> float:
    """Seconds of one image through all members."""
    rows = material.pixels(material.index[:1]).to(device)

    def forward() -> None:
        for member in members:
            member.network(member.prepare(rows))

    with torch.no_grad():
        forward()
        return min(seconds_of(forward) for _ in range(2))


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What is tried instead of the whole recipe.

    Attributes:
        options: Section ``attribute``, perhaps with fewer nodes and noisy copies.
        more: The same with twice the nodes, if nodes were reduced: the difference tells what a
            node costs.
        images: Images of the trial.
        cut: What was reduced, in words.
    """

    options: dict[str, Any]
    more: dict[str, Any] | None
    images: int
    cut: str


def fit_budget(options: dict[str, Any], each: float, budget: float, most: int) -> Trial:
    """A trial that fits its time: fewer images, and for one image fewer copies and nodes.

    Args:
        options: Section ``attribute`` of a recipe.
        each: Seconds of one image with one node, copy and baseline.
        budget: Seconds of the trial.
        most: Most images.
    """
    paths = len(options["baselines"]) if options["method"] == "integrated_gradients" else 1
    image = each * paths * _copies(options) * _nodes(options)
    if options["adaptive"] and image <= _OVERDRAW * budget:
        # Most maps stop early: some more images, at the risk of a long trial.
        image = min(image / _EARLY, budget)
    if image <= budget:
        fitting = int(budget / max(image, 1e-9))
        return Trial(options=options, more=None, images=max(1, min(most, fitting)), cut="")
    trial, more, cut = dict(options), None, []
    if _copies(options) > 1:
        trial["noise"] = {**options["noise"], "samples": 1}
        cut.append(f"1 of {_copies(options)} noisy copies")
    nodes = _nodes(options)
    few = min(max(1, int(budget / (each * paths * 2))), nodes // 2)
    if few:
        trial |= {"adaptive": None, "nodes": few}
        more = {**trial, "nodes": 2 * few}
        cut.append(f"{few} to {2 * few} of {nodes} nodes")
    words = f", {' and '.join(cut)}, scaled" if cut else ""
    return Trial(options=trial, more=more, images=1, cut=words)


def extrapolate(few: int, seconds: float, some: int, more: float, nodes: int) -> float:
    """Seconds with ``nodes`` nodes, from those with a few and with some more."""
    slope = max(0.0, (more - seconds) / (some - few))
    return seconds + (nodes - few) * slope


def _nodes(options: dict[str, Any]) -> int:
    """Nodes of a path; with adaptive nodes the most there may be; 1 for other methods."""
    if options["method"] != "integrated_gradients":
        return 1
    adaptive = options["adaptive"]
    return int(adaptive["max_nodes"] if adaptive else options["nodes"])


def _copies(options: dict[str, Any]) -> int:
    return int(options["noise"]["samples"]) if options["noise"] else 1


def _committee(
    config: dict[str, Any],
    options: dict[str, Any],
    members: Sequence[Member],
    material: Material,
    chunk: int | None,
) -> Committee:
    return Committee(
        members,
        options,
        channel_mean=material.channel_mean,
        size=config["prepare"]["size"],
        seed=config["seed"],
        precision=config["attribute"]["precision"],
        compiled=config["attribute"]["compile"],
        chunk=chunk,
    )


@dataclass(frozen=True, kw_only=True)
class Masks:
    """What masks take.

    Attributes:
        mask: Seconds of a mask.
        repetitions: Measurements behind the median.
        number: Masks of each.
        file: The shard that was written.
    """

    mask: float
    repetitions: int
    number: int
    file: Path


def binarization(config: dict[str, Any], recipe: str, material: Material, budget: float) -> Masks:
    """Turn smooth random maps into masks as the stage binarize does.

    Args:
        config: The resolved configuration.
        recipe: The recipe.
        material: Images.
        budget: Seconds to spend.
    """
    output = material.folder / f"masks-{recipe}.h5"
    files: dict[int, Path] = {}

    measured = _without_thresholds(config, recipe)

    def work(number: int) -> None:
        if number not in files:
            files[number] = _random_maps(config, material, number)
        binarize_shard(measured, material.images_file, files[number], recipe, output)

    work(2)  # the first call imports what the steps need
    seconds, repetitions, number = measure_each(work, budget)
    return Masks(mask=seconds, repetitions=repetitions, number=number, file=output)


def _without_thresholds(config: dict[str, Any], recipe: str) -> dict[str, Any]:
    """Thresholds chosen without truth are not known yet; Otsu's takes as long."""
    steps = [
        {"otsu": {}} if "label_free" in step else step
        for step in config["recipes"][recipe]["binarize"]
    ]
    return {**config, "recipes": {recipe: {"attribute": {}, "binarize": steps}}}


def _maps_file(material: Material, number: int) -> Path:
    return material.folder / f"relevance-{number}.h5"


def _random_maps(config: dict[str, Any], material: Material, number: int) -> Path:
    """A relevance shard: blurred noise for the positive findings of the images in turn."""
    size, rng = config["prepare"]["size"], np.random.default_rng(0)
    few = [smooth_noise(rng, (size, size), size / 10) for _ in range(4)]
    ones = np.ones(number, np.float32)
    images, columns = np.nonzero(label_matrix(material.index, material.localized) == PRESENT)
    if not len(images):
        images, columns = np.arange(len(material.index)), np.zeros(len(material.index), np.int64)
    rows = np.arange(number)
    images, columns = np.resize(images, number), np.resize(columns, number)
    path = _maps_file(material, number)
    with create_shard(path, "relevance", {"format": provenance.FORMAT}) as writer:
        writer.append(
            {
                "image_id": material.index["image_id"].to_numpy()[images],
                "finding": np.array(material.localized, dtype=object)[columns],
                "label": np.full(number, PRESENT, np.int8),
                **dict.fromkeys(("probability", "scale", "agreement"), ones),
                "completeness": 0 * ones,
            },
            map=np.stack([few[row % 4] for row in rows]).astype(np.float16),
        )
    return path


def release(material: Material, masks: Path, budget: float) -> Masks:
    """Collect masks as the stage labels does.

    Args:
        material: Images.
        masks: A shard of masks.
        budget: Seconds to spend.

    Raises:
        DataError: If none of them is kept.
    """
    folder, kept = material.folder / "release", 0
    with Shard(masks, "masks") as shard:
        maps = _maps_file(material, len(shard))

    def work() -> None:
        nonlocal kept
        header = {"format": provenance.FORMAT}
        kept = collect_split(material.index, [(masks, maps)], "train", folder, header)

    seconds, repetitions = measure(work, budget)
    if not kept:
        raise DataError(
            "the released recipe keeps no mask of a positive finding; loosen its gates."
        )
    (file,) = find_parts(folder, "masks", "train")
    return Masks(mask=seconds / kept, repetitions=repetitions, number=kept, file=file)
