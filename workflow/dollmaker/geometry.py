"""From a source image of any shape to the square the networks see, and back."""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

Fit = Literal["letterbox", "resize"]


def box(width: int, height: int, size: int, fit: Fit) -> tuple[int, int, int, int]:
    """Where a source image lies inside the square.

    Args:
        width: Width of the source in pixels.
        height: Height of the source in pixels.
        size: Side of the square.
        fit: ``letterbox`` keeps the aspect ratio and centres; ``resize`` fills the square.

    Returns:
        left, top, right, bottom in pixels of the square.
    """
    if fit == "resize":
        return 0, 0, size, size
    scale = size / max(width, height)
    inner_w, inner_h = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (size - inner_w) // 2, (size - inner_h) // 2
    return left, top, left + inner_w, top + inner_h


def fit_image(image: Image.Image, size: int, fit: Fit) -> Image.Image:
    """Scale an image into the square; the rest of a letterbox is black."""
    return _fit(image, size, fit, Image.Resampling.BILINEAR)


def fit_mask(mask: npt.NDArray[Any], size: int, fit: Fit) -> npt.NDArray[np.uint8]:
    """Scale a mask of small integers (h, w) into the square by nearest neighbour."""
    image = Image.fromarray(np.asarray(mask, dtype=np.uint8))
    return np.asarray(_fit(image, size, fit, Image.Resampling.NEAREST))


def _fit(image: Image.Image, size: int, fit: Fit, how: Image.Resampling) -> Image.Image:
    left, top, right, bottom = box(image.width, image.height, size, fit)
    inner = image.resize((right - left, bottom - top), how)
    if inner.size == (size, size):
        return inner
    square = Image.new(image.mode, (size, size))
    square.paste(inner, (left, top))
    return square


def unfit_mask(mask: npt.NDArray[Any], width: int, height: int, fit: Fit) -> npt.NDArray[np.uint8]:
    """Bring a square mask (size, size) back to the source's (height, width), nearest neighbour."""
    left, top, right, bottom = box(width, height, mask.shape[0], fit)
    inner = Image.fromarray(np.asarray(mask, dtype=np.uint8)).crop((left, top, right, bottom))
    return np.asarray(inner.resize((width, height), Image.Resampling.NEAREST))


def unfit_map(
    values: npt.NDArray[Any], width: int, height: int, fit: Fit
) -> npt.NDArray[np.float32]:
    """Bring a square map (size, size) of reals back to (height, width), bilinear."""
    left, top, right, bottom = box(width, height, values.shape[0], fit)
    inner = Image.fromarray(np.asarray(values, dtype=np.float32)).crop((left, top, right, bottom))
    return np.asarray(inner.resize((width, height), Image.Resampling.BILINEAR))
