"""The sample: some pairs explained in more ways, to choose thresholds and to check a recipe.

Positive pairs are explained by each member alone, plain and mirrored; by networks with random
weights (Adebayo et al. 2018), since a map that then stays the same ignores the model; and for
another finding of the image, since a map that stays the same ignores the finding. Pairs without the
finding are explained plain and mirrored: they should get no mask.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from dollmaker.attribute import consensus, faithfulness, mixed
from dollmaker.attribute.baselines import make_baseline
from dollmaker.attribute.committee import Committee
from dollmaker.attribute.consensus import Consensus
from dollmaker.attribute.passes import Pairs
from dollmaker.attribute.stage import Inputs
from dollmaker.classify.data import label_matrix
from dollmaker.measures import scores
from dollmaker.measures.ranks import rank_correlation
from dollmaker.networks.classifiers import create_network
from dollmaker.networks.frames import Frames, frames_of
from dollmaker.networks.member import Member, load_member
from dollmaker.pixels.geometry import Fit, inside
from dollmaker.runtime import devices
from dollmaker.runtime.errors import DataError
from dollmaker.runtime.progress import Progress
from dollmaker.store import findings, provenance, tables
from dollmaker.store.files import sha256_file
from dollmaker.store.findings import ABSENT, BLANK, PRESENT
from dollmaker.store.index import read_index
from dollmaker.store.shards import Array, ImageShards, create_shard

#: Side of the members' maps that are kept.
VIEW = 64
_BLOCK = 16
#: Images that are explained between two lines of progress. Maps do not depend on it.
_STEP = {"cpu": 4, "cuda": 16}

#: Networks with random weights for each member; correlations are averaged over them.
DRAWS = 3


@dataclass(frozen=True, kw_only=True)
class _Lab:
    """The recipe for each member alone, and for several draws of random weights."""

    plain: list[Committee]
    random: list[list[Committee]]
    mean: Tensor
    size: int
    fit: Fit
    progress: Progress

    def explain(
        self, experts: Committee, images: Tensor, ids: list[str], pairs: Pairs, frames: Frames
    ) -> Consensus:
        """Explain pairs a few images at a time, with a line of progress after each."""
        rows, step = sorted({row for row, _ in pairs}), _STEP[images.device.type]
        parts = []
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            places = [place for place, (row, _) in enumerate(pairs) if row in some]
            wanted = [pairs[place] for place in places]
            parts.append((places, experts.explain(images, ids, wanted, frames)))
            self.progress.add(len(places), len(places), 0)
        return mixed.gather(parts).consensus

    def members(self) -> list[Member]:
        """All members."""
        return [each.members[0] for each in self.plain]

    def of(self, who: mixed.Experts) -> "_Lab":
        """The lab with some of the members."""
        random = [[networks[k] for k in who] for networks in self.random]
        return replace(self, plain=[self.plain[k] for k in who], random=random)


@dataclass(frozen=True, order=True)
class _Drawn:
    """A pair of the sample: row of the index, number and name of the finding."""

    row: int
    number: int
    finding: str
    positive: bool
    checked: bool


def draw_pairs(
    index: pl.DataFrame, names: Sequence[str], options: dict[str, Any], seed: int
) -> list[_Drawn]:
    """The pairs of the sample, by row.

    They are drawn by a hash of (seed, finding, image), whatever the number of shards.

    Args:
        index: The whole index.
        names: Findings that are localized.
        options: Section ``sample``.
        seed: The configured seed.

    Raises:
        DataError: If there is no positive pair.
    """
    allowed = index["split"].is_in(options["splits"]).to_numpy()
    labels = label_matrix(index, names)
    ids = index["image_id"].to_list()
    chosen: list[_Drawn] = []
    for k, finding in enumerate(names):
        candidates = np.nonzero(allowed)[0].tolist()
        keys = {row: _draw(f"{seed}/{finding}/{ids[row]}") for row in candidates}
        for positive, wanted in ((True, (PRESENT,)), (False, (ABSENT, BLANK))):
            rows = [row for row in keys if labels[row, k] in wanted]
            rows.sort(key=lambda row: keys[row])
            most = options["positives"] if positive else options["checks"]
            chosen += [
                _Drawn(row, k, finding, positive, positive and place < options["checks"])
                for place, row in enumerate(rows[:most])
            ]
    if not any(pair.positive for pair in chosen):
        raise DataError(
            f"no image of the splits {', '.join(options['splits'])} has a finding that is "
            "localized; set sample.splits."
        )
    return sorted(chosen)


def _draw(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def explain_sample(config: dict[str, Any], inputs: Inputs, recipe: str, output: Path) -> None:
    """Explain a sample in more ways, for thresholds and sanity checks.

    The sample is of a recipe with maps of its own: a relevance shard with more in it.

    Arrays: ``map`` as in any relevance shard; ``views``, the maps of each member as they are and
    mirrored (turned back), float16 (P, M, 2, v, v), v at most 64: the picture alone, averaged over
    v x v places; and ``view_scale``, float32 (P, M, 2), by which a view is multiplied to be in
    logits per pixel of the square, as ``map`` is by the column ``scale``. Both are NaN of members
    that do not know the finding; ``blind``, float16 (P, :data:`DRAWS`, S, S), the maps of networks
    with random weights, NaN of pairs that were not checked. More columns: ``randomised`` and
    ``other``, rank correlations of the map with those of random weights (mean of the draws) and of
    another finding; ``insertion`` and ``deletion``, see :mod:`faithfulness`.

    Args:
        config: The resolved configuration.
        inputs: What earlier stages made.
        recipe: Recipe of the configuration.
        output: Relevance shard to write.

    Raises:
        ArtifactError: If a file of an earlier stage is damaged.
        DataError: If there is no positive pair to sample.
        ModelError: If the method does not fit a member's network.
    """
    options = config["recipes"][recipe]["attribute"]
    index, names = read_index(inputs.index)
    device = devices.choose(config["device"])
    devices.set_precision(config["attribute"]["precision"])
    members = [load_member(folder, device) for folder in inputs.committee]
    localized = findings.localized(names, config["attribute"]["findings"])
    pairs = draw_pairs(index, localized, config["sample"], config["seed"])
    mean = torch.tensor(tables.read_header(inputs.index)["channel_mean"])
    lab = _Lab(
        plain=[_alone(member, options, config, mean) for member in members],
        random=[
            [
                _alone(_randomised(member, config["seed"] + k + 1000 * draw), options, config, mean)
                for k, member in enumerate(members)
            ]
            for draw in range(DRAWS)
        ],
        mean=mean.to(device),
        size=config["prepare"]["size"],
        fit=config["prepare"]["fit"],
        progress=Progress(f"sample {recipe}", _count(members, names, pairs), 0, unit="maps"),
    )
    header = provenance.header(
        "sample",
        {"sample": config["sample"], "recipe": options},
        seed=config["seed"],
        inputs={"index": sha256_file(inputs.index), **{m.name: m.sha256 for m in members}},
    )
    rows = sorted({pair.row for pair in pairs})
    pixels = ImageShards(inputs.images)
    with create_shard(output, "relevance", header) as writer:
        for start in range(0, len(rows), _BLOCK):
            block = rows[start : start + _BLOCK]
            places = index[block].select("shard", "row").rows()
            images = torch.from_numpy(np.stack([pixels.read(*place) for place in places]))
            here = [replace(p, row=block.index(p.row)) for p in pairs if p.row in block]
            images = images.to(device)
            groups = mixed.by_experts(lab.members(), [names.index(p.finding) for p in here])
            for who, chosen in groups.items():
                mine = [here[place] for place in chosen]
                table, arrays = _explain(lab.of(who), images, index[block], mine, names)
                for name in ("views", "view_scale"):
                    arrays[name] = _among_all(arrays[name], who, len(members))
                writer.append(table, **arrays)


def _count(members: Sequence[Member], names: Sequence[str], pairs: Sequence[_Drawn]) -> int:
    """How many maps a sample takes of its members: plain, mirrored, random, of another finding."""
    total = 0
    for pair in pairs:
        output = names.index(pair.finding)
        experts = mixed.experts(members, output)
        total += len(experts) * (2 + DRAWS * pair.checked)
        mine = [members[number] for number in experts]
        other = _other(mine, output) if pair.checked and mine else None
        total += 0 if other is None else len(mixed.experts(mine, other))
    return total


def _among_all(values: Array, who: mixed.Experts, members: int) -> Array:
    """Values (P, some of the members, ...) at their places among all; NaN elsewhere."""
    full = np.full((len(values), members, *values.shape[2:]), np.nan, values.dtype)
    full[:, list(who)] = values
    return full


def _alone(
    member: Member, options: dict[str, Any], config: dict[str, Any], mean: Tensor
) -> Committee:
    return Committee(
        [member],
        options,
        channel_mean=mean,
        size=config["prepare"]["size"],
        seed=config["seed"],
        precision=config["attribute"]["precision"],
        chunk=config["attribute"]["chunk"],
    )


def _randomised(member: Member, seed: int) -> Member:
    """The member with random weights."""
    device = next(member.network.parameters()).device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network, _ = create_network(
            member.architecture,
            outputs=len(member.findings),
            channels=member.input.channels,
            size=member.input.size,
        )
    network.eval().to(device).to(memory_format=torch.channels_last).requires_grad_(False)
    return replace(member, network=network)


def _explain(
    lab: _Lab, images: Tensor, rows: pl.DataFrame, pairs: list[_Drawn], names: list[str]
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Table and arrays of pairs that all members know, whose rows are those of the block."""
    ids = rows["image_id"].to_list()
    wanted = [(pair.row, names.index(pair.finding)) for pair in pairs]
    images_of, outputs = [row for row, _ in wanted], [k for _, k in wanted]
    frames = frames_of(rows, lab.size, lab.fit)
    plain = [lab.explain(each, images, ids, wanted, frames) for each in lab.plain]
    turned = images.flip(-1), ids, wanted, frames.mirrored()
    mirrored = [lab.explain(each, *turned) for each in lab.plain]
    joined = consensus.agree([_whole(one) for one in plain])
    labels = label_matrix(rows, names)[images_of, outputs]
    probabilities = torch.stack([each.probabilities(images) for each in lab.plain]).mean(0)
    checked = [p for p, pair in enumerate(pairs) if pair.checked]
    views = [
        _views(plain, frames.of(images_of), lab.size),
        _views(mirrored, frames.mirrored().of(images_of), lab.size).flip(-1),
    ]
    scales = [torch.stack([member.scale for member in one], 1) for one in (plain, mirrored)]
    randomised, other, insertion, deletion = np.full((4, len(pairs)), np.nan, np.float32)
    blind = np.full((len(pairs), DRAWS, *joined.maps.shape[1:]), np.nan, np.float16)
    if checked:
        chosen = [wanted[p] for p in checked]
        where = frames.of([row for row, _ in chosen])
        maps = joined.maps[checked]
        drawn = []
        for draw, networks in enumerate(lab.random):
            found = [_whole(lab.explain(each, images, ids, chosen, frames)) for each in networks]
            theirs = consensus.agree(found).maps
            blind[checked, draw] = theirs.half().cpu().numpy()
            drawn.append(_correlations(maps, theirs, where))
        randomised[checked] = scores.nanmean(np.stack(drawn), axis=0)
        own = [_whole(one)[checked] for one in plain]
        other[checked] = _with_others(lab, images, ids, chosen, frames, own)
        for p in checked:
            insertion[p], deletion[p] = _curves(
                lab, images[images_of[p]], outputs[p], joined.maps[p], frames.of([images_of[p]])
            )
    table = {
        "image_id": [ids[row] for row in images_of],
        "finding": [pair.finding for pair in pairs],
        "label": labels,
        "probability": probabilities.cpu().numpy()[images_of, outputs],
        "split": rows["split"].to_numpy()[images_of],
        "scale": joined.scale.cpu().numpy(),
        "agreement": joined.agreement.cpu().numpy(),
        "randomised": randomised,
        "other": other,
        "insertion": insertion,
        "deletion": deletion,
    }
    arrays = {
        "map": joined.maps.half().cpu().numpy(),
        "views": torch.stack(views, 2).half().cpu().numpy(),
        "view_scale": torch.stack(scales, 2).cpu().numpy(),
        "blind": blind,
    }
    return table, arrays


