"""The drawing board: body coordinates of every pixel, a fine canvas for thin things, smooth noise.

Everything is placed in *body centimetres* of a standard adult: x grows towards the patient's left
(right in the picture), y grows towards the feet, the origin lies in the middle of the chest.
Pixels enter only here, so a picture of 32 and one of 1024 pixels show the same patient.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy import ndimage

Map = npt.NDArray[np.floating[Any]]
"""One number per pixel, (H, W); float32 in practice."""

Mask = npt.NDArray[np.bool_]
"""A region, (H, W)."""

Points = Sequence[tuple[float, float]]
"""Positions (x, y) in body centimetres."""

_NOISE_REACH = 36.0  # cm from the centre that the noise lattice covers
_CANVAS_SIDE = 384  # a canvas has at least this many pixels along its long side


@dataclass(frozen=True)
class Grid:
    """Where each pixel lies in the body."""

    x: Map  #: Body x of each pixel centre in cm, (H, W).
    y: Map  #: Body y of each pixel centre in cm, (H, W).
    pitch: float  #: Width of a pixel in body cm.
    roll: float  #: Rotation of the body in the picture, radians.
    #: Position of the body's origin relative to the picture's centre, body cm.
    shift: tuple[float, float]

    @classmethod
    def place(
        cls,
        shape: tuple[int, int],
        *,
        field: float,
        roll: float = 0.0,
        shift: tuple[float, float] = (0.0, 0.0),
    ) -> Self:
        """Lay a grid over the body, so many pixels high and wide, `field` body cm its long side."""
        pitch = field / max(shape)
        rows, columns = (
            _centres(count, pitch) - away for count, away in zip(shape, shift[::-1], strict=True)
        )
        cosine, sine = math.cos(roll), math.sin(roll)
        x = columns[None, :] * cosine + rows[:, None] * sine
        y = rows[:, None] * cosine - columns[None, :] * sine
        return cls(x.astype(np.float32), y.astype(np.float32), pitch, roll, shift)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.x.shape
        return height, width

    def pixels(self, points: Points, scale: float) -> list[tuple[float, float]]:
        """Turn body positions into (column, row) of a picture `scale` times as fine."""
        cosine, sine = math.cos(self.roll), math.sin(self.roll)
        height, width = self.shape
        placed = []
        for x, y in points:
            column = (x * cosine - y * sine + self.shift[0]) / self.pitch + width / 2
            row = (x * sine + y * cosine + self.shift[1]) / self.pitch + height / 2
            placed.append((column * scale, row * scale))
        return placed

    def blur(self, values: Map, sigma: float) -> Map:
        """Blur a map with a bell of `sigma` body cm (three box passes where that is wide)."""
        pixels = sigma / self.pitch
        if pixels < 2.0:
            sharp: Map = ndimage.gaussian_filter(values, pixels, mode="nearest", truncate=3.0)
            return sharp
        size = max(3, 2 * round(pixels) + 1)  # three boxes of width 2s + 1 have deviation near s
        result: Map = values
        for _ in range(3):
            result = ndimage.uniform_filter(result, size, mode="nearest")
        return result

    def noise(self, rng: np.random.Generator, cells: Sequence[float], fall: float = 0.6) -> Map:
        """Smooth noise with about unit deviation, the same at every picture size.

        Layers have grains of so many body cm, coarse to fine, each `fall` times as strong as the
        one before. As much is drawn whatever the picture's size.
        """
        rows, columns = (_centres(count, self.pitch) for count in self.shape)
        total = np.zeros(self.shape, np.float32)
        strength, power = 1.0, 0.0
        for cell in cells:
            count = int(2 * _NOISE_REACH / cell) + 3
            lattice = rng.standard_normal((count, count), dtype=np.float32)
            row, row_part = _lattice(rows, cell, count)
            column, column_part = _lattice(columns, cell, count)
            lines = lattice[row] * (1 - row_part[:, None]) + lattice[row + 1] * row_part[:, None]
            layer = lines[:, column] * (1 - column_part) + lines[:, column + 1] * column_part
            total += strength * layer
            power += 0.55 * strength**2  # linear interpolation halves the variance, roughly
            strength *= fall
        return total / math.sqrt(power)


@dataclass
class Materials:
    """Thickness maps of the materials in cm along the beam, (H, W)."""

    soft: Map
    fat: Map
    lung: Map
    bone: Map
    metal: Map


def _centres(count: int, pitch: float) -> Map:
    """Where the centres of so many pixels lie, from the middle of their row."""
    return (np.arange(count, dtype=np.float32) + 0.5 - count / 2) * pitch


def _lattice(positions: Map, cell: float, count: int) -> tuple[npt.NDArray[np.intp], Map]:
    """Index of the lattice point before each position, and the smooth step towards the next."""
    place = np.clip((positions + _NOISE_REACH) / cell, 0, count - 2.001)
    index = place.astype(np.intp)
    part = (place - index).astype(np.float32)
    return index, part * part * (3 - 2 * part)


class Canvas:
    """A fine board for things thinner than a pixel; `thickness` brings them to the grid."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.factor = max(1, math.ceil(_CANVAS_SIDE / max(grid.shape)))
        height, width = grid.shape
        self._image = Image.new("F", (width * self.factor, height * self.factor), 0.0)
        self._draw = ImageDraw.Draw(self._image)

    def line(self, points: Points, width: float, thickness: float) -> None:
        """Draw a line `width` cm wide of material `thickness` cm thick."""
        pixels = width / self.grid.pitch * self.factor
        self._draw.line(
            self.grid.pixels(points, self.factor),
            fill=thickness * min(1.0, pixels),  # thinner than a canvas pixel: the same amount of it
            width=max(1, round(pixels)),
            joint="curve" if pixels > 2.5 else None,
        )

    def patch(self, points: Points, thickness: float) -> None:
        """Fill a polygon with material `thickness` cm thick."""
        self._draw.polygon(self.grid.pixels(points, self.factor), fill=thickness)

    def dot(self, centre: tuple[float, float], radius: float, thickness: float) -> None:
        """Fill a disc of `radius` cm."""
        ((column, row),) = self.grid.pixels([centre], self.factor)
        reach = max(0.5, radius / self.grid.pitch * self.factor)
        box = (column - reach, row - reach, column + reach, row + reach)
        self._draw.ellipse(box, fill=thickness)

    def thickness(self) -> Map:
        """Mean thickness in each pixel of the grid, cm, (H, W)."""
        return shrink(np.asarray(self._image, np.float32), self.factor)


def shrink(values: Map, factor: int) -> Map:
    """Average blocks of `factor` x `factor` pixels."""
    if factor == 1:
        return values
    height, width = values.shape
    blocks = values.reshape(height // factor, factor, width // factor, factor)
    mean: Map = blocks.mean(axis=(1, 3), dtype=np.float32)
    return mean


def ball(values: Map) -> Map:
    """Chord profile sqrt(1 - r^2) of a ball from the squared radius r^2; 0 outside."""
    chord: Map = np.sqrt(np.clip(1 - values, 0, None), dtype=np.float32)
    return chord


def step(values: Map, width: float) -> Map:
    """Smooth step from 0 (below -width) to 1 (above +width)."""
    ramp = np.clip(values / (2 * width) + 0.5, 0, 1)
    smooth: Map = ramp * ramp * (3 - 2 * ramp)
    return smooth
