"""Pictures of true masks: what each pixel shows, and its number. Nothing else reads them.

What is an object or a class there, :mod:`dollmaker.pixels.levels` says.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from dollmaker.pixels import geometry
from dollmaker.pixels.formats import MAX_PIXELS, Frame, read_frame
from dollmaker.runtime.errors import DataError

#: Value of pixels that are not known, in masks that were read and in those that are made.
IGNORE = 255

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

#: Distances from black and white, of 255, inside which a pixel is neither.
MARGIN = 32


@dataclass(frozen=True, kw_only=True)
class MaskPicture:
    """A picture of a mask, upright."""

    numbers: Ints  #: The number in each pixel, int64 (H, W).
    #: How bright each pixel is shown, 0..1 (H, W): its brightest channel over black.
    shown: npt.NDArray[np.float64]
    white: int  #: The number of white: 1 (one bit, black-and-white palettes), 255, 65535 ...
    lossy: bool  #: Whether the compression changed values.
    coloured: bool = False  #: Whether numbers are places in a palette with colours.
    white_is_zero: bool = False  #: Whether numbers were turned round.
    #: Place -> colour, of the places in a palette with colours that the mask has.
    palette: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    #: Whether of such a palette it has black and white only, or one colour on transparent ground.
    plain: bool = False
    painted: bool = False  #: Whether it was drawn in several colours, which no number tells apart.

    def is_number(self, number: int | None) -> Bools:
        """Where a pixel has a number, bool (H, W); nowhere for ``None``.

        Raises:
            DataError: If its compression blurs numbers.
        """
        if number is None:
            return np.zeros(self.shown.shape, bool)
        if self.lossy:
            raise DataError("is of a lossy format, which blurs the value to ignore; save it as PNG")
        return np.asarray(self.numbers == number)


def read_mask(
    path: Path, *, size: tuple[int, int] | None, turned: bool = False, max_pixels: int = MAX_PIXELS
) -> MaskPicture:
    """Read the picture of the mask of an image of that width and height, upright, or of any.

    If the image was ``turned`` by its EXIF tag its mask must be, too.

    Raises:
        DataError: If it cannot be read, has another size, or is not turned as its image is.
    """
    frame = read_frame(path, max_pixels)
    require_upright(turned and frame.orientation == 1)
    if size is not None and frame.size != size:
        width, height = frame.size
        raise DataError(f"is {width}x{height}, its image {size[0]}x{size[1]} pixels")
    if frame.two_bands:
        raise DataError("holds two bands; save each as a mask, or both as one number a class")
    return _from_deep(frame) if frame.image is None else _from_image(frame, frame.image)


def require_upright(turned: bool) -> None:
    """Refuse masks that say nothing of how they lie, beside an image that was turned by a tag."""
    if turned:
        raise DataError(
            "has no EXIF orientation but its image was turned by one; save the image upright, or "
            "the mask with the image's tag"
        )


def _from_deep(frame: Frame) -> MaskPicture:
    values = np.asarray(frame.deep)
    if values.ndim == 3:
        values = _one_channel(values)
    if not np.isfinite(values).all():
        raise DataError("holds values that are not finite; save it with whole numbers")
    if values.dtype.kind == "f" and not np.array_equal(values, np.round(values)):
        raise DataError("holds fractions; save it with whole numbers")
    if values.min(initial=0) < 0:
        raise DataError(f"holds the number {values.min():g}; save it with numbers from 0 on")
    numbers = values.astype(np.int64)
    if frame.alpha is not None:
        numbers = np.where(frame.alpha > 0, numbers, 0)
    white = 65535 if numbers.max(initial=0) > 255 else 255
    if frame.white_is_zero:
        white = int(np.iinfo(values.dtype).max) if values.dtype.kind in "iu" else 1
        numbers = white - numbers
    return MaskPicture(
        numbers=numbers,
        shown=np.clip(numbers / white, 0, 1),
        white=white,
        lossy=frame.lossy,
        white_is_zero=frame.white_is_zero,
    )


def _one_channel(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if not (values == values[..., :1]).all():
        raise DataError("has colours; save it as grey or palette PNG, one value a class")
    return values[..., 0]


def _from_image(frame: Frame, image: Image.Image) -> MaskPicture:
    facts: dict[str, Any] = {"lossy": frame.lossy, "white_is_zero": frame.white_is_zero}
    if image.mode == "1":
        bits = np.asarray(image).astype(np.int64)
        # Two levels: which of them is stored as 0 does not matter.
        return _levels(bits, 1, lossy=False)
    if image.mode == "P" and "transparency" not in image.info:
        return _from_palette(image, facts)
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        return _from_transparent(image, facts)
    if image.mode == "L":
        stored = np.asarray(image)
        numbers = np.round(stored * (frame.top / 255)).astype(np.int64)
        return MaskPicture(numbers=numbers, shown=stored / 255, white=frame.top, **facts)
    if image.mode != "RGB":
        raise DataError(f"has the mode {image.mode}; save it as grey or palette PNG")
    return _from_colours(np.asarray(image), facts)


def _levels(numbers: Ints, white: int, **facts: Any) -> MaskPicture:
    """Numbers from black, which is 0, to white."""
    return MaskPicture(numbers=numbers, shown=numbers / white, white=white, **facts)


def _from_palette(image: Image.Image, facts: dict[str, Any]) -> MaskPicture:
    """Levels where a palette is a grey ramp, white where it has no other colours, else places."""
    places, colours = np.asarray(image).astype(np.int64), _colours(image)
    ramp = (colours == np.arange(256)[:, None]).all(-1)
    used = _used(places, colours)
    if ramp[places].all():
        return _levels(places, 255, palette=used, **facts)
    shown = colours[places]
    if _is_grey(colours) and np.isin(colours[~ramp], (0, 255)).all():
        return _levels((shown[..., 0] > 0).astype(np.int64), 1, **facts)
    plain = set(used.values()) <= {(0, 0, 0), (255, 255, 255)}
    facts = {**facts, "white": 256, "coloured": True, "palette": used, "plain": plain}
    return MaskPicture(numbers=places, shown=shown.max(-1) / 255, **facts)


def _from_clear_palette(
    image: Image.Image, drawn: Bools, visible: Bools, facts: dict[str, Any]
) -> MaskPicture:
    """Places of a palette where they are drawn, 0 where they are transparent."""
    places = np.asarray(image).astype(np.int64)
    used = _used(places[drawn], _colours(image))
    plain = len(np.unique(places[visible])) == 1
    facts = {**facts, "white": 256, "coloured": True, "palette": used, "plain": plain}
    return MaskPicture(numbers=np.where(drawn, places, 0), shown=visible.astype(float), **facts)


def _colours(image: Image.Image) -> npt.NDArray[np.int64]:
    """The colours of a palette's 256 places, (256, 3); a ramp of greys where it names none."""
    known = np.array(image.getpalette("RGB") or [], np.int64).reshape(-1, 3)
    return np.concatenate([known, np.repeat(np.arange(len(known), 256), 3).reshape(-1, 3)])


