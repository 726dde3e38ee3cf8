"""Cutters: objects from a network's features alone, without its logits.

TokenCut (Wang et al. 2022), MaskCut (Wang et al. 2023, written from its description) and FOUND
(Simeoni et al. 2023). They know no findings: all findings of an image get the SAME map. A map is
made so that its values above 0.5 are the published mask.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dollmaker.attribute.features import Features, features
from dollmaker.attribute.passes import Pairs, enlarge
from dollmaker.graphs import normalised_cut

Grid = npt.NDArray[np.float64]

_WEAK = 1e-5


def tokencut(
    network: nn.Module, images: Tensor, pairs: Pairs, *, chunk: int, side: int | None = None
) -> Tensor:
    """TokenCut: one normalised cut of the graph of places.

    Args:
        network: See :func:`dollmaker.attribute.features.features`.
        images: float (B, C, H, W), prepared for the network.
        pairs: (image, output) numbers, any order.
        chunk: Unused; features are taken a few images at a time.
        side: Side to which a convolutional network's input is enlarged.

    Returns:
        float32 (P, 1, H, W) in [0, 1], in the order of ``pairs``.
    """
    return _maps(network, images, pairs, side, token_maps)


def maskcut(
    network: nn.Module,
    images: Tensor,
    pairs: Pairs,
    *,
    chunk: int,
    side: int | None = None,
    masks: int = 3,
) -> Tensor:
    """MaskCut: several cuts, each without the places that are taken; the union of the masks.

    Args:
        network: See :func:`tokencut`.
        images: See :func:`tokencut`.
        pairs: See :func:`tokencut`.
        chunk: Unused.
        side: See :func:`tokencut`.
        masks: Most masks.

    Returns:
        float32 (P, 1, H, W) in [0, 1]: 1 in the first mask, less in later ones.
    """
    return _maps(network, images, pairs, side, lambda found: mask_maps(found, masks=masks))


def found(
    network: nn.Module, images: Tensor, pairs: Pairs, *, chunk: int, side: int | None = None
) -> Tensor:
    """FOUND: background is what resembles the place that is looked at least, the rest is object.

    Args:
        network: See :func:`tokencut`.
        images: See :func:`tokencut`.
        pairs: See :func:`tokencut`.
        chunk: Unused.
        side: See :func:`tokencut`.

    Returns:
        float32 (P, 1, H, W) in [0, 1].
    """
    return _maps(network, images, pairs, side, background_maps)


def _maps(
    network: nn.Module,
    images: Tensor,
    pairs: Pairs,
    side: int | None,
    cut: Callable[[Features], Tensor],
) -> Tensor:
    wanted = sorted({image for image, _ in pairs})
    if not wanted:
        return enlarge(images.new_zeros((0, 1, 1, 1)), images.shape[2:])
    grids = cut(features(network, images[wanted], side=side))
    size = tuple(images.shape[2:])
    maps = nn.functional.interpolate(grids[:, None], size=size, mode="nearest-exact")
    return maps[[wanted.index(image) for image, _ in pairs]]


# --- the rules, on features ---------------------------------------------------------------------


def token_maps(given: Features, tau: float = 0.2) -> Tensor:
    """TokenCut's rule: float32 (B, h, w).

    Places are joined by 1 where their cosine is over ``tau``, else by 1e-5. The side of the
    second eigenvector v > mean(v) that holds the place of largest magnitude is the object, of it
    the 4-connected piece with that place.

    Args:
        given: Features of B images.
        tau: Threshold of the cosine.
    """
    vectors, _ = normalised_cut(_affinity(_directions(given), tau))
    maps = []
    for vector in vectors.cpu().numpy():
        v = vector.reshape(given.grid)
        seed = np.unravel_index(np.abs(v).argmax(), v.shape)
        height = v - v.mean()
        if height[seed] <= 0:
            height = -height
        piece = _piece(height > 0, seed)
        maps.append(np.where(piece, 0.5 + _share(height) / 2, 0.5 - _share(-height) / 2))
    return torch.from_numpy(np.stack(maps)).float().to(given.values.device)


def mask_maps(given: Features, *, masks: int = 3, tau: float = 0.15) -> Tensor:
    """MaskCut's rule: float32 (B, h, w), 0 outside of all masks.

    A cut is inverted when at least 3 of the 4 corners are object, else when the place of largest
    magnitude is not. From the second on, a mask is dropped that overlaps (IoU) with the one before
    by more than 0.5 or has at most 1 % of the places; what earlier masks hold is taken away.

    Args:
        given: Features of B images.
        masks: Most masks.
        tau: Threshold of the cosine.
    """
    directions = _directions(given)
    shape = given.grid
    union = np.zeros((len(directions), *shape))
    before = np.zeros((len(directions), *shape), bool)
    free = torch.ones(directions.shape[:2], dtype=torch.bool, device=directions.device)
    for number in range(masks):
        left = torch.where(free[..., None], directions, 0)
        vectors, _ = normalised_cut(_affinity(left, tau))
        value = 1 - 0.4 * number / max(1, masks - 1)
        for row, vector in enumerate(vectors.cpu().numpy()):
            mask = _object(vector.reshape(shape))
            overlap = (mask & before[row]).sum() / max(1, (mask | before[row]).sum())
            if number and (overlap > 0.5 or mask.mean() <= 0.01):
                continue
            fresh = mask & (union[row] == 0)
            union[row][fresh] = value
            before[row] = mask
            free[row] &= ~torch.from_numpy(mask.ravel()).to(free.device)
    return torch.from_numpy(union).float().to(given.values.device)


def _object(v: Grid) -> npt.NDArray[np.bool_]:
    """MaskCut's side of a cut."""
    seed = np.unravel_index(np.abs(v).argmax(), v.shape)
    side = v > v.mean()
    corners = int(side[0, 0]) + int(side[0, -1]) + int(side[-1, 0]) + int(side[-1, -1])
    if corners >= 3:
        side = ~side
        seed = np.unravel_index(np.where(side, np.abs(v), -1).argmax(), v.shape)
    elif not side[seed]:
        side = ~side
    return _piece(side, seed)


