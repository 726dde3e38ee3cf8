"""True masks at the size of their sources, and the scores of what a network draws there.

Networks see squares; people draw in the images themselves. What is scored is the network's logit,
enlarged to the source (bilinear) and cut at 0 there, so that neither an outline's steps nor the
scaling of the truth counts for or against it.
"""

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from dollmaker.measures import scores
from dollmaker.pixels.geometry import Fit, source_mask
from dollmaker.pixels.masks import IGNORE

Mask = npt.NDArray[np.bool_]

#: Columns of a table of scores that say whose they are, and what they are.
SCORED: dict[str, Any] = {
    **dict.fromkeys(("image_id", "patient_id", "class"), pl.String),
    "present": pl.Boolean,
    **dict.fromkeys(("iou", "dice"), pl.Float64),
}


@dataclass(frozen=True, kw_only=True)
class SourceMasks:
    """The true masks of one image, packed: one bit a pixel, deflated (2 to 20 kB of 4 megapixels).

    They say for each of K classes where it is, and where nothing is known (empty if all is).
    """

    width: int
    height: int
    present: list[bytes]
    ignored: list[bytes]

    def read(self, k: int) -> tuple[Mask, Mask | None]:
        """Where class k is, bool (height, width), and where it is unknown, if anywhere."""
        ignored = self.ignored[k]
        return self._unpack(self.present[k]), self._unpack(ignored) if ignored else None

    def content(self) -> bytes:
        """All that is in it, for a checksum, whatever deflated it."""
        masks = [zlib.decompress(each) for each in (*self.present, *self.ignored) if each]
        return b"".join([f"{self.width} {self.height}".encode(), *masks])

    def _unpack(self, packed: bytes) -> Mask:
        bits = np.frombuffer(zlib.decompress(packed), np.uint8)
        plain = np.unpackbits(bits, count=self.width * self.height)
        return plain.reshape(self.height, self.width).astype(bool)


def pack(masks: npt.NDArray[np.uint8]) -> SourceMasks:
    """Pack masks (K, height, width): 1 class, 0 not, 255 ignore."""
    unknown = masks == IGNORE
    return SourceMasks(
        width=masks.shape[2],
        height=masks.shape[1],
        present=[_pack(mask == 1) for mask in masks],
        ignored=[_pack(mask) if mask.any() else b"" for mask in unknown],
    )


def _pack(mask: Mask) -> bytes:
    return zlib.compress(np.packbits(mask).tobytes(), 1)


def score(
    logits: npt.NDArray[np.float32], truth: SourceMasks, fit: Fit
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """IoU and Dice (K,) of one image's logits (K, S, S), at the size of the source.

    What a crop does not show is not drawn.
    """
    drawn = (source_mask(each, truth.width, truth.height, fit) for each in logits)
    pairs = np.array([overlap(mask, *truth.read(k)) for k, mask in enumerate(drawn)])
    return pairs[:, 0], pairs[:, 1]


def overlap(drawn: Mask, present: Mask, ignored: Mask | None = None) -> tuple[Any, Any]:
    """IoU and Dice (...) of masks (..., H, W); ignored pixels do not count.

    A right "nothing" scores 1: were it left out, the images that count would depend on what a
    network draws, and a difference of two starts would pass over the false alarms of one. Beside
    that mean stands one over the images that hold the class (:mod:`dollmaker.evaluate.tasks`). NaN
    where no pixel is known.
    """
    iou, dice = (np.asarray(f(drawn, present, ignored)) for f in (scores.iou, scores.dice))
    known = True if ignored is None else ~ignored.all((-2, -1))
    right = np.isnan(iou) & known
    return np.where(right, 1.0, iou), np.where(right, 1.0, dice)
