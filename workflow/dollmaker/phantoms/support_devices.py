"""Support devices: metal and plastic drawn on the chest, with the region each covers."""

from collections.abc import Callable

import numpy as np

from dollmaker.phantoms.anatomy import Chest
from dollmaker.phantoms.grid import Canvas, Mask, Points
from dollmaker.phantoms.patient import Side


def support_devices(chest: Chest, severity: float, rng: np.random.Generator) -> Mask:
    """Add one to four devices; the more severe, the more of them.

    Returns:
        Box, leads, lines and tubes, at least one pixel wide, (H, W).
    """
    board = _Board(chest)
    kinds = list(_DEVICES)
    weights = np.array([0.24, 0.24, 0.24, 0.16, 0.12])
    count = 1 + int(rng.random() < severity) + int(rng.random() < severity)
    for index in rng.choice(len(kinds), size=count, replace=False, p=weights):
        kinds[int(index)](board, rng)
    return board.finish()


class _Board:
    """A canvas for the metal and one for the region it covers."""

    def __init__(self, chest: Chest) -> None:
        self.chest = chest
        self.metal = Canvas(chest.grid)
        self.region = Canvas(chest.grid)
        self.least = 1.2 * chest.grid.pitch  # narrower lines would leave gaps in the mask

    def wire(self, points: Points, width: float, thickness: float) -> None:
        smooth = _smooth(points)
        self.metal.line(smooth, 1.2 * width, thickness)
        self.region.line(smooth, max(width + 0.15, self.least), 1.0)

    def plate(self, points: Points, thickness: float) -> None:
        self.metal.patch(points, thickness)
        self.region.patch(points, 1.0)

    def disc(self, centre: tuple[float, float], radius: float, thickness: float) -> None:
        self.metal.dot(centre, radius, thickness)
        self.region.dot(centre, max(radius + 0.05, 0.5 * self.least), 1.0)

    def finish(self) -> Mask:
        self.chest.metal = self.chest.metal + self.metal.thickness()
        return self.region.thickness() > 0.4


def _smooth(points: Points, pieces: int = 8) -> list[tuple[float, float]]:
    """A Catmull-Rom curve through the points."""
    known = np.array([points[0], *points, points[-1]], float)
    part = np.linspace(0, 1, pieces, endpoint=False)[:, None]
    curve = []
    for a, b, c, d in zip(known[:-3], known[1:-2], known[2:-1], known[3:], strict=True):
        bend = 2 * b + (c - a) * part + (2 * a - 5 * b + 4 * c - d) * part**2
        bend = bend + (3 * b - a - 3 * c + d) * part**3
        curve.append(0.5 * bend)
    joined = np.concatenate([*curve, known[-1:]])
    return [(x, y) for x, y in joined.tolist()]


def _pacemaker(board: _Board, rng: np.random.Generator) -> None:
    side: Side = 1 if rng.random() < 0.8 else -1
    x, y = side * rng.uniform(8.5, 10.5), rng.uniform(-7.8, -5.8)
    angle = np.linspace(0, 2 * np.pi, 28)
    square = 1 / np.maximum(np.abs(np.cos(angle)), np.abs(np.sin(angle))) ** 0.6
    outline = np.stack([x + 1.9 * square * np.cos(angle), y + 1.6 * square * np.sin(angle)], axis=1)
    board.plate([(a, b) for a, b in outline.tolist()], 0.12)
    entry = (side * 4.5, -9.6 + rng.normal(0, 0.3))
    vein = (-2.2 + board.chest.patient.drift, -4.5)
    tip = (rng.uniform(4.0, 6.5), rng.uniform(7.0, 8.5))
    board.wire([(x, y), (x + side * 0.5, y - 2.2), entry, vein, (-1.8, 3.5), tip], 0.24, 0.17)
    if rng.random() < 0.6:
        board.wire([(x, y), entry, vein, (-3.2, 2.5), (-2.2, 3.6)], 0.2, 0.14)


def _central_line(board: _Board, rng: np.random.Generator) -> None:
    side: Side = 1 if rng.random() < 0.3 else -1
    end = (-2.2 + board.chest.patient.drift, rng.uniform(-2.5, 2.0))
    if rng.random() < 0.5:  # through the neck
        start = [(side * 3.6, -19.0), (side * 3.4, -13.0)]
    else:  # under the collar bone, often with a port
        start = [(side * 9.0, rng.uniform(-6, -4.5)), (side * 6.5, -9.2)]
        if rng.random() < 0.6:
            board.disc(start[0], 1.1, 0.08)
    board.wire([*start, (-2.0, -7.5), (-2.3, -4.0), end], 0.26, 0.16)


def _tube(board: _Board, rng: np.random.Generator) -> None:
    x = board.chest.patient.drift + rng.normal(0, 0.15)
    depth = rng.uniform(-7.5, -4.5)
    for wall in (-0.35, 0.35):
        board.wire([(x + wall, -19.0), (x + wall, depth)], 0.18, 0.16)
    board.region.line([(x, -19.0), (x, depth)], 0.9, 1.0)
    if rng.random() < 0.8:  # feeding tube
        stomach = (5.5 + rng.normal(0, 0.8), 13.0)
        board.wire([(x + 0.3, -19.0), (x + 0.4, -2.0), (x + 0.9, 8.0), stomach], 0.28, 0.15)


def _leads(board: _Board, rng: np.random.Generator) -> None:
    for _ in range(int(rng.integers(2, 5))):
        side = 1 if rng.random() < 0.5 else -1
        spot = (side * rng.uniform(5.0, 12.0), rng.uniform(-8.0, 9.0))
        board.disc(spot, 0.55, 0.12)
        away = (side * rng.uniform(10, 16), spot[1] + rng.uniform(3, 6))
        far = (rng.uniform(-14, 14), 19.0)
        board.wire([spot, away, far], 0.18, 0.15)


def _sternal_wires(board: _Board, rng: np.random.Generator) -> None:
    x = board.chest.patient.drift + 0.8 * board.chest.patient.yaw
    for number in range(int(rng.integers(4, 7))):
        y = -6.5 + 2.5 * number
        angle = np.linspace(0.3, 2 * np.pi, 10)
        loop = np.stack([x + 1.1 * np.cos(angle), y + 0.5 * np.sin(angle)], axis=1)
        board.wire([(a, b) for a, b in loop.tolist()], 0.17, 0.15)


_DEVICES: tuple[Callable[[_Board, np.random.Generator], None], ...] = (
    _pacemaker,
    _central_line,
    _tube,
    _leads,
    _sternal_wires,
)
