"""Where the pictures lie in their squares: maps belong to them, not to the bars around them.

A grid over the square, of pixels or of a network's places, has cells that are picture: along each
axis the cells of which at least half is picture, or else (the picture is thinner than a cell) the
one of which most is. Together they are a rectangle.

Shapes: B images, P pairs, h x w cells of a grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import polars as pl
import torch
from torch import Tensor

from dollmaker.pixels.geometry import Box, Fit, box, mirrored


@dataclass(frozen=True)
class Frames:
    """Where the pictures of B squares lie.

    ``boxes`` are in pixels of the stored square, whose side is ``size``, one for each image;
    ``None`` says that under this fit every picture fills its square.
    """

    boxes: tuple[Box, ...] | None = None
    size: int = 0

    def of(self, rows: Sequence[int]) -> "Frames":
        """The frames of some images, in this order."""
        if self.boxes is None:
            return self
        return replace(self, boxes=tuple(self.boxes[row] for row in rows))

    def mirrored(self) -> "Frames":
        """The frames of the squares mirrored left to right."""
        if self.boxes is None:
            return self
        return replace(self, boxes=tuple(mirrored(where, self.size) for where in self.boxes))

    def cells(self, row: int, grid: Sequence[int]) -> Box:
        """Which cells of a grid (h, w) over an image's square are picture."""
        if self.boxes is None:
            return 0, 0, grid[1], grid[0]
        left, top, right, bottom = self.boxes[row]
        if tuple(grid) == (self.size, self.size):
            return left, top, right, bottom
        left, right = _covered(left, right, self.size, grid[1])
        top, bottom = _covered(top, bottom, self.size, grid[0])
        return left, top, right, bottom

    def inside(self, grid: Sequence[int], device: torch.device) -> Tensor:
        """The cells that are picture: bool (B, h, w), or (1, h, w) without boxes: all."""
        if self.boxes is None:
            return torch.ones((1, *grid), dtype=torch.bool, device=device)
        left, top, right, bottom = self._sides(grid, device)
        y = torch.arange(grid[0], device=device)
        x = torch.arange(grid[1], device=device)
        rows, columns = (y >= top) & (y < bottom), (x >= left) & (x < right)
        return rows[:, :, None] & columns[:, None, :]

    def cut(self, maps: Tensor) -> Tensor:
        """Maps (B, h, w) set to 0 outside the pictures."""
        if self.boxes is None or not len(maps):
            return maps
        return maps.where(self.inside(maps.shape[1:], maps.device), maps.new_zeros(()))

    def repeat_edges(self, maps: Tensor) -> Tensor:
        """Maps (B, h, w) whose edge values are repeated outside the pictures.

        Smoothing, scaling or interpolation then sees nothing but the pictures.
        """
        if self.boxes is None or not len(maps):
            return maps
        grid, device = maps.shape[1:], maps.device
        left, top, right, bottom = self._sides(grid, device)
        rows = torch.arange(grid[0], device=device).clamp(top, bottom - 1)
        columns = torch.arange(grid[1], device=device).clamp(left, right - 1)
        which = torch.arange(len(maps), device=device)
        return maps[which[:, None, None], rows[:, :, None], columns[:, None, :]]

    def _sides(self, grid: Sequence[int], device: torch.device) -> tuple[Tensor, ...]:
        """Left, top, right and bottom of all images on a grid, each (B, 1)."""
        rectangles = [self.cells(row, grid) for row in range(len(self.boxes or ()))]
        return torch.tensor(rectangles, device=device).T[:, :, None].unbind(0)


#: Every picture fills its square.
WHOLE = Frames()


def frames_of(rows: pl.DataFrame, size: int, fit: Fit) -> Frames:
    """Where the pictures of images lie, from rows of the index and the side of the stored square.

    The fit alone decides whether there are boxes, so that no image depends on its neighbours.
    """
    if fit != "letterbox":
        return Frames(size=size)
    sides = rows.select("width", "height").iter_rows()
    return Frames(tuple(box(width, height, size, fit) for width, height in sides), size)


def _covered(start: int, stop: int, size: int, count: int) -> tuple[int, int]:
    """The range of cells, of ``count`` along ``size`` pixels, that start..stop covers by half."""
    cover = [
        min((cell + 1) * size, stop * count) - max(cell * size, start * count)
        for cell in range(count)
    ]
    inside = [cell for cell in range(count) if 2 * cover[cell] >= size]
    inside = inside or [max(range(count), key=cover.__getitem__)]
    return inside[0], inside[-1] + 1
