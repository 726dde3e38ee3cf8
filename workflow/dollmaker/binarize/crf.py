"""Masks that follow the image's edges: DenseCRF (Kraehenbuehl & Koltun 2011)."""

from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from dollmaker.binarize.fields import Array, Kernels, device_field, lattice_field
from dollmaker.binarize.morphology import filled
from dollmaker.binarize.pair import FOREGROUND, IGNORE, Pair, decided
from dollmaker.binarize.thresholds import otsu
from dollmaker.runtime.errors import ConfigError

Mask = npt.NDArray[np.bool_]
Unary = Literal["mask", "map"]
Solver = Literal["lattice", "sampled"]
Within = Literal["picture", "lit"]

#: Longer side of the picture, in pixels, that the lengths of :data:`OF_MAP` are for.
_SIDE = 128

#: Share of the brightest pixel up to which a pixel is dark: JPEG leaves noise on black.
_LIT = 1 / 16

#: Most masks in one map; MaskCut's are at most ten.
_MOST_LEVELS = 64


#: The kernels of a mask that comes from the map itself.
OF_MAP = Kernels(
    gaussian_sxy=2.0,
    gaussian_compat=2.0,
    bilateral_sxy=20.0,
    bilateral_srgb=12.0,
    bilateral_compat=5.0,
)


# seven: the options of a step are what a recipe may say of it
def dense_crf(
    pair: Pair,
    *,
    unary: Unary = "mask",
    certainty: Annotated[float, Field(gt=0.5, lt=1)] = 0.7,
    q: Annotated[float, Field(gt=0, lt=1)] = 0.2,
    within: Within = "picture",
    channel: Annotated[int, Field(ge=0)] | None = None,
    gaussian_sxy: float | None = None,
    gaussian_compat: float | None = None,
    bilateral_sxy: float | None = None,
    bilateral_srgb: float | None = None,
    bilateral_compat: float | None = None,
    iterations: Annotated[int, Field(ge=1)] | None = None,
    solver: Solver = "lattice",
    keep: float = 0.0,
    fill: bool = False,
    levels: bool = False,
) -> Pair:
    """Let the mask follow the image's edges.

    With ``unary: mask`` a pixel starts at its value in the mask. Defaults are IRNet's; lengths are
    in pixels, for images of 200 to 500 pixels. Ignored pixels start undecided.

    With ``unary: map`` a pixel starts at :func:`of_map`, so that the size of the mask follows the
    image. It starts as foreground over the threshold of an earlier step, or, without one, over the
    quantile 1 - ``q``; this is the threshold of the pair. Defaults are :data:`OF_MAP`; their
    lengths are for a picture whose longer side has 128 pixels, and scale with it. If nothing is
    left, the mask is that of the earlier step, or Otsu's.

    Args:
        pair: With a mask, or (``map``) without.
        unary: Where a pixel starts.
        certainty: Probability that a pixel's value in the mask is right.
        q: Share of the pixels that start as foreground, for ``map`` without a threshold before it.
        within: Of which pixels ``q`` is a share: of all, or of the ``lit`` ones, of which a channel
            is over :data:`_LIT` of the picture's brightest (a brain on black).
        channel: The only channel of the image that is looked at; ``None`` is all.
        gaussian_sxy: Reach of the smoothness kernel in pixels.
        gaussian_compat: Its strength.
        bilateral_sxy: Reach of the appearance kernel in pixels.
        bilateral_srgb: Its reach in grey levels.
        bilateral_compat: Its strength.
        iterations: Mean-field iterations; 10 for a mask, 5 for a map.
        solver: ``lattice`` is pydensecrf, on the CPU; ``sampled`` is our own
            (:func:`dollmaker.binarize.fields.mean_field`), on the GPU if there is one (and twenty
            times slower than the lattice if not).
        keep: The mask stays as it was when its IoU with the result is not over this: one that
            would vanish always does.
        fill: Fill the holes of the result.
        levels: Each value of the map inside the mask is a mask of its own, as MaskCut's maps have
            them: each goes through alone, one whose IoU with its result is under ``keep`` is
            dropped, and the union of the rest is the mask, maybe an empty one.

    Raises:
        ConfigError: For a pair without a mask, a channel that images have not, options that exclude
            each other, and with ``levels`` a map of many values.
    """
    if channel is not None and channel >= len(pair.image):
        raise ConfigError(
            f"step dense_crf has channel = {channel}, but images have {len(pair.image)}; count "
            "from 0."
        )
    if unary == "map" and (levels or keep):
        raise ConfigError("step dense_crf has levels or keep with unary = map; use unary = mask.")
    by_default = OF_MAP if unary == "map" else Kernels()
    given = {
        "gaussian_sxy": gaussian_sxy,
        "gaussian_compat": gaussian_compat,
        "bilateral_sxy": bilateral_sxy,
        "bilateral_srgb": bilateral_srgb,
        "bilateral_compat": bilateral_compat,
    }
    kernels = replace(by_default, **{k: v for k, v in given.items() if v is not None})
    if unary == "map":
        kernels = kernels.enlarged(max(pair.map.shape) / _SIDE)
    steps = iterations or (5 if unary == "map" else 10)
    solve = lattice_field if solver == "lattice" else device_field
    image = pair.image if channel is None else pair.image[channel : channel + 1]

    def refined(foreground: Array) -> Mask:
        after = solve(foreground, image, kernels, steps) > 0.5
        return filled(after, after.size) if fill else after

    if unary == "map":
        t = pair.threshold if np.isfinite(pair.threshold) else _top_share(pair, q, within)
        after = refined(of_map(pair.map, t))
        if not after.any():
            return otsu(pair) if pair.mask is None else pair
        return replace(pair, mask=after.astype(np.uint8), threshold=t)
    mask = decided(pair, "dense_crf")
    before = pair.foreground
    if not before.any():
        return pair
    if levels:
        kept = [(part, refined(_of_mask(part, certainty))) for part in _levels(pair.map, before)]
        parts = [after for part, after in kept if _overlap(part, after) >= keep]
        union = np.any([np.zeros_like(before), *parts], axis=0)
        return replace(pair, mask=union.astype(np.uint8))
    after = refined(_of_mask(mask, certainty))
    if _overlap(before, after) <= keep:
        return pair
    return replace(pair, mask=after.astype(np.uint8))


