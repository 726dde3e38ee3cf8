"""Quadrature rules on [0, 1]: the nodes along a path and their weights.

A rule is a list of levels. The first is an estimate by itself; each later one scales the total so
far by ``keep`` and adds its own nodes, so that every gradient is used again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dollmaker.runtime.errors import ConfigError, unknown

Floats = npt.NDArray[np.float64]

#: Rules for a fixed number of nodes.
RULES = ("gauss_legendre", "midpoint")


@dataclass(frozen=True, kw_only=True)
class Level:
    """One refinement.

    Attributes:
        keep: Factor of the total of the levels before.
        places: New nodes in [0, 1], (n,).
        weights: Their weights, (n,); with ``keep`` times the earlier weights they sum to 1.
    """

    keep: float
    places: Floats
    weights: Floats


def fixed(nodes: int, rule: str = "gauss_legendre") -> list[Level]:
    """One level of so many nodes.

    Args:
        nodes: Their number.
        rule: ``gauss_legendre`` (exact for polynomials of degree 2 nodes - 1) or ``midpoint``.
    """
    if rule == "gauss_legendre":
        places, weights = np.polynomial.legendre.leggauss(nodes)
        return [Level(keep=0.0, places=(places + 1) / 2, weights=weights / 2)]
    if rule == "midpoint":
        return [_midpoint(nodes)]
    raise ConfigError(unknown("quadrature rule", rule, RULES))


def nested(first: int, most: int) -> list[Level]:
    """Levels that about double the nodes: the midpoint rule, then trapezoid rules.

    The midpoint rule of n nodes and the trapezoid rule of n intervals share no node, and their mean
    is the trapezoid rule of 2 n intervals; each later level halves the intervals. So 5 nodes become
    11, 21, 41, ...

    Args:
        first: Nodes of the first level.
        most: No level passes this number of nodes in total.
    """
    levels, spent, cells = [_midpoint(first)], first, first
    new = Level(
        keep=0.5,
        places=np.linspace(0, 1, cells + 1),
        weights=np.array([0.25, *[0.5] * (cells - 1), 0.25]) / cells,
    )
    while spent + len(new.places) <= most:
        levels.append(new)
        spent += len(new.places)
        cells *= 2
        middle = _midpoint(cells)
        new = Level(keep=0.5, places=middle.places, weights=middle.weights / 2)
    return levels


def spent(levels: Sequence[Level]) -> int:
    """The total number of nodes of the first levels."""
    return sum(len(level.places) for level in levels)


def _midpoint(nodes: int) -> Level:
    return Level(
        keep=0.0,
        places=(np.arange(nodes) + 0.5) / nodes,
        weights=np.full(nodes, 1 / nodes),
    )
