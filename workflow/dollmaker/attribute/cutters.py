"""Cutters: objects from a network's features alone, without its logits.

TokenCut (Wang et al. 2022), MaskCut (Wang et al. 2023, written from its description) and FOUND
(Simeoni et al. 2023). They know no findings: all findings of an image get the SAME map. Its values
above 0.5 are the published mask, its largest value is 1. The map is 0 where there is no object:
where all places are alike the graph has no cut, which a line on stderr reports.
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dollmaker.attribute.features import Features, Look, features, of_pictures
from dollmaker.attribute.graphs import normalised_cut
from dollmaker.attribute.passes import Question

Grid = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

#: What joins places that are not alike (TokenCut's).
_WEAK = 1e-5
#: Least distance of a map's values from 0.5: more than the rounding of 16 bits.
_GAP = 1 / 256
#: Entries of a vector of length 1 that differ by less are equal.
_TIE = 1e-9
#: Least share of places that a head of FOUND looks at, so that its weight is finite: our choice.
_LEAST = 1e-10


def tokencut(asked: Question, **options: Any) -> Tensor:
    """TokenCut: one normalised cut of the graph of places, float32 (P, 1, H, W) in [0, 1].

    Places outside the pictures are no nodes of the graph. Features are taken a few images at a
    time, whatever the chunk (:func:`dollmaker.attribute.features.features`).

    Args:
        asked: The question.
        options: ``tau``: cosine over which two places are alike; ``None`` is the published one:
            0.2 of TokenCut, 0.15 of MaskCut, 0.3 of FOUND. ``centred``: subtract the mean over an
            image's places from its features first (our choice). ``side``, ``part``, ``block``: see
            :class:`dollmaker.attribute.features.Look`.
    """
    return _maps(asked, token_maps, 0.2, **options)


def maskcut(asked: Question, *, masks: int = 3, **options: Any) -> Tensor:
    """MaskCut: several cuts, each without the places that are taken; the union of the masks.

    At most ``masks`` of them: the map is 1 in the first, less in later ones; else as
    :func:`tokencut`.
    """
    return _maps(asked, partial(mask_maps, masks=masks), 0.15, **options)


def found(asked: Question, **options: Any) -> Tensor:
    """FOUND: the background is all that resembles the least attended place; the rest is object.

    All else is as of :func:`tokencut`.
    """
    return _maps(asked, background_maps, 0.3, **options)


def _maps(
    asked: Question,
    rule: Callable[..., Tensor],
    published: float,
    *,
    tau: float | None = None,
    centred: bool = False,
    **look: Any,
) -> Tensor:
    """Maps (P, 1, H, W) of pairs, and a line about images without an object."""
    if not asked.pairs:
        return asked.blank(1)
    wanted = sorted(set(asked.rows))
    where = asked.frames.of(wanted)
    given = features(asked.network, asked.images[wanted], Look(**look), frames=where)
    least = published if tau is None else tau
    grids = of_pictures(given, where, lambda some: rule(some, tau=least, centred=centred))
    empty = int((grids == 0).flatten(1).all(1).sum())
    if empty:
        print(
            f"{empty} of {len(wanted)} images have no cut, because their places are all alike, and "
            "get an empty map; set centred: true or another tau",
            file=sys.stderr,
        )
    size = tuple(asked.images.shape[2:])
    maps = nn.functional.interpolate(grids[:, None], size=size, mode="nearest-exact")
    return maps[[wanted.index(image) for image in asked.rows]]


# --- the rules, on features ---------------------------------------------------------------------


def token_maps(given: Features, tau: float = 0.2, *, centred: bool = False) -> Tensor:
    """TokenCut's rule: float32 (B, h, w).

    Places are joined by 1 where their cosine is over ``tau``, else by 1e-5. The side of the
    second eigenvector v > mean(v) that holds the place of largest magnitude is the object, of it
    the 4-connected piece with that place.
    """
    affinity = _affinity(_directions(given.values, centred=centred), tau)
    vectors, _ = normalised_cut(affinity)
    maps = []
    for vector, alike in zip(vectors.cpu().numpy(), _alike(affinity), strict=True):
        height, seed = _risen(vector.reshape(given.grid))
        piece = _piece(height > 0, seed) & (not alike)
        maps.append(_coded(piece, height))
    return torch.from_numpy(np.stack(maps)).float().to(given.values.device)


def mask_maps(
    given: Features, *, masks: int = 3, tau: float = 0.15, centred: bool = False
) -> Tensor:
    """MaskCut's rule: float32 (B, h, w), 0 outside all masks.

    The object is first the side with the place of largest magnitude (our choice: the published sign
    of the eigenvector depends on the solver), and the other side if it then holds at least 3 of the
    4 corners. From the second on, a mask is dropped if its IoU with the one before is over 0.5 or
    it has at most 1 % of the places; the next mask is then compared with an empty one. Places of
    earlier masks are removed.
    """
    directions = _directions(given.values, centred=centred)
    shape = given.grid
    union = np.zeros((len(directions), *shape))
    before = np.zeros((len(directions), *shape), bool)
    alike = _alike(_affinity(directions, tau))
    free = torch.ones(directions.shape[:2], dtype=torch.bool, device=directions.device)
    for number in range(masks):
        left = torch.where(free[..., None], directions, 0)
        vectors, _ = normalised_cut(_affinity(left, tau))
        value = 1 - 0.4 * number / max(1, masks - 1)
        for row, vector in enumerate(vectors.cpu().numpy()):
            mask = _object(vector.reshape(shape)) & (not alike[row])
            overlap = (mask & before[row]).sum() / max(1, (mask | before[row]).sum())
            if number and (overlap > 0.5 or mask.mean() <= 0.01):
                mask = np.zeros_like(mask)
            union[row][mask & (union[row] == 0)] = value
            before[row] = mask
            free[row] &= ~torch.from_numpy(mask.ravel()).to(free.device)
    return torch.from_numpy(union).float().to(given.values.device)


def _object(v: Grid) -> Mask:
    """MaskCut's side of a cut: the seed's, or the other if it holds the image's corners."""
    height, seed = _risen(v)
    side = height > 0
    if side[[0, 0, -1, -1], [0, -1, 0, -1]].sum() >= 3:
        side = ~side
        seed = _first_of_largest(-height)
    return _piece(side, seed)