def _with_others(
    lab: _Lab,
    images: Tensor,
    ids: list[str],
    pairs: list[tuple[int, int]],
    frames: Frames,
    maps: list[Tensor],
) -> Array:
    """Rank correlation of pairs' maps with those of another finding of the image (P,).

    Both maps are the consensus of the members that know both findings; NaN if no member knows
    another.

    Args:
        lab: The members, who know the pairs.
        images: (B, C, H, W) in levels.
        ids: Their image ids.
        pairs: (image, output) numbers.
        frames: Where the pictures lie in the images.
        maps: Each member's maps of the pairs (P, H, W).
    """
    members, found = lab.members(), np.full(len(pairs), np.nan, np.float32)
    others = [_other(members, output) for _, output in pairs]
    places = [place for place, output in enumerate(others) if output is not None]
    groups = mixed.by_experts(members, [k for k in others if k is not None])
    for who, numbers in groups.items():
        here = [places[number] for number in numbers]
        wanted = [(pairs[place][0], int(others[place] or 0)) for place in here]
        shown = [lab.explain(lab.plain[k], images, ids, wanted, frames) for k in who]
        mine = consensus.agree([maps[k][here] for k in who])
        theirs = consensus.agree([_whole(one) for one in shown])
        where = frames.of([image for image, _ in wanted])
        found[here] = _correlations(mine.maps, theirs.maps, where)
    return found


