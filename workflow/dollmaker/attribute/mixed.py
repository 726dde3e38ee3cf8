"""Committees whose members know different findings: only those who know one explain it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dollmaker.attribute.consensus import Consensus
from dollmaker.attribute.passes import Pairs
from dollmaker.attribute.refine import Refined
from dollmaker.networks.frames import Frames
from dollmaker.networks.member import Member
from dollmaker.runtime.errors import ModelError

#: Numbers of the members that know a finding.
Experts = tuple[int, ...]


def experts(members: Sequence[Member], output: int) -> Experts:
    """The numbers of the members that know a finding, given by the number of its logit."""
    return tuple(number for number, member in enumerate(members) if member.knows(output))


def by_experts(members: Sequence[Member], outputs: Sequence[int]) -> dict[Experts, list[int]]:
    """Group outputs by the members that explain them.

    Args:
        members: The committee.
        outputs: Numbers of logits.

    Returns:
        Who explains -> places in ``outputs``, in their order.

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


def asked(
    images: Tensor, ids: Sequence[str], pairs: Pairs, frames: Frames
) -> tuple[Tensor, list[str], Pairs, Frames]:
    """The images that some pairs are of, and the pairs numbered by these images.

    Args:
        images: (B, C, H, W).
        ids: Their image ids.
        pairs: (image, output) numbers.
        frames: Where the pictures lie in the images.
    """
    rows = sorted({row for row, _ in pairs})
    place = {row: number for number, row in enumerate(rows)}
    mine = [(place[row], output) for row, output in pairs]
    return images[rows], [ids[row] for row in rows], mine, frames.of(rows)


def mean_probabilities(members: Sequence[Member], each: Tensor) -> Tensor:
    """The mean over the members that know a finding.

    Args:
        members: The committee.
        each: Their probabilities (M, B, K).

    Returns:
        (B, K), NaN where nobody knows.
    """
    outputs = range(each.shape[2])
    if all(member.knows(output) for member in members for output in outputs):
        return each.mean(0)
    columns = [each[list(experts(members, output)), :, output].mean(0) for output in outputs]
    return torch.stack(columns, 1)


def gather(parts: Sequence[tuple[Sequence[int], Refined]]) -> Refined:
    """Maps of groups of pairs in the order of all pairs.

    Args:
        parts: Places of the pairs of a group, and what was found for them.
    """
    order = torch.tensor([place for places, _ in parts for place in places]).argsort()
    found = [refined for _, refined in parts]

    def joined(tensors: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(tensors))[order.to(tensors[0].device)]

    return Refined(
        consensus=Consensus(
            maps=joined([one.consensus.maps for one in found]),
            scale=joined([one.consensus.scale for one in found]),
            agreement=joined([one.consensus.agreement for one in found]),
        ),
        completeness=joined([one.completeness for one in found]),
        convergence=joined([one.convergence for one in found]),
        nodes=joined([one.nodes for one in found]),
        met=joined([one.met for one in found]),
    )
