"""A pair on its way from map to mask, and how far its mask can be trusted without truth."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dollmaker.binarize.cuts import Cut
from dollmaker.runtime.errors import ConfigError

BACKGROUND, FOREGROUND, IGNORE = 0, 1, 255

#: Change of the threshold whose effect on the mask is its stability.
CHANGE = 0.1

#: Weight of the parts that say more about the pair than about the mask.
_EXPONENT = 0.25


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One image-finding pair on its way from map to mask."""

    #: Relevance, float32 (H, W), of the picture alone; at most 1, negative only for signed maps.
    map: npt.NDArray[np.float32]
    image: npt.NDArray[np.uint8]  #: The image in 8 bits, uint8 (C, H, W), of the picture alone.
    label: int  #: 1, 0, -1 or ``BLANK``.
    probability: float  #: The committee's, 0..1.
    scale: float = 1.0  #: Logits per pixel that a value of 1 of the map stands for.
    #: uint8 (H, W) of 0, 1, 255 (ignore), or ``None`` before the first threshold.
    mask: npt.NDArray[np.uint8] | None = None
    #: Where the map was cut; NaN before that, and where there was nothing to see.
    threshold: float = float("nan")
    kept: bool = True  #: False when a gate let the pair go; its mask is then empty.
    #: Criterion and family -> where the maps of the pair's finding are cut (``label_free``).
    cuts: Mapping[tuple[str, str], Cut] = field(default_factory=dict)

    @property
    def foreground(self) -> npt.NDArray[np.bool_]:
        """Where the mask is 1, bool (H, W)."""
        return np.asarray(np.asarray(self.mask) == FOREGROUND)


#: ``step(pair, **options)`` gives the pair with another mask.
Step = Callable[..., Pair]


def decided(pair: Pair, step: str) -> npt.NDArray[np.uint8]:
    """The mask of a pair, for a step that needs one.

    Raises:
        ConfigError: If there is none yet.
    """
    if pair.mask is None:
        raise ConfigError(f"step {step} comes before any threshold; put otsu or another one first.")
    return pair.mask


def stability(pair: Pair) -> float:
    """IoU of the masks at a threshold ten percent higher and ten percent lower, 0..1.

    It is NaN after steps without a threshold.
    """
    if not np.isfinite(pair.threshold):
        return float("nan")
    change = CHANGE * abs(pair.threshold)
    lower = int((pair.map > pair.threshold - change).sum())
    return float((pair.map > pair.threshold + change).sum() / lower) if lower else 0.0


def quality(
    *, agreement: float, completeness: float, probability: float, stability: float, area: float
) -> float:
    """A number in 0..1; 0 for an empty mask. ``area`` is its share of foreground.

    The stability of the mask (:func:`stability`) times the fourth root of the product of the other
    parts: the agreement of the members (mean cosine to the consensus, -1..1; PSSL uses it alone),
    the completeness of the map, 1 / (1 + error), and the committee's probability. Stability and
    completeness are left out where they are unknown (NaN). The combination is our choice;
    ``snakemake compare`` reports its rank correlation with true overlap.
    """
    if area <= 0:
        return 0.0
    others = float(np.clip(agreement, 0, 1) * np.clip(probability, 0, 1))
    if np.isfinite(completeness):
        others /= 1 + completeness
    return float((stability if np.isfinite(stability) else 1.0) * others**_EXPONENT)
