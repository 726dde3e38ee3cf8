"""Steps that decide: gates, and thresholds of the map."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np
from pydantic import Field

from dollmaker.binarize.cuts import FAMILY, Family, level, otsu_levels
from dollmaker.binarize.label_free import CRITERION, Criterion
from dollmaker.binarize.pair import BACKGROUND, CHANGE, FOREGROUND, IGNORE, Pair, decided
from dollmaker.runtime.errors import ConfigError

#: A number from 0 to under 1.
Level = Annotated[float, Field(ge=0, lt=1)]
Change = Annotated[float, Field(gt=0, lt=1)]


def gate(pair: Pair, *, labels: Sequence[int] | None = (1,), min_probability: float = 0.0) -> Pair:
    """Drop pairs whose label is not listed or whose probability is too low.

    The default goes by the label. ``labels: null`` with ``min_probability`` goes by the prediction
    of the committee, as ExplainSeg's Algorithm 1 does; ``attribute.min_probability`` makes the maps
    of pairs without a positive label.
    """
    if (labels is None or pair.label in labels) and pair.probability >= min_probability:
        return pair
    return replace(pair, kept=False)


def otsu(pair: Pair) -> Pair:
    """Otsu's threshold (1979) of the map; the most common rule (CheXlocalize, ExplainSeg)."""
    return _cut(pair, float(otsu_levels(pair.map.reshape(1, -1))[0]))


def quantile(pair: Pair, *, q: Level = 0.8) -> Pair:
    """Keep the pixels above the quantile ``q`` of the map: the most relevant share 1 - q."""
    return _cut(pair, float(np.quantile(pair.map, q)))


def fraction_of_maximum(pair: Pair, *, fraction: Level = 0.3) -> Pair:
    """Keep the pixels above a fraction of the map's maximum (which is 1)."""
    return _cut(pair, fraction * float(pair.map.max()))


def at(pair: Pair, *, level: Level = 0.5) -> Pair:
    """Keep the pixels above a value of the map: the published cut of the cutters."""
    return _cut(pair, level)


def two_threshold(pair: Pair, *, foreground: Level = 0.3, background: Level = 0.05) -> Pair:
    """Foreground above one threshold, background under another, ignore between.

    Defaults from IRNet (Ahn et al. 2019); CheXseg uses 0.25 and 0.10.
    """
    if background > foreground:
        raise ConfigError("step two_threshold needs background <= foreground; correct the two.")
    high, low = (share * float(pair.map.max()) for share in (foreground, background))
    mask = np.full(pair.map.shape, IGNORE, dtype=np.uint8)
    mask[pair.map <= low] = BACKGROUND
    mask[pair.map > high] = FOREGROUND
    return replace(pair, mask=mask, threshold=high)


def label_free(pair: Pair, *, criterion: Criterion = CRITERION, family: Family = FAMILY) -> Pair:
    """The threshold of the finding that was chosen without truth, from the sample of its maps.

    See :mod:`dollmaker.binarize.label_free` for the criteria, :mod:`dollmaker.binarize.cuts` for
    what the threshold is a number of.
    """
    cut = pair.cuts.get((criterion, family))
    if cut is None:
        raise ConfigError(
            "step label_free has no threshold for this finding; give --thresholds the table that "
            "`dollmaker thresholds --sample SAMPLE --output TABLE` makes, of a run "
            "results/DATASET/thresholds/RECIPE.parquet."
        )
    if pair.map.max() <= pair.map.min():
        return _cut(pair, float("inf"))
    return _cut(pair, level(pair.map, cut, pair.scale))


def ignore_band(pair: Pair, *, change: Change = CHANGE) -> Pair:
    """Ignore the pixels that a change of the threshold by this share would add or remove.

    An uncertain mask gets a broad band, which pre-training leaves out of its loss. This step comes
    after the threshold and after what shapes the mask.
    """
    before = decided(pair, "ignore_band")
    if not np.isfinite(pair.threshold):
        return pair
    margin = change * abs(pair.threshold)
    band = (pair.map > pair.threshold - margin) & (pair.map <= pair.threshold + margin)
    mask = np.where(band, IGNORE, before).astype(np.uint8)
    if not (mask == FOREGROUND).any():
        return pair
    return replace(pair, mask=mask)


def _cut(pair: Pair, threshold: float) -> Pair:
    mask = np.where(pair.map > threshold, FOREGROUND, BACKGROUND).astype(np.uint8)
    return replace(pair, mask=mask, threshold=threshold)
