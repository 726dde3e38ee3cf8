"""Steps that shape a mask: morphology, and DenseCRF."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from dollmaker.binarize.pair import FOREGROUND, IGNORE, Pair
from dollmaker.errors import ConfigError


def clean(
    pair: Pair, *, opening: float = 1.0, holes: float = 0.002, components: float = 0.001
) -> Pair:
    """Remove specks, fill small holes, drop small components.

    A mask that would vanish keeps its largest component: a small finding is still a finding.
    Ignored pixels stay ignored unless a hole that held them is filled.

    Args:
        pair: With a mask.
        opening: Radius of the opening in pixels; 0 skips it.
        holes: Holes up to this share of the image are filled.
        components: Components under this share of the image are removed.
    """
    mask = _mask(pair, "clean")
    before = mask == FOREGROUND
    if not before.any():
        return pair
    after = _filled(before, holes * mask.size)
    if opening > 0:
        after = ndimage.binary_opening(after, _disk(opening))
    after = _without_small(after, components * mask.size)
    if not after.any():
        after = _largest(before)
    cleaned = np.where(after, FOREGROUND, np.where(mask == IGNORE, IGNORE, 0)).astype(np.uint8)
    return replace(pair, mask=cleaned)


def _disk(radius: float) -> npt.NDArray[np.bool_]:
    reach = int(np.floor(radius))
    y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    return np.asarray(x**2 + y**2 <= radius**2)


def _filled(mask: npt.NDArray[np.bool_], largest: float) -> npt.NDArray[np.bool_]:
    labels, count = ndimage.label(~mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    border = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    fill = sizes <= largest
    fill[0] = False
    fill[border] = False
    return np.asarray(mask | fill[labels])


def _without_small(mask: npt.NDArray[np.bool_], smallest: float) -> npt.NDArray[np.bool_]:
    labels, count = ndimage.label(mask)
    keep = np.bincount(labels.ravel(), minlength=count + 1) >= max(smallest, 1)
    keep[0] = False
    return np.asarray(keep[labels])


def _largest(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    labels, _ = ndimage.label(mask)
    return np.asarray(labels == 1 + np.bincount(labels.ravel())[1:].argmax())


def dense_crf(
    pair: Pair,
    *,
    certainty: float = 0.7,
    gaussian_sxy: float = 3.0,
    gaussian_compat: float = 3.0,
    bilateral_sxy: float = 50.0,
    bilateral_srgb: float = 5.0,
    bilateral_compat: float = 10.0,
    iterations: int = 10,
) -> Pair:
    """Let the mask follow the image's edges (Kraehenbuehl & Koltun 2011, by pydensecrf).

    Defaults are IRNet's. Ignored pixels start undecided and are decided by the image.

    Args:
        pair: With a mask.
        certainty: Probability that a pixel's value in the mask is right.
        gaussian_sxy: Reach of the smoothness kernel in pixels.
        gaussian_compat: Its strength.
        bilateral_sxy: Reach of the appearance kernel in pixels.
        bilateral_srgb: Its reach in grey levels.
        bilateral_compat: Its strength.
        iterations: Mean-field iterations.
    """
    from pydensecrf import densecrf

    mask = _mask(pair, "dense_crf")
    if not 0.5 < certainty < 1:
        raise ConfigError(f"step dense_crf has certainty = {certainty}; give 0.5 to 1, exclusive.")
    if not (mask == FOREGROUND).any():
        return pair
    foreground = np.where(mask == FOREGROUND, certainty, 1 - certainty)
    foreground = np.where(mask == IGNORE, 0.5, foreground)
    unary = -np.log(np.stack([1 - foreground, foreground])).reshape(2, -1).astype(np.float32)
    colour = np.ascontiguousarray(
        np.moveaxis(np.broadcast_to(pair.image, (3, *mask.shape)), 0, -1), dtype=np.uint8
    )
    height, width = mask.shape
    crf = densecrf.DenseCRF2D(width, height, 2)
    crf.setUnaryEnergy(np.ascontiguousarray(unary))
    crf.addPairwiseGaussian(sxy=gaussian_sxy, compat=gaussian_compat)
    crf.addPairwiseBilateral(
        sxy=bilateral_sxy, srgb=bilateral_srgb, rgbim=colour, compat=bilateral_compat
    )
    decided = np.asarray(crf.inference(iterations)).argmax(0).reshape(mask.shape)
    return replace(pair, mask=decided.astype(np.uint8))


def _mask(pair: Pair, step: str) -> npt.NDArray[np.uint8]:
    if pair.mask is None:
        raise ConfigError(f"step {step} comes before any threshold; put otsu or another one first.")
    return pair.mask