def background_maps(given: Features, threshold: float = 0.3) -> Tensor:
    """FOUND's rule: float32 (B, h, w).

    Heads that look at few places weigh more: log(sum Q / Q_h), Q_h the share of places over the
    head's mean attention. The place with the least weighted attention is background, and so is
    every place whose cosine to it is over ``threshold``.

    Args:
        given: Features of B images.
        threshold: Of the cosine.
    """
    attention = given.attention
    share = (attention > attention.mean(-1, keepdim=True)).float().mean(-1)
    weight = torch.log(share.sum(1, keepdim=True) / share.clamp(min=1e-6))
    looked = (weight[..., None] * attention).sum(1)
    directions = _directions(given)
    seed = directions[torch.arange(len(directions)), looked.argmin(1)]
    cosine = (directions @ seed[..., None])[..., 0]
    inside = 0.5 + (threshold - cosine) / (1 + threshold) / 2
    outside = 0.5 - (cosine - threshold) / (1 - threshold) / 2
    return torch.where(cosine > threshold, outside, inside).clamp(0, 1).reshape(-1, *given.grid)


def _directions(given: Features) -> Tensor:
    """Features of unit length (B, N, D); those that are never negative are centred first.

    Behind a rectifier all features point the same way: without centring all places would be alike
    (our choice; a transformer's keys are taken as they are).
    """
    values = given.values
    if (values >= 0).all():
        values = values - values.mean(1, keepdim=True)
    return nn.functional.normalize(values, dim=-1)


def _affinity(directions: Tensor, tau: float) -> Tensor:
    cosine = directions @ directions.transpose(-2, -1)
    return torch.where(cosine > tau, 1.0, _WEAK).double()


def _piece(side: npt.NDArray[np.bool_], seed: tuple[np.intp, ...]) -> npt.NDArray[np.bool_]:
    """The 4-connected piece of a side that holds a place."""
    from scipy import ndimage

    labels, _ = ndimage.label(side)
    return np.asarray((labels == labels[seed]) & side)


def _share(values: Grid) -> Grid:
    """Positive values as a share of the largest, others 0."""
    positive = np.clip(values, 0, None)
    return np.asarray(positive / max(positive.max(), 1e-30))