def _used(places: Ints, colours: npt.NDArray[np.int64]) -> dict[int, tuple[int, ...]]:
    return {int(place): tuple(colours[place].tolist()) for place in np.unique(places)}


def _from_transparent(image: Image.Image, facts: dict[str, Any]) -> MaskPicture:
    """What is drawn on transparent ground, over black; drawn in black it is its opacity."""
    rgba = np.asarray(image.convert("RGBA")).astype(np.int64)
    colours, opacity = rgba[..., :3], rgba[..., 3]
    if (opacity == 255).all():
        if image.mode in ("P", "PA"):
            return _from_palette(image.convert("P"), facts)
        return _from_colours(colours, facts)
    over: Ints = np.asarray(np.round(colours * (opacity[..., None] / 255)), np.int64)
    if image.mode == "P":
        visible: Bools = np.asarray(over.any(-1) if over.any() else opacity > 0)
        return _from_clear_palette(image, opacity > 0, visible, facts)
    if not over.any():
        return _levels(opacity, 255, **facts)
    if _is_grey(over, MARGIN if facts["lossy"] else 0):
        return _levels(np.asarray(over.max(-1)), 255, **facts)
    drawn: Bools = np.asarray(over.any(-1))
    painted = len(np.unique(colours[drawn], axis=0)) > 1 and not facts["lossy"]
    return _levels(drawn.astype(np.int64), 1, painted=painted, **facts)


def _from_colours(values: npt.NDArray[Any], facts: dict[str, Any]) -> MaskPicture:
    """Grey that is written as three channels; a lossy one's may differ a little."""
    grey = facts["lossy"] and _is_grey(values.astype(np.int64), MARGIN)
    numbers = values.max(-1) if grey else _one_channel(values)
    return _levels(numbers.astype(np.int64), 255, **facts)


def _is_grey(values: Ints, most: int = 0) -> bool:
    return bool((np.ptp(values, axis=-1) <= most).all())


def surround(masks: npt.NDArray[Any], where: geometry.Box, fill: int = IGNORE) -> npt.NDArray[Any]:
    """Square masks (..., S, S) with nothing but ``fill`` around the picture.

    Networks learn nothing from the bars of a letterbox: :data:`IGNORE` by default.
    """
    return geometry.framed(geometry.inside(masks, where), where, masks.shape[-1], fill)
