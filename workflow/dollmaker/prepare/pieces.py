"""What converters hand over: things to convert, and the pictures that each becomes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dollmaker.pixels.levels import Numbers
from dollmaker.store.depth import Stored

#: A row of the converted table: image, mask, patient and view, and the label of each finding.
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One picture to write."""

    name: str  #: File name of picture and mask, without suffix.
    #: uint8 or uint16 (C, h, w). 8 bits of one or three channels become PNG, all else a TIFF with a
    #: page for each channel.
    image: Stored
    mask: npt.NDArray[np.uint8] | None  #: uint8 (h, w), or ``None`` if no mask is known.
    #: Finding -> 1 or 0; of DICOM also -1, or ``None`` where it is not mentioned.
    labels: Mapping[str, int | None]


@dataclass(frozen=True, kw_only=True)
class Item:
    """One thing to convert: an image to cut, a volume, a raw file."""

    source: str  #: What the user knows it by.
    patient: str  #: The patient of all its pieces.
    #: Reads it and returns its pieces; a :class:`DataError` says why it cannot be used.
    make: Callable[[], Sequence[Piece]]
    reader: Numbers | None = None  #: Of the masks of all items, if they hold class numbers.
    view: str | None = None  #: The view of its pieces, in small letters, if the source tells views.
