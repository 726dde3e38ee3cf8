"""How many normalised cuts of an image's places are made a second, beside LAPACK's whole solver."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from dollmaker.attribute.graphs import normalised_cut
from dollmaker.bench.subject import clouds

#: Places along a side of the grids: a ViT/14 at 476 pixels, MaskCut's ViT/8 at 480.
GRIDS = (34, 60)

#: Channels of the features, and the cosine over which two places are joined (TokenCut's).
_CHANNELS, _TAU, _WEAK = 64, 0.2, 1e-5

#: Largest difference of eigenvalues, and of entries of vectors of length 1.
_SAME = 1e-6


def graphs(count: int, side: int) -> Tensor:
    """TokenCut's graphs of smooth features, seeded: float64 (count, N, N), N = side * side."""
    values = clouds(count, _CHANNELS, side).flatten(2).mT
    directions = nn.functional.normalize(values - values.mean(1, keepdim=True), dim=-1)
    cosine = directions @ directions.mT
    return (cosine > _TAU).double().clamp(min=_WEAK)


def measure_cuts(*, images: int, grids: Sequence[int] = GRIDS) -> dict[str, Any]:
    """Time our cut and ``scipy.linalg.eigh`` of (D - W, D), in seconds of processor time.

    The reference takes the first graph only. Both must find the same.

    Args:
        images: Graphs of each grid.
        grids: Places along a side.

    Returns:
        ``"34x34"`` and so on -> ``ours`` and ``eigh``, masks per second.

    Raises:
        AssertionError: If eigenvalue, vector or mask are not those of the reference.
    """
    found: dict[str, Any] = {}
    small = graphs(1, 18)
    normalised_cut(small), reference(small[0].numpy())  # libraries are loaded
    for side in grids:
        affinity = graphs(images, side)
        start = time.process_time()
        vectors, values = normalised_cut(affinity)
        ours = images / max(time.process_time() - start, 1e-9)
        start = time.process_time()
        value, vector = reference(affinity[0].numpy())
        theirs = 1 / max(time.process_time() - start, 1e-9)
        require_same(vectors[0].numpy(), float(values[0]), vector, value)
        found[f"{side}x{side}"] = {"ours": ours, "eigh": theirs}
    return found


def reference(weights: Any) -> tuple[float, Any]:
    """The second-smallest solution of (D - W) v = l D v, v of length 1, by LAPACK."""
    from scipy.linalg import eigh

    degrees = np.diag(weights.sum(1))
    value, vector = eigh(degrees - weights, degrees, subset_by_index=[1, 1])
    return float(value[0]), vector[:, 0] / np.linalg.norm(vector[:, 0])


def require_same(ours: Any, our_value: float, theirs: Any, their_value: float) -> None:
    """Refuse a cut that is not the reference's.

    Raises:
        AssertionError: If eigenvalue, vector or mask differ.
    """
    theirs = theirs * np.sign(ours @ theirs)
    clear = np.abs(ours - ours.mean()) > _SAME
    masks = [(vector > vector.mean())[clear] for vector in (ours, theirs)]
    if (
        abs(our_value - their_value) > _SAME
        or np.abs(ours - theirs).max() > _SAME
        or (masks[0] != masks[1]).any()
    ):
        raise AssertionError(f"eigenvalue {our_value} is {their_value} to LAPACK")


def print_cuts(results: Mapping[str, Mapping[str, float]]) -> None:
    """Print to stdout."""
    print(f"{'normalised cut':<24}{'masks/s':>12}{'eigh':>12}{'ratio':>8}")
    for grid, speeds in results.items():
        ours, theirs = speeds["ours"], speeds["eigh"]
        print(f"{grid:<24}{ours:>12,.2f}{theirs:>12,.3f}{ours / theirs:>8,.1f}")
