"""Steps that decide: gates, and thresholds of the map."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dollmaker.binarize.cuts import FAMILIES, FAMILY, level
from dollmaker.binarize.label_free import CRITERIA
from dollmaker.binarize.pair import BACKGROUND, FOREGROUND, IGNORE, Pair
from dollmaker.binarize.quality import CHANGE
from dollmaker.runtime.errors import ConfigError, unknown


def gate(pair: Pair, *, labels: Sequence[int] | None = (1,), min_probability: float = 0.0) -> Pair:
    """Drop pairs whose label is not listed or whose probability is too low.

    The default goes by the label. ``labels: null`` with ``min_probability`` goes by the prediction
    of the committee, as ExplainSeg's Algorithm 1 does; ``attribute.min_probability`` makes the maps
    of pairs without a positive label.

    Args:
        pair: With or without a mask.
        labels: Labels to keep; ``None`` keeps all.
        min_probability: Least probability to keep.
    """
    if (labels is None or pair.label in labels) and pair.probability >= min_probability:
        return pair
    return replace(pair, kept=False)


def otsu(pair: Pair) -> Pair:
    """Otsu's threshold (1979) of the map; the most common rule (CheXlocalize, ExplainSeg)."""
    from skimage.filters import threshold_otsu

    if pair.map.max() <= pair.map.min():
        return _cut(pair, float("inf"))
    return _cut(pair, float(threshold_otsu(pair.map)))


def quantile(pair: Pair, *, q: float = 0.8) -> Pair:
    """Keep the pixels above the quantile ``q`` of the map: the most relevant share 1 - q."""
    if not 0 <= q < 1:
        raise ConfigError(f"step quantile has q = {q}; give a number from 0 to under 1.")
    return _cut(pair, float(np.quantile(pair.map, q)))


def fraction_of_maximum(pair: Pair, *, fraction: float = 0.3) -> Pair:
    """Keep the pixels above a fraction of the map's maximum (which is 1)."""
    if not 0 <= fraction < 1:
        raise ConfigError(
            f"step fraction_of_maximum has fraction = {fraction}; give a number from 0 to under 1."
        )
    return _cut(pair, fraction * float(pair.map.max()))


def at(pair: Pair, *, level: float = 0.5) -> Pair:
    """Keep the pixels above a value of the map: the published cut of the cutters."""
    if not 0 <= level < 1:
        raise ConfigError(f"step at has level = {level}; give a number from 0 to under 1.")
    return _cut(pair, level)


def two_threshold(pair: Pair, *, foreground: float = 0.3, background: float = 0.05) -> Pair:
    """Foreground above one threshold, background under another, ignore between.

    Defaults from IRNet (Ahn et al. 2019); CheXseg uses 0.25 and 0.10.
    """
    if not 0 <= background <= foreground < 1:
        raise ConfigError(
            "step two_threshold needs 0 <= background <= foreground < 1; correct the two."
        )
    high = foreground * float(pair.map.max())
    low = background * float(pair.map.max())
    mask = np.full(pair.map.shape, IGNORE, dtype=np.uint8)
    mask[pair.map <= low] = BACKGROUND
    mask[pair.map > high] = FOREGROUND
    return replace(pair, mask=mask, threshold=high)


def label_free(pair: Pair, *, criterion: str = "stability", family: str = FAMILY) -> Pair:
    """The threshold of the finding that was chosen without truth.

    Args:
        pair: A pair whose maps have a sample (see :mod:`dollmaker.binarize.label_free`).
        criterion: ``stability``, ``agreement`` or ``separability``.
        family: What the threshold is a number of, see :mod:`dollmaker.binarize.cuts`.
    """
    if criterion not in CRITERIA:
        raise ConfigError(unknown("criterion of label_free", criterion, CRITERIA))
    if family not in FAMILIES:
        raise ConfigError(unknown("family of label_free", family, FAMILIES))
    cut = pair.cuts.get((criterion, family))
    if cut is None:
        raise ConfigError(
            "step label_free has no threshold for this finding; give binarize the table of "
            "dollmaker thresholds."
        )
    if pair.map.max() <= pair.map.min():
        return _cut(pair, float("inf"))
    return _cut(pair, level(pair.map, cut, pair.scale))


def ignore_band(pair: Pair, *, change: float = CHANGE) -> Pair:
    """Ignore the pixels that a small change of the threshold would add or remove.

    An uncertain mask gets a broad band, which pre-training leaves out of its loss. This step comes
    after the threshold and after what shapes the mask.

    Args:
        pair: With a mask.
        change: Share by which the threshold goes up and down.
    """
    if pair.mask is None:
        raise ConfigError("step ignore_band comes before any threshold; put otsu or another first.")
    if not 0 < change < 1:
        raise ConfigError(f"step ignore_band has change = {change}; give 0 to 1, exclusive.")
    if not np.isfinite(pair.threshold):
        return pair
    margin = change * abs(pair.threshold)
    band = (pair.map > pair.threshold - margin) & (pair.map <= pair.threshold + margin)
    mask = np.where(band, IGNORE, pair.mask).astype(np.uint8)
    if not (mask == FOREGROUND).any():
        return pair
    return replace(pair, mask=mask)


def _cut(pair: Pair, threshold: float) -> Pair:
    mask = np.where(pair.map > threshold, FOREGROUND, BACKGROUND).astype(np.uint8)
    return replace(pair, mask=mask, threshold=threshold)