def _top_share(pair: Pair, q: float, within: Within) -> float:
    """The value that a share of the pixels is over."""
    known = pair.map
    if within == "lit" and pair.image.any():
        bright = pair.image.max(0)
        known = pair.map[bright > _LIT * bright.max()]
    return float(np.quantile(known, 1 - q))


def of_map(values: Array, t: float) -> Array:
    """Probability that a pixel is foreground, from its relevance (H, W): a^2 / (a^2 + t^2).

    That is sigmoid(2 log(a / t)), clipped to 0.02 .. 0.95: our choice, scored in
    docs/lab/2026-11-29-recipes.md as ``doll-map-crf``. Negative relevance counts as none; where it
    is ``t`` the probability is 1/2, and at t = 0 any relevance is foreground.
    """
    positive = np.maximum(np.asarray(values, np.float64), 0)
    high, middle = positive**2, max(t, 0.0) ** 2
    share = np.divide(high, high + middle, out=np.zeros_like(high), where=high > 0)
    return np.asarray(share.clip(0.02, 0.95), np.float32)


def _levels(values: Array, inside: Mask) -> list[Mask]:
    """The masks in a map: one for each of its values inside their union."""
    found = np.unique(values[inside])
    if len(found) > _MOST_LEVELS:
        raise ConfigError(
            f"step dense_crf has levels, but the map has {len(found)} values inside the mask; use "
            "it on maps of maskcut without smoothing."
        )
    return [inside & (values == value) for value in found]


def _overlap(one: Mask, other: Mask) -> float:
    """IoU of two masks of which one is not empty."""
    return float((one & other).sum() / (one | other).sum())


def _of_mask(mask: npt.NDArray[np.uint8] | Mask, certainty: float) -> Array:
    sure = np.where(mask == FOREGROUND, certainty, 1 - certainty)
    return np.where(mask == IGNORE, 0.5, sure).astype(np.float32)
