"""The sample: some pairs explained in more ways, to choose thresholds and to check a recipe.

Positive pairs are explained by each member alone, plain and mirrored; by networks with random
weights (Adebayo et al. 2018), since a map that then stays the same ignores the model; and for
another finding of the image, since a map that stays the same ignores the finding. Pairs without the
finding are explained plain and mirrored: they should get no mask.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dollmaker.attribute import consensus
from dollmaker.attribute.committee import Committee, Experts, by_experts, experts, gather
from dollmaker.attribute.consensus import Consensus
from dollmaker.attribute.passes import Pairs
from dollmaker.attribute.selection import Drawn, draw_pairs
from dollmaker.attribute.stage import Inputs, begin
from dollmaker.classify.labels import label_matrix
from dollmaker.config.whole import Config
from dollmaker.measures import scores
from dollmaker.measures.scores import rank_correlation
from dollmaker.networks.classifiers import create_network
from dollmaker.networks.frames import Frames, frames_of
from dollmaker.networks.member import Member
from dollmaker.pixels.geometry import Box, inside
from dollmaker.runtime import devices
from dollmaker.runtime.progress import Progress
from dollmaker.store import provenance
from dollmaker.store.shards import Array, ImageShards, create_shard

#: Side of the members' maps that are kept.
VIEW = 64
_BLOCK = 16
#: Images that are explained between two lines of progress. Maps do not depend on it.
_STEP = {"cpu": 4, "cuda": 16}

#: Networks with random weights for each member; correlations are averaged over them.
DRAWS = 3

#: Shares of the picture that insertion and deletion show or hide.
SHARES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 1.0)


@dataclass(frozen=True, kw_only=True)
class _Images:
    """Images (B, C, H, W) in levels, their ids, and where the pictures lie in them."""

    levels: Tensor
    ids: list[str]
    frames: Frames
    turned: bool = False

    def mirrored(self) -> "_Images":
        levels, frames = self.levels.flip(-1), self.frames.mirrored()
        return replace(self, levels=levels, frames=frames, turned=True)


@dataclass(frozen=True, kw_only=True)
class _Lab:
    """The recipe for each member alone, and for several draws of random weights."""

    plain: list[Committee]
    random: list[list[Committee]]
    progress: Progress

    def explain(self, alone: Committee, images: _Images, pairs: Pairs) -> Consensus:
        """Explain pairs a few images at a time, with a line of progress after each."""
        rows, step = sorted({row for row, _ in pairs}), _STEP[images.levels.device.type]
        parts = []
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            places = [place for place, (row, _) in enumerate(pairs) if row in some]
            wanted = [pairs[place] for place in places]
            asked = images.levels, images.ids, wanted, images.frames
            found = alone.explain(*asked, turned=images.turned)
            parts.append((places, found))
            self.progress.add(len(places), len(places), 0)
        return gather(parts).consensus

    def members(self) -> list[Member]:
        """All members."""
        return [each.members[0] for each in self.plain]

    def of(self, who: Experts) -> "_Lab":
        """The lab with some of the members."""
        random = [[networks[k] for k in who] for networks in self.random]
        return replace(self, plain=[self.plain[k] for k in who], random=random)


def explain_sample(config: Config, inputs: Inputs, recipe: str, output: Path) -> None:
    """Explain a sample of pairs in all ways.

    Writes ``map`` (consensus), ``views`` (each member, plain and mirrored; mirrored maps are turned
    back; NaN of members that do not know the finding) with ``view_scale``, and ``blind``, the maps
    of networks with random weights, of checked pairs; else NaN. Columns beside those of relevance
    shards, NaN for pairs that are not checked: ``randomised``, rank correlation with the maps of
    random weights; ``other``, with the map of another finding; ``insertion`` and ``deletion``, see
    :func:`insertion_deletion`.

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
    task, seed = begin(config, inputs, recipe), config.seed
    members, names, index = task.members, task.names, task.index
    pairs = draw_pairs(index, task.localized, config.sample, seed)
    setup = replace(task.setup, compiled=False)
    lab = _Lab(
        plain=[Committee([member], task.options, setup) for member in members],
        random=[
            [
                Committee([_randomised(member, seed + k + 1000 * draw)], task.options, setup)
                for k, member in enumerate(members)
            ]
            for draw in range(DRAWS)
        ],
        progress=Progress(f"sample {recipe}", _count(members, names, pairs), 0, unit="maps"),
    )
    header = provenance.header(
        "sample",
        {"sample": config.sample.dump(), "recipe": task.options.dump()},
        seed=seed,
        inputs=task.sums,
    )
    rows = sorted({pair.row for pair in pairs})
    pixels, device = ImageShards(inputs.images), devices.choose(config.device)
    with create_shard(output, "relevance", header) as writer:
        for start in range(0, len(rows), _BLOCK):
            block = rows[start : start + _BLOCK]
            of_block = index[block]
            places = of_block.select("shard", "row").rows()
            images = _Images(
                levels=torch.from_numpy(np.stack([pixels.read(*p) for p in places])).to(device),
                ids=of_block["image_id"].to_list(),
                frames=frames_of(of_block, config.prepare.size, config.prepare.fit),
            )
            labels, splits = label_matrix(of_block, names), of_block["split"].to_numpy()
            here = [replace(p, row=block.index(p.row)) for p in pairs if p.row in block]
            groups = by_experts(members, [names.index(p.finding) for p in here])
            for who, chosen in groups.items():
                mine = [here[place] for place in chosen]
                wanted = [(pair.row, names.index(pair.finding)) for pair in mine]
                checked = [p for p, pair in enumerate(mine) if pair.checked]
                table, arrays = _explain(lab.of(who), images, wanted, checked)
                for name in ("views", "view_scale"):
                    arrays[name] = _among_all(arrays[name], who, len(members))
                of_rows = [row for row, _ in wanted]
                facts = {
                    "image_id": [images.ids[row] for row in of_rows],
                    "finding": [pair.finding for pair in mine],
                    "label": labels[of_rows, [k for _, k in wanted]],
                    "probability": table.pop("probability"),
                    "split": splits[of_rows],
                }
                writer.append({**facts, **table}, **arrays)


