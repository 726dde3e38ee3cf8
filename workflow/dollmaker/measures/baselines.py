"""The trivial baselines that every table carries: what a mask is worth that knows nothing.

Each gives a mask and a map for an image, the same for all of its findings.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dollmaker.measures.words import finite
from dollmaker.pixels.geometry import Fit, box, inside, unfit_map

#: Names in the order of the tables.
BASELINES = ("centre", "intensity", "whole")

#: Name of the pre-trained segmenter's masks in the tables, between recipes and baselines.
SEGMENTER = "segmenter"

#: Name of the mean of the released recipe's own maps of other images: one place for all.
MEAN_MAP = "mean-map"


def best_trivial(means: Mapping[str, Mapping[str, Any]]) -> tuple[str, float] | None:
    """The trivial baseline with the highest mIoU, and that, of the mean rows by recipe."""
    names = [name for name in (MEAN_MAP, *BASELINES) if name in means]
    known = [(name, finite(means[name]["miou"]) or 0.0) for name in names]
    return max(known, key=lambda item: item[1], default=None)


@dataclass(frozen=True)
class Guess:
    """A mask, bool (height, width), with its map, float32, in which higher is more likely."""

    mask: npt.NDArray[np.bool_]
    values: npt.NDArray[np.float32]


def guess(name: str, image: npt.NDArray[Any], width: int, height: int, fit: Fit) -> Guess:
    """Make one of :data:`BASELINES` for an image (C, S, S) in levels, at the size of its source."""
    if name == "centre":
        return _centre(width, height)
    if name == "intensity":
        return _intensity(image, width, height, fit)
    return Guess(np.ones((height, width), bool), np.zeros((height, width), np.float32))


def _centre(width: int, height: int) -> Guess:
    """A disk whose radius is a quarter of the shorter side; the map falls with the distance."""
    y = np.arange(height, dtype=np.float32)[:, None] - (height - 1) / 2
    x = np.arange(width, dtype=np.float32)[None, :] - (width - 1) / 2
    distance = np.hypot(y, x).astype(np.float32)
    return Guess(distance <= min(width, height) / 4, -distance)


def _intensity(image: npt.NDArray[Any], width: int, height: int, fit: Fit) -> Guess:
    """Otsu's threshold on the grey image; the side that touches the border less is foreground.

    Grey is the mean of all channels. The black of a letterbox is not part of the image; what a crop
    does not show is background.
    """
    from skimage.filters import threshold_otsu

    grey = image.astype(np.float32).mean(axis=0)
    inner = inside(grey, box(width, height, grey.shape[0], fit))
    plain = inner.min() == inner.max()
    threshold = float(inner.min() if plain else threshold_otsu(inner))
    border = np.concatenate([inner[0], inner[-1], inner[1:-1, 0], inner[1:-1, -1]]) > threshold
    if border.mean() <= 0.5:
        values = unfit_map(grey, width, height, fit)
        return Guess(values > threshold, values)
    values = unfit_map(255 - grey, width, height, fit)
    return Guess(values >= 255 - threshold, values)
