"""The committee: from a block of stored images to one map with certificates per pair.

Its members may know different findings: only those who know one explain it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dollmaker.attribute import consensus
from dollmaker.attribute.baselines import NEGATIVES, make_baseline, put_negative
from dollmaker.attribute.consensus import Consensus
from dollmaker.attribute.features import Look, features, seen_at, strength
from dollmaker.attribute.frozen import FrozenNetwork
from dollmaker.attribute.integrated_gradients import (
    Level,
    Paths,
    Refined,
    Stop,
    fixed,
    forward,
    nested,
    refine,
)
from dollmaker.attribute.methods import METHODS, explain
from dollmaker.attribute.passes import Chunk, Pairs, Question, fitting_rows
from dollmaker.config.masks import MapsConfig, NoiseConfig
from dollmaker.networks.frames import WHOLE, Frames
from dollmaker.networks.member import Member
from dollmaker.networks.positions import own_side
from dollmaker.runtime.errors import ModelError

#: Numbers of the members that know a finding.
Experts = tuple[int, ...]


def experts(members: Sequence[Member], output: int) -> Experts:
    """The numbers of the members that know a finding, given by the number of its logit."""
    return tuple(number for number, member in enumerate(members) if member.knows(output))


def by_experts(members: Sequence[Member], outputs: Sequence[int]) -> dict[Experts, list[int]]:
    """Who explains -> places in ``outputs``, the numbers of logits.

    Raises:
        ModelError: If nobody knows a finding.
    """
    groups: dict[Experts, list[int]] = {}
    for place, output in enumerate(outputs):
        groups.setdefault(experts(members, output), []).append(place)
    if () in groups:
        finding = members[0].findings[outputs[groups[()][0]]]
        raise ModelError(
            f"no member of the committee ({', '.join(member.name for member in members)}) knows "
            f"the finding {finding!r}; leave it out of attribute.findings, or add a member that "
            "knows it."
        )
    return groups


def gather(parts: Sequence[tuple[Sequence[int], Refined]]) -> Refined:
    """Maps in the order of all pairs, from groups: places of their pairs, and what was found."""
    order = torch.tensor([place for places, _ in parts for place in places]).argsort()

    def joined(found: Sequence[Any]) -> Any:
        """Tensors in the order of the pairs, or an object of such tensors."""
        if isinstance(found[0], Tensor):
            return torch.cat(list(found))[order.to(found[0].device)]
        names = [field.name for field in fields(found[0])]
        return replace(
            found[0], **{name: joined([getattr(one, name) for one in found]) for name in names}
        )

    whole: Refined = joined([refined for _, refined in parts])
    return whole


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What holds for all recipes of a run."""

    channel_mean: Tensor  #: Mean of each channel over the training images, (C,), 0..255.
    size: int  #: Side of the stored images, and of the maps.
    #: Pictures without any finding, (C, h, w) in levels, without bars; baselines.
    negatives: Sequence[Tensor] = ()
    seed: int = 0  #: Seed of the noise.
    precision: str = "fp32"  #: ``fp32``, ``tf32`` or ``bf16``.
    compiled: bool = False  #: Use torch.compile.
    #: Rows (image x node) of a forward pass; ``None`` measures how many fit.
    chunk: int | None = None


