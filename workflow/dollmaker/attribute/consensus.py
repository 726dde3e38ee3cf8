"""From members' attributions to one relevance map per pair."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from dollmaker.errors import ConfigError, unknown

Maps = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Consensus:
    """The committee's maps of P pairs.

    Attributes:
        maps: float32 (P, H, W), divided by the largest magnitude of each; 0 where all is 0.
        scale: That magnitude, in logits per pixel, (P,).
        agreement: Mean cosine of the members to the consensus, (P,); 1 for a single member.
    """

    maps: Maps
    scale: npt.NDArray[np.float32]
    agreement: npt.NDArray[np.float32]


def reduce_channels(attributions: Maps, reduction: str) -> Maps:
    """Attributions (P, C, H, W) to maps (P, H, W).

    Args:
        attributions: Signed contributions to the logit.
        reduction: ``abs`` sums magnitudes (as PSSL does), ``positive`` sums what speaks for the
            finding, ``signed`` sums.
    """
    if reduction == "abs":
        return np.asarray(np.abs(attributions).sum(1))
    if reduction == "positive":
        return np.asarray(np.maximum(attributions, 0).sum(1))
    if reduction == "signed":
        return np.asarray(attributions.sum(1))
    raise ConfigError(unknown("reduction", reduction, ("abs", "positive", "signed")))


def smooth(maps: Maps, sigma: float) -> Maps:
    """Gaussian blur of each map (P, H, W); sigma in pixels, 0 leaves them as they are."""
    if sigma == 0 or not maps.size:
        return maps
    blurred = ndimage.gaussian_filter(maps, sigma, axes=(1, 2), mode="nearest")
    return np.asarray(blurred, dtype=np.float32)


def agree(members: list[Maps]) -> Consensus:
    """Average the members, each with an equal vote.

    Maps are brought to unit length before averaging, so that a member with large logits does not
    outvote the others, and the mean length is given back: the consensus of one member is its map.
    (PSSL averages; the equal lengths are our choice.)

    Args:
        members: One array (P, H, W) per member.
    """
    stack = np.stack(members).astype(np.float64)
    lengths = np.sqrt((stack**2).sum((2, 3), keepdims=True))
    units = np.divide(stack, lengths, out=np.zeros_like(stack), where=lengths > 0)
    mean = units.mean(0)
    norm = np.sqrt((mean**2).sum((1, 2), keepdims=True))
    cosine = (units * np.divide(mean, norm, out=np.zeros_like(mean), where=norm > 0)).sum((2, 3))
    consensus = mean * lengths.mean(0)
    scale = np.abs(consensus).max((1, 2)) if consensus.size else np.zeros(len(consensus))
    maps = np.divide(
        consensus,
        scale[:, None, None],
        out=np.zeros_like(consensus),
        where=scale[:, None, None] > 0,
    )
    return Consensus(
        maps=maps.astype(np.float32),
        scale=scale.astype(np.float32),
        agreement=cosine.mean(0).astype(np.float32),
    )