def background_maps(given: Features, tau: float = 0.3, *, centred: bool = False) -> Tensor:
    """FOUND's rule: float32 (B, h, w).

    A head weighs log(sum Q / Q_h), where Q_h is the share of places over the image's mean
    attention: heads that look at few places weigh more. The place with the least weighted attention
    is background, and so is every place whose cosine to it is over ``tau``; each head's part
    of a feature has the head's weight. A single head weighs 1, not 0: our choice.
    """
    attention = given.attention
    heads, channels = attention.shape[1], given.values.shape[-1]
    share = (attention > attention.mean((1, 2), keepdim=True)).float().mean(-1)
    weight = torch.log(share.sum(1, keepdim=True).clamp(min=_LEAST) / share.clamp(min=_LEAST))
    if heads == 1:
        weight = torch.ones_like(weight)
    looked = (weight[..., None] * attention).sum(1)
    head = torch.arange(channels, device=weight.device) // -(-channels // heads)
    directions = _directions(given.values * weight[:, None, head], centred=centred)
    seed = directions[torch.arange(len(directions)), looked.argmin(1)]
    # A sum: the last bit of a matrix product depends on the number of images.
    cosine = (directions * seed[:, None]).sum(-1).cpu().numpy()
    maps = [_coded(one <= tau, tau - one) for one in cosine.astype(np.float64)]
    return torch.from_numpy(np.stack(maps)).float().reshape(-1, *given.grid).to(attention.device)


def _directions(values: Tensor, *, centred: bool) -> Tensor:
    """Features (B, N, D) of unit length; features that are never negative are always centred.

    After a rectifier all features point the same way, and all places would be alike without
    centring (our choice; a transformer's keys are taken as they are).
    """
    if centred or (values >= 0).all():
        values = values - values.mean(1, keepdim=True)
    return nn.functional.normalize(values, dim=-1)


def _affinity(directions: Tensor, tau: float) -> Tensor:
    cosine = directions @ directions.transpose(-2, -1)
    return (cosine > tau).double().clamp(min=_WEAK)


def _alike(affinity: Tensor) -> Mask:
    """Images (B,) whose graph has no cut: all its edges are strong, or all weak."""
    places = affinity.shape[-1]
    strong = (affinity > _WEAK).sum((-2, -1)) - (affinity.diagonal(0, -2, -1) > _WEAK).sum(-1)
    return np.asarray(((strong == 0) | (strong == places * (places - 1))).cpu().numpy())


def _risen(v: Grid) -> tuple[Grid, tuple[np.intp, ...]]:
    """How far a vector is over its mean, on the side of its largest magnitude, and that place."""
    seed = _first_of_largest(np.abs(v))
    height = v - v.mean()
    return (height if height[seed] > 0 else -height), seed


def _first_of_largest(values: Grid) -> tuple[np.intp, ...]:
    """The first place of the largest value, up to the rounding of equal entries."""
    return np.unravel_index(int((values >= values.max() - _TIE).argmax()), values.shape)


def _piece(side: Mask, seed: tuple[np.intp, ...]) -> Mask:
    """The 4-connected piece of a side that holds a place."""
    from scipy import ndimage

    labels, _ = ndimage.label(side)
    return np.asarray((labels == labels[seed]) & side)


def _coded(mask: Mask, height: Grid) -> Grid:
    """A mask with its confidence as one map: over 0.5 and up to 1 inside; 0 if it is empty.

    ``height`` is how far a place is on the object's side.
    """
    if not mask.any():
        return np.zeros(mask.shape)
    inside, outside = np.where(mask, height, 0), np.where(mask, 0, -height)
    room = 0.5 - _GAP
    return np.where(mask, 1 - room * (1 - _share(inside)), room * (1 - _share(outside)))


def _share(values: Grid) -> Grid:
    """Positive values as a share of the largest, others 0; all 1 where there are none."""
    positive = np.clip(values, 0, None)
    most = positive.max()
    return np.asarray(positive / most) if most > 0 else np.ones_like(positive)
