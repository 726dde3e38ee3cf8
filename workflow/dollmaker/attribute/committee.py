"""The committee: from a block of stored images to one map with certificates per pair."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dollmaker.attribute import consensus, mixed, noise, quadrature
from dollmaker.attribute.baselines import make_baseline
from dollmaker.attribute.consensus import Consensus
from dollmaker.attribute.features import features, seen_at, strength
from dollmaker.attribute.frozen import FrozenNetwork
from dollmaker.attribute.integrated_gradients import forward
from dollmaker.attribute.memory import Chunk, fitting_rows
from dollmaker.attribute.methods import METHODS, explain
from dollmaker.attribute.passes import Pairs
from dollmaker.attribute.refine import Paths, Refined, Stop, refine
from dollmaker.networks.frames import WHOLE, Frames
from dollmaker.networks.member import Member
from dollmaker.networks.positions import own_side


class Committee:
    """All members, ready to explain by one recipe.

    Args:
        members: The classifiers, all on one device.
        options: Section ``attribute`` of the recipe.
        channel_mean: Mean of each channel over the training images, (C,), 0..255.
        size: Side of the stored images, and of the maps.
        seed: Seed of the noise.
        precision: ``fp32``, ``tf32`` or ``bf16``.
        compiled: Use torch.compile.
        chunk: Rows (image x node) of a forward pass; ``None`` measures how many fit.

    Raises:
        ModelError: If the method cannot be made right for a member.
    """

    def __init__(
        self,
        members: Sequence[Member],
        options: Mapping[str, Any],
        *,
        channel_mean: Tensor,
        size: int,
        seed: int = 0,
        precision: str = "fp32",
        compiled: bool = False,
        chunk: int | None = None,
    ) -> None:
        self.members = members
        self.options = options
        self._mean, self._size, self._seed = channel_mean, size, seed
        device = next(members[0].network.parameters()).device
        blank = torch.full((1, len(channel_mean), size, size), 100, dtype=torch.uint8)
        examples = [member.prepare(blank.to(device)) for member in members]
        # Noise, because a network's answer to a flat image says little about its gradients: as
        # wide as half of what pixels may be.
        white = [member.prepare(torch.full_like(blank, 255).to(device)) for member in members]
        black = [member.prepare(torch.zeros_like(blank).to(device)) for member in members]
        rough = [
            x + torch.randn(x.shape, generator=_generator()).to(x) * ((high - low) / 2)
            for x, low, high in zip(examples, black, white, strict=True)
        ]
        self._networks = [
            FrozenNetwork(member.network, x, precision=precision, compiled=compiled)
            for member, x in zip(members, rough, strict=True)
        ]
        self._chunks = [
            Chunk(chunk or fitting_rows(network, x))
            for network, x in zip(self._networks, rough, strict=True)
        ]

    def probabilities(self, images: Tensor) -> Tensor:
        """The mean probabilities (B, K) of images (B, C, H, W) in levels.

        The mean is over the members that know a finding, NaN where nobody does.
        """
        found = []
        for network, member, chunk in zip(self._networks, self.members, self._chunks, strict=True):
            x = member.prepare(images)
            logits = chunk.run(lambda rows, n=network, x=x: forward(n, x, rows))  # type: ignore[misc]
            # In float32 an element's last bit would depend on its place in the array (vector
            # instructions for most, scalar ones for the rest).
            found.append(member.calibration.probabilities(logits.double()))
        return mixed.mean_probabilities(self.members, torch.stack(found)).float()

    def explain(
        self, images: Tensor, ids: Sequence[str], pairs: Pairs, frames: Frames = WHOLE
    ) -> Refined:
        """Explain pairs.

        Maps are 0 outside the pictures before they are scaled and compared. Completeness is that
        of the whole attributions.

        Args:
            images: (B, C, H, W) in levels: uint8, or float32 in 0..255.
            ids: Their image ids.
            pairs: (image, output) numbers, at least one.
            frames: Where the pictures lie in the images.

        Raises:
            ModelError: If no member knows a finding.
        """
        groups = mixed.by_experts(self.members, [output for _, output in pairs])
        parts = [
            (
                places,
                self._explain(who, *mixed.asked(images, ids, [pairs[p] for p in places], frames)),
            )
            for who, places in groups.items()
        ]
        return parts[0][1] if len(parts) == 1 else mixed.gather(parts)

    def _explain(
        self, who: mixed.Experts, images: Tensor, ids: Sequence[str], pairs: Pairs, frames: Frames
    ) -> Refined:
        """Explain pairs by some of the members, who all know the findings."""
        refined = self._by_members(who, images, ids, pairs, frames)
        if not self.options["fuse"]:
            return refined
        weights = torch.stack([self._strength(number, images, frames) for number in who])
        rows = weights.mean(0)[[image for image, _ in pairs]]
        return replace(refined, consensus=consensus.fuse(refined.consensus, rows))

    def _by_members(
        self, who: mixed.Experts, images: Tensor, ids: Sequence[str], pairs: Pairs, frames: Frames
    ) -> Refined:
        committee = self._paths(who, images, ids, frames)
        if self.options["method"] != "integrated_gradients":
            return self._by_method(who, committee, pairs, frames)
        adaptive = self.options["adaptive"]
        if adaptive:
            levels = quadrature.nested(adaptive["first"], adaptive["max_nodes"])
            stop = Stop(criterion=adaptive["criterion"], target=adaptive["target"])
        else:
            levels = quadrature.fixed(self.options["nodes"], self.options["quadrature"])
            stop = Stop(criterion="none", target=0.0)
        summarize = partial(self._summarize, frames=frames)
        return refine(committee, pairs, levels, stop, summarize)

    def _strength(self, number: int, images: Tensor, frames: Frames) -> Tensor:
        """How strong a member's features are, (B, size, size) in [0, 1]."""
        member = self.members[number]
        x = self._shown(member, images)
        found = features(member.network, x, side=self.options["side"], frames=frames)
        return consensus.resize(strength(found, frames), self._size)

    def _seen(self, member: Member, images: Tensor) -> Tensor:
        """Stored images as the method looks at them."""
        method = METHODS.get(self.options["method"])
        cuts = method is not None and "side" in method.options
        return self._shown(member, images) if cuts else member.prepare(images)

    def _shown(self, member: Member, images: Tensor) -> Tensor:
        """Stored images for a member's features.

        They keep their size for a transformer that sees them at another side than its own: one
        resize, not two.
        """
        own, side = own_side(member.network), self.options["side"]
        if own is None or seen_at(member.network, side) == own:
            return member.prepare(images)
        return replace(member.input, size=self._size).prepare(images)

    def _by_method(
        self, who: mixed.Experts, committee: Sequence[Paths], pairs: Pairs, frames: Frames
    ) -> Refined:
        maps = []
        for number, paths in zip(who, committee, strict=True):
            member = self.members[number]
            copies = [
                paths.chunk.run(self._work(member, x, pairs, paths.baselines, frames))
                for x in paths.images
            ]
            maps.append(torch.stack(copies, 1))
        device = committee[0].images[0].device
        unknown = torch.full((len(pairs),), torch.nan, device=device)
        return Refined(
            consensus=self._summarize(maps, pairs, frames),
            completeness=unknown,
            convergence=unknown,
            nodes=torch.ones(len(pairs), dtype=torch.int32, device=device),
            met=torch.ones(len(pairs), dtype=torch.bool, device=device),
        )

    def _work(
        self, member: Member, x: Tensor, pairs: Pairs, baselines: Sequence[Tensor], frames: Frames
    ) -> Callable[[int], Tensor]:
        return lambda rows: explain(
            self.options["method"],
            member.network,
            x,
            pairs,
            chunk=rows,
            baselines=baselines,
            frames=frames,
            options=self.options,
        )

    def _paths(
        self, who: mixed.Experts, images: Tensor, ids: Sequence[str], frames: Frames
    ) -> list[Paths]:
        """The paths that some of the members integrate over."""
        stored = images.float()
        starts = [
            make_baseline(name, stored, self._mean, frames) for name in self.options["baselines"]
        ]
        return [
            Paths(
                network=self._networks[number],
                chunk=self._chunks[number],
                images=self._copies(self._seen(self.members[number], images), ids, frames),
                baselines=[self.members[number].prepare(start) for start in starts],
            )
            for number in who
        ]

    def _copies(self, x: Tensor, ids: Sequence[str], frames: Frames) -> list[Tensor]:
        spread = self.options["noise"]
        if not spread:
            return [x]
        return noise.noisy_copies(
            x,
            ids,
            seed=self._seed,
            samples=spread["samples"],
            stdev=spread["stdev"],
            frames=frames,
        )

    def _summarize(self, attributions: list[Tensor], pairs: Pairs, frames: Frames) -> Consensus:
        """Members' attributions (P, S, C, H, W) to the consensus at the stored size.

        Smoothing repeats the edges of the picture. The cut comes after the resize, which can carry
        relevance a pixel over the edge.
        """
        spread = self.options["noise"]
        mine = frames.of([image for image, _ in pairs])
        maps = []
        for member in attributions:
            merged = noise.combine(member, spread["kind"]) if spread else member[:, 0]
            reduced = consensus.reduce_channels(merged, self.options["reduction"])
            sized = mine.repeat_edges(consensus.resize(reduced, self._size))
            maps.append(mine.cut(consensus.smooth(sized, self.options["smoothing"])))
        return consensus.agree(maps)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