def _count(members: Sequence[Member], names: Sequence[str], pairs: Sequence[Drawn]) -> int:
    """How many maps a sample takes of its members: plain, mirrored, random, of another finding."""
    total = 0
    for pair in pairs:
        output = names.index(pair.finding)
        who = experts(members, output)
        total += len(who) * (2 + DRAWS * pair.checked)
        mine = [members[number] for number in who]
        other = _other(mine, output) if pair.checked and mine else None
        total += 0 if other is None else len(experts(mine, other))
    return total


def _among_all(values: Array, who: Experts, members: int) -> Array:
    """Values (P, some of the members, ...) at their places among all; NaN elsewhere."""
    full = np.full((len(values), members, *values.shape[2:]), np.nan, values.dtype)
    full[:, list(who)] = values
    return full


def _randomised(member: Member, seed: int) -> Member:
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
    lab: _Lab, images: _Images, pairs: list[tuple[int, int]], checked: list[int]
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Columns and arrays of pairs that all members know; some places are checked."""
    rows, outputs = [row for row, _ in pairs], [k for _, k in pairs]
    turned = images.mirrored()
    plain = [lab.explain(each, images, pairs) for each in lab.plain]
    mirrored = [lab.explain(each, turned, pairs) for each in lab.plain]
    joined = consensus.agree([_whole(one) for one in plain])
    probabilities = torch.stack([each.probabilities(images.levels) for each in lab.plain]).mean(0)
    views = [
        _views(plain, images.frames.of(rows)),
        _views(mirrored, turned.frames.of(rows)).flip(-1),
    ]
    scales = [torch.stack([member.scale for member in one], 1) for one in (plain, mirrored)]
    randomised, other, insertion, deletion = np.full((4, len(pairs)), np.nan, np.float32)
    blind = np.full((len(pairs), DRAWS, *joined.maps.shape[1:]), np.nan, np.float16)
    if checked:
        chosen = [pairs[p] for p in checked]
        where = images.frames.of([row for row, _ in chosen])
        maps = joined.maps[checked]
        drawn = []
        for draw, networks in enumerate(lab.random):
            found = [_whole(lab.explain(each, images, chosen)) for each in networks]
            theirs = consensus.agree(found).maps
            blind[checked, draw] = theirs.half().cpu().numpy()
            drawn.append(_correlations(maps, theirs, where))
        randomised[checked] = scores.nanmean(np.stack(drawn), axis=0)
        other[checked] = _with_others(lab, images, chosen, [_whole(one)[checked] for one in plain])
        for p in checked:
            one = images.levels[rows[p] : rows[p] + 1].float()
            insertion[p], deletion[p] = _curves(
                lab, one, outputs[p], joined.maps[p], images.frames.of([rows[p]])
            )
    table = {
        "probability": probabilities.cpu().numpy()[rows, outputs],
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


def _with_others(lab: _Lab, images: _Images, pairs: Pairs, maps: list[Tensor]) -> Array:
    """Rank correlation of pairs' maps with those of another finding of the image (P,).

    Both maps are the consensus of the members that know both findings; NaN if no member knows
    another. ``maps`` are each member's of the pairs (P, H, W).
    """
    members, found = lab.members(), np.full(len(pairs), np.nan, np.float32)
    others = {place: _other(members, output) for place, (_, output) in enumerate(pairs)}
    known = {place: output for place, output in others.items() if output is not None}
    places = list(known)
    for who, numbers in by_experts(members, list(known.values())).items():
        here = [places[number] for number in numbers]
        wanted = [(pairs[place][0], known[place]) for place in here]
        shown = [lab.explain(lab.plain[k], images, wanted) for k in who]
        mine = consensus.agree([maps[k][here] for k in who])
        theirs = consensus.agree([_whole(one) for one in shown])
        where = images.frames.of([image for image, _ in wanted])
        found[here] = _correlations(mine.maps, theirs.maps, where)
    return found


def _other(members: Sequence[Member], output: int) -> int | None:
    """The next finding that as many of the members as possible know."""
    count = len(members[0].findings)
    following = [(output + step) % count for step in range(1, count)]
    best = max(following, key=lambda k: len(experts(members, k)), default=output)
    return best if best != output and experts(members, best) else None


def _whole(one: Consensus) -> Tensor:
    """A member's map in logits."""
    return one.maps * one.scale[:, None, None]