class Committee:
    """All members, on one device, ready to explain by one recipe.

    Raises:
        ModelError: If the method cannot be made right for a member.
    """

    def __init__(self, members: Sequence[Member], options: MapsConfig, setup: Setup) -> None:
        self.members, self.options, self.setup = members, options, setup
        device = next(members[0].network.parameters()).device
        shape = (1, len(setup.channel_mean), setup.size, setup.size)
        # Noise, because a network's answer to a flat image says little about its gradients: as
        # wide as half of what pixels may be.
        self._networks: list[FrozenNetwork] = []
        self._chunks: list[Chunk] = []
        for member in members:
            grey, white, black = (
                member.prepare(torch.full(shape, level, dtype=torch.uint8, device=device))
                for level in (100, 255, 0)
            )
            drawn = torch.randn(grey.shape, generator=torch.Generator().manual_seed(0)).to(grey)
            rough = grey + drawn * ((white - black) / 2)
            network = FrozenNetwork(
                member.network, rough, precision=setup.precision, compiled=setup.compiled
            )
            self._networks.append(network)
            self._chunks.append(Chunk(setup.chunk or fitting_rows(network.forward, rough)))

    def baselines(self, images: Tensor, frames: Frames, *, turned: bool = False) -> list[Tensor]:
        """Where the paths of images (B, C, H, W) start, in 0..255; see :meth:`explain`."""
        stored, setup, found = images.float(), self.setup, []
        for name in self.options.baselines:
            if name == NEGATIVES:
                pictures = [one.flip(-1) if turned else one for one in setup.negatives]
                found += [put_negative(one, stored, frames) for one in pictures]
            else:
                found.append(make_baseline(name, stored, setup.channel_mean, frames))
        return found

    def probabilities(self, images: Tensor) -> Tensor:
        """The mean probabilities (B, K) of images (B, C, H, W) in levels.

        The mean is over the members that know a finding, NaN where nobody does.
        """
        found = []
        for network, member, chunk in zip(self._networks, self.members, self._chunks, strict=True):
            logits = chunk.run(partial(forward, network, member.prepare(images)))
            # In float32 an element's last bit would depend on its place in the array (vector
            # instructions for most, scalar ones for the rest).
            found.append(member.calibration.probabilities(logits.double()))
        each = torch.stack(found)
        outputs = range(each.shape[2])
        if all(member.knows(output) for member in self.members for output in outputs):
            return each.mean(0).float()
        columns = [each[list(experts(self.members, k)), :, k].mean(0) for k in outputs]
        return torch.stack(columns, 1).float()

    def explain(
        self,
        images: Tensor,
        ids: Sequence[str],
        pairs: Pairs,
        frames: Frames = WHOLE,
        *,
        turned: bool = False,
    ) -> Refined:
        """Explain at least one pair, (image, output) numbers, of images with these ids.

        Images are (B, C, H, W) in levels: uint8, or float32 in 0..255; ``turned`` ones are mirrored
        left to right, as baselines then are. Maps are 0 outside the pictures before they are scaled
        and compared. Completeness is that of the whole attributions.

        Raises:
            ModelError: If no member knows a finding.
        """
        parts = []
        for who, places in by_experts(self.members, [output for _, output in pairs]).items():
            rows = sorted({pairs[place][0] for place in places})
            mine = [(rows.index(pairs[place][0]), pairs[place][1]) for place in places]
            some, inside = images[rows], frames.of(rows)
            starts = self.baselines(some, inside, turned=turned)
            of_some = some, [ids[row] for row in rows], mine, inside
            parts.append((places, self._explain(who, *of_some, starts)))
        return parts[0][1] if len(parts) == 1 else gather(parts)

    def _explain(
        self,
        who: Experts,
        images: Tensor,
        ids: Sequence[str],
        pairs: Pairs,
        frames: Frames,
        starts: Sequence[Tensor],
    ) -> Refined:
        """Explain pairs by some of the members, who all know the findings, from baselines."""
        paths = [
            Paths(
                network=self._networks[number],
                chunk=self._chunks[number],
                images=self._copies(self._seen(self.members[number], images), ids, frames),
                baselines=[self.members[number].prepare(start) for start in starts],
                brighter=self.options.reduction == "brighter",
            )
            for number in who
        ]
        if self.options.method == "integrated_gradients":
            summarize = partial(self._summarize, frames=frames)
            refined = refine(paths, pairs, *_refinement(self.options), summarize)
        else:
            refined = self._by_method(who, paths, pairs, frames)
        if not self.options.fuse:
            return refined
        weights = torch.stack([self._strength(number, images, frames) for number in who])
        rows = weights.mean(0)[[image for image, _ in pairs]]
        return replace(refined, consensus=consensus.fuse(refined.consensus, rows))

    def _strength(self, number: int, images: Tensor, frames: Frames) -> Tensor:
        """How strong a member's features are, (B, size, size) in [0, 1]."""
        member = self.members[number]
        look = Look(side=self.options.side)
        found = features(member.network, self._shown(member, images), look, frames=frames)
        return consensus.resize(strength(found, frames), self.setup.size)

    def _seen(self, member: Member, images: Tensor) -> Tensor:
        """Stored images as the method looks at them."""
        method = METHODS.get(self.options.method)
        cuts = method is not None and "side" in method.options
        return self._shown(member, images) if cuts else member.prepare(images)

    def _shown(self, member: Member, images: Tensor) -> Tensor:
        """Stored images for a member's features.

        They keep their size for a transformer that sees them at another side than its own: one
        resize, not two.
        """
        own, side = own_side(member.network), self.options.side
        if own is None or seen_at(member.network, side) == own:
            return member.prepare(images)
        return replace(member.input, size=self.setup.size).prepare(images)

    def _by_method(
        self, who: Experts, committee: Sequence[Paths], pairs: Pairs, frames: Frames
    ) -> Refined:
        maps = []
        for number, paths in zip(who, committee, strict=True):
            network, copies = self.members[number].network, []
            for x in paths.images:

                def work(rows: int, x: Tensor = x, network: Any = network, p: Paths = paths) -> Any:
                    asked = Question(network, x, pairs, rows, frames)
                    return explain(asked, self.options, p.baselines)

                copies.append(paths.chunk.run(work))
            maps.append(torch.stack(copies, 1))
        found = self._summarize(maps, pairs, frames)
        unknown = torch.full_like(found.scale, torch.nan)
        return Refined(
            consensus=found,
            completeness=unknown,
            convergence=unknown,
            nodes=torch.ones_like(unknown, dtype=torch.int32),
            met=torch.ones_like(unknown, dtype=torch.bool),
        )

    def _copies(self, x: Tensor, ids: Sequence[str], frames: Frames) -> list[Tensor]:
        spread = self.options.noise
        return noisy_copies(x, ids, spread, self.setup.seed, frames) if spread else [x]

    def _summarize(self, attributions: list[Tensor], pairs: Pairs, frames: Frames) -> Consensus:
        """Members' attributions (P, S, C, H, W) to the consensus at the stored size.

        Smoothing repeats the edges of the picture. The cut comes after the resize, which can carry
        relevance a pixel over the edge.
        """
        options, size = self.options, self.setup.size
        sigma = size / consensus.SIDES if options.smoothing is None else options.smoothing
        mine = frames.of([image for image, _ in pairs])
        maps = []
        for member in attributions:
            spread = options.noise
            if options.reduction == "brighter":  # what speaks for the finding, by each baseline
                reduced = member.clamp(min=0).sum(2).mean(1)
            else:
                merged = consensus.combine(member, spread.kind) if spread else member[:, 0]
                reduced = consensus.reduce_channels(merged, options.reduction)
            sized = mine.repeat_edges(consensus.resize(reduced, size))
            maps.append(mine.cut(consensus.smooth(sized, sigma)))
        return consensus.agree(maps)


