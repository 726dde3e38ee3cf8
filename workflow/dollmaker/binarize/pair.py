"""What a step of binarize takes and returns."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dollmaker.binarize.cuts import Cut

BACKGROUND, FOREGROUND, IGNORE = 0, 1, 255


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One image-finding pair on its way from map to mask.

    Attributes:
        map: Relevance, float32 (H, W), of the picture alone; at most 1, negative only for signed
            maps.
        image: The image in 8 bits, uint8 (C, H, W), of the picture alone.
        label: 1, 0, -1 or ``BLANK``.
        probability: The committee's, 0..1.
        scale: Logits per pixel that a value of 1 of the map stands for.
        mask: uint8 (H, W) of 0, 1, 255 (ignore), or ``None`` before the first threshold.
        threshold: Where the map was cut; NaN before that, and where there was nothing to see.
        kept: False when a gate let the pair go; its mask is then empty.
        cuts: Criterion and family -> where the maps of the pair's finding are cut
            (``label_free``).
    """

    map: npt.NDArray[np.float32]
    image: npt.NDArray[np.uint8]
    label: int
    probability: float
    scale: float = 1.0
    mask: npt.NDArray[np.uint8] | None = None
    threshold: float = float("nan")
    kept: bool = True
    cuts: Mapping[tuple[str, str], Cut] = field(default_factory=dict)


Step = Callable[..., Pair]