def _views(members: Sequence[Consensus], frames: Frames) -> Tensor:
    """The pictures' part of members' maps, at the size of the views, (P, M, v, v)."""
    maps = torch.stack([member.maps for member in members], 1)
    v = min(VIEW, maps.shape[-1])
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
    """Insertion and deletion of one pair, on the recipe's first baseline; image (1, C, H, W)."""

    def logit(rows: Tensor) -> Tensor:
        with torch.no_grad():
            logits = [m.network(m.prepare(rows))[:, output] for m in lab.members()]
        return torch.stack(logits).mean(0)

    baseline = lab.plain[0].baselines(image, frames)[0][0]
    return insertion_deletion(
        logit, image[0], baseline, relevance, frames.cells(0, relevance.shape)
    )


def insertion_deletion(
    logit: Callable[[Tensor], Tensor],
    image: Tensor,
    baseline: Tensor,
    relevance: Tensor,
    where: Box,
) -> tuple[float, float]:
    """Areas under the insertion and deletion curve (Petsiuk et al. 2018) of one pair, 0..1.

    In the order of the map, pixels of the picture are put on the baseline (insertion) or replaced
    by it (deletion); other pixels neither change nor count. The logit is scaled to 0 for the
    baseline and 1 for the image, clipped, and integrated over the share of pixels. Good maps have
    high insertion and low deletion; a random order gives about 0.5 for both if the logit grows
    evenly. Both are NaN where the image's logit is not above the baseline's.

    Image and baseline are float (C, H, W) in 0..255, alike outside the picture; ``logit`` goes from
    such rows (R, C, H, W) to logits (R,). Relevance is float (H, W).
    """
    part = inside(relevance, where)
    order = part.flatten().argsort(descending=True, stable=True)
    shown = torch.zeros(len(SHARES), len(order), dtype=torch.bool, device=image.device)
    for row, share in enumerate(SHARES):
        shown[row, order[: round(share * len(order))]] = True
    masks = torch.zeros(len(SHARES), 1, *relevance.shape, dtype=torch.bool, device=image.device)
    inside(masks, where)[...] = shown.view(len(SHARES), 1, *part.shape)
    rows = torch.cat([torch.where(masks, image, baseline), torch.where(masks, baseline, image)])
    values = logit(rows).double().cpu()
    low, high = values[0], values[len(SHARES) - 1]
    if not high > low:
        return float("nan"), float("nan")
    scaled = ((values - low) / (high - low)).clamp(0, 1).view(2, -1)
    areas = torch.trapezoid(scaled, torch.tensor(SHARES, dtype=torch.float64), dim=1)
    return float(areas[0]), float(areas[1])
