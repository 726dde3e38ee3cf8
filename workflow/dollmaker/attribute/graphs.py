"""Normalised cuts of graphs (Shi & Malik 2000), batched, on any device.

A graph is given by its affinity: symmetric, not negative, (..., N, N). The exact cut is NP-hard; it
is relaxed to an eigenvector, which a threshold then splits.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dollmaker.runtime.errors import DataError

#: Nodes from which on Lanczos' method is faster than LAPACK.
_LANCZOS = 300


def normalised_cut(affinity: Tensor) -> tuple[Tensor, Tensor]:
    """The relaxed normalised cut: second-smallest solution of (D - W) v = l D v.

    Solved in float64 as the symmetric problem of D^-1/2 W D^-1/2. The trivial solution v = 1 is
    shifted away, so that the vector of a graph in several pieces tells them apart. A node without
    edges has v = 0. The affinity is W, float (..., N, N), symmetric and not negative, N at least 2.

    Returns:
        Vectors v (..., N) of norm 1 and eigenvalues l (...,), 0 (in pieces) to 2, in the type of
        ``affinity``. Sign: the first entry of at least half the largest magnitude is positive.

    Raises:
        DataError: If the affinity is not square, negative, or not finite.
    """
    weights = _checked(affinity)
    degree = weights.sum(-1)
    scale = torch.where(degree > 0, degree, 1).rsqrt() * (degree > 0)
    trivial = degree.sqrt()
    trivial = trivial / trivial.norm(dim=-1, keepdim=True).clamp(min=1e-300)
    matrix = weights * scale[..., :, None]
    matrix *= scale[..., None, :]
    # Eigenvalues lie in -1..1: what is at -2 is last.
    matrix -= (3 * trivial)[..., :, None] * trivial[..., None, :]
    matrix.diagonal(dim1=-2, dim2=-1).sub_(2 * (degree <= 0).to(matrix))
    value, top = _largest(matrix)
    vector = top * scale
    vector = vector / vector.norm(dim=-1, keepdim=True).clamp(min=1e-300)
    magnitude = vector.abs()
    large = magnitude >= magnitude.amax(-1, keepdim=True) / 2
    first = large.to(torch.uint8).argmax(-1, keepdim=True)
    vector = torch.where(vector.gather(-1, first) < 0, -vector, vector)
    return vector.to(affinity.dtype), (1 - value).to(affinity.dtype)


def best_split(affinity: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
    """The threshold of a vector (..., N) of :func:`normalised_cut` with the smallest cut.

    Returns:
        Thresholds t (...,), halfway between two values of the vector: A is v > t; and their NCut
        (...,), infinite when the vector is constant.
    """
    weights = _checked(affinity)
    ordered, order = vector.double().sort(dim=-1, stable=True)
    rank = order.argsort(-1)
    # Sums over the k first nodes in the order of the vector, for all k at once.
    earlier = (weights * (rank[..., :, None] > rank[..., None, :])).sum(-1)
    grown = 2 * earlier + weights.diagonal(dim1=-2, dim2=-1)
    within = grown.gather(-1, order).cumsum(-1)
    low = weights.sum(-1).gather(-1, order).cumsum(-1)
    total = low[..., -1:]
    high, small = total - low, 1e-12 * (low + (total - low))
    cut = (low - within).clamp(min=0)
    proper = ((low > small) & (high > small))[..., :-1] & (ordered[..., 1:] > ordered[..., :-1])
    values = torch.where(proper, (cut / low + cut / high)[..., :-1], torch.inf)
    value, place = values.min(-1)
    between = (ordered[..., 1:] + ordered[..., :-1]) / 2
    threshold = between.gather(-1, place[..., None])[..., 0]
    return threshold.to(vector.dtype), value.to(affinity.dtype)


def _largest(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Largest eigenvalue (...,) and its eigenvector (..., N)."""
    if matrix.device.type != "cpu":
        values, vectors = torch.linalg.eigh(matrix)
        return values[..., -1], vectors[..., -1]
    size = matrix.shape[-1]
    found = [_largest_on_cpu(one) for one in matrix.reshape(-1, size, size).numpy()]
    top = np.stack([value for value, _ in found])
    vectors = np.stack([vector for _, vector in found])
    shape = matrix.shape[:-1]
    return torch.from_numpy(top).reshape(shape[:-1]), torch.from_numpy(vectors).reshape(shape)


def _largest_on_cpu(matrix: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
    """Largest eigenvalue of one matrix and its vector (N,): by Lanczos if large, else by LAPACK."""
    from scipy.linalg import eigh
    from scipy.sparse.linalg import ArpackError, eigsh

    size = len(matrix)
    if size >= _LANCZOS:
        start = np.random.default_rng(0).standard_normal(size)  # fixed: the same vector each time
        try:
            value, vector = eigsh(matrix, 1, which="LA", v0=start, tol=1e-10, maxiter=50)
            return value[0], vector[:, 0]
        except ArpackError:
            pass  # nearly equal eigenvalues
    value, vector = eigh(matrix, subset_by_index=[size - 1, size - 1], check_finite=False)
    return value[0], vector[:, 0]


def _checked(affinity: Tensor) -> Tensor:
    shape = affinity.shape
    if len(shape) < 2 or shape[-1] != shape[-2] or shape[-1] < 2:
        raise DataError(
            f"an affinity has shape {tuple(shape)}; give (..., N, N) with N of at least 2."
        )
    weights = affinity.detach().double()
    least, most = weights.aminmax()
    if not (least >= 0 and most < torch.inf):  # NaN is neither
        raise DataError(
            "an affinity holds negative or infinite values; give weights of at least 0."
        )
    return weights