def _other(members: Sequence[Member], output: int) -> int | None:
    """The next finding that as many of the members as possible know."""
    count = len(members[0].findings)
    following = [(output + step) % count for step in range(1, count)]
    best = max(following, key=lambda k: len(mixed.experts(members, k)), default=output)
    return best if best != output and mixed.experts(members, best) else None


def _whole(one: Consensus) -> Tensor:
    """A member's map in logits."""
    return one.maps * one.scale[:, None, None]


def _views(members: Sequence[Consensus], frames: Frames, size: int) -> Tensor:
    """The pictures' part of members' maps, at the size of the views, (P, M, v, v)."""
    maps = torch.stack([member.maps for member in members], 1)
    v = min(VIEW, size)
    views = maps.new_zeros((*maps.shape[:2], v, v))
    for pair, values in enumerate(maps):
        part = inside(values, frames.cells(pair, maps.shape[2:]))
        views[pair] = torch.nn.functional.adaptive_avg_pool2d(part, v)
    return views


def _correlations(a: Tensor, b: Tensor, frames: Frames) -> Array:
    """Rank correlation of maps inside the pictures, pair by pair (P,)."""
    found = []
    for pair, both in enumerate(zip(a.cpu().numpy(), b.cpu().numpy(), strict=True)):
        where = frames.cells(pair, a.shape[1:])
        found.append(rank_correlation(*(inside(one, where).ravel() for one in both)))
    return np.array(found, np.float32)


def _curves(
    lab: _Lab, image: Tensor, output: int, relevance: Tensor, frames: Frames
) -> tuple[float, float]:
    """Insertion and deletion of one pair, on the recipe's first baseline."""

    def logit(rows: Tensor) -> Tensor:
        with torch.no_grad():
            logits = [m.network(m.prepare(rows))[:, output] for e in lab.plain for m in e.members]
        return torch.stack(logits).mean(0)

    name = lab.plain[0].options["baselines"][0]
    baseline = make_baseline(name, image[None].float(), lab.mean, frames)[0]
    where = frames.cells(0, relevance.shape)
    return faithfulness.insertion_deletion(logit, image.float(), baseline, relevance, where)