def noisy_copies(
    images: Tensor, ids: Sequence[str], spread: NoiseConfig, seed: int, frames: Frames = WHOLE
) -> list[Tensor]:
    """Copies of images (B, C, H, W), prepared for the network, with Gaussian noise on the pictures.

    SmoothGrad (Smilkov et al. 2017) and its relatives average over them. The noise of a copy
    depends on (seed, image, copy) alone: it is the same for all findings, members, batches, shards
    and devices. Its deviation is a share of each picture's range.
    """
    picture = frames.inside(images.shape[2:], images.device)[:, None]
    highest = images.where(picture, -torch.inf).amax((1, 2, 3), keepdim=True)
    lowest = images.where(picture, torch.inf).amin((1, 2, 3), keepdim=True)
    width = highest - lowest
    copies = []
    for sample in range(spread.samples):
        rows = [_noise(images.shape[1:], f"{seed}/{name}/{sample}") for name in ids]
        noisy = images + spread.stdev * width * torch.stack(rows).to(images)
        copies.append(noisy.where(picture, images))
    return copies


def _noise(shape: torch.Size, key: str) -> Tensor:
    number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1
    return torch.randn(shape, generator=torch.Generator().manual_seed(number))


def _refinement(options: MapsConfig) -> tuple[list[Level], Stop]:
    """Levels of integrated gradients, and when they are enough."""
    adaptive = options.adaptive
    if adaptive is None:
        return fixed(options.nodes, options.quadrature), Stop()
    stop = Stop(criterion=adaptive.criterion, target=adaptive.target)
    return nested(adaptive.first, adaptive.max_nodes), stop
