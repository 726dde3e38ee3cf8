"""Masks of pictures that nobody has labelled, by the models of a release.

Here is what a model finds, and what a model is: neither needs torch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dollmaker.pixels.geometry import Box
from dollmaker.store.depth import Stored


@dataclass(frozen=True, kw_only=True)
class Found:
    """A finding of a picture, on the networks' square."""

    finding: str  #: Its name.
    probability: float  #: The committee's; of a segmenter its highest in a pixel of the picture.
    #: Probability of each pixel, or relevance with maximum 1, float32 (S, S).
    map: npt.NDArray[np.float32]
    levels: npt.NDArray[Any]  #: Positive in the mask, its zero the outline (S, S).


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """A model that is ready."""

    findings: list[str]  #: Names, in order.
    #: From stored pixels (C, S, S), the box of the picture in the square and the wanted findings to
    #: what was found, in this order.
    run: Callable[[Stored, Box, Sequence[str]], list[Found]]
