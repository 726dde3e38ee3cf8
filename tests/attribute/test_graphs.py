"""Normalised cuts against all bipartitions, theorems, and written-out sums."""

import itertools

import numpy as np
import pytest
import torch

from dollmaker.attribute.graphs import best_split, normalised_cut
from dollmaker.runtime.errors import DataError


def planted(seed: int, sizes: tuple[int, ...], within: float = 1.0, between: float = 0.1) -> tuple:
    """A noisy graph of clusters, its nodes shuffled, and the cluster of each node."""
    rng = np.random.default_rng(seed)
    cluster = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    same = cluster[:, None] == cluster[None]
    noise = rng.uniform(0.5, 1.5, same.shape)
    weights = np.where(same, within, between) * (noise + noise.T) / 2
    return torch.from_numpy(weights), torch.from_numpy(cluster)


def by_hand(weights: np.ndarray, side: np.ndarray) -> float:
    cut = sum(weights[i, j] for i in np.flatnonzero(side) for j in np.flatnonzero(~side))
    return float(cut / weights[side].sum() + cut / weights[~side].sum())


def minimum(weights: torch.Tensor) -> tuple[float, np.ndarray]:
    """The best of all 2^(n - 1) - 1 bipartitions."""
    n = len(weights)
    sides = np.array(list(itertools.product([False, True], repeat=n - 1)))[1:]
    sides = np.concatenate([np.zeros((len(sides), 1), bool), sides], 1)
    values = [by_hand(weights.numpy(), side) for side in sides]
    return min(values), sides[int(np.argmin(values))]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("sizes", [(4, 4), (5, 3), (7, 3), (2, 6)])
def test_planted_clusters_are_the_best_of_all_bipartitions(seed: int, sizes: tuple) -> None:
    weights, cluster = planted(seed, sizes)
    best, side = minimum(weights)
    vector, value = normalised_cut(weights)
    threshold, found = best_split(weights, vector)
    cut = vector > threshold
    assert found == pytest.approx(best)
    assert by_hand(weights.numpy(), cut.numpy()) == pytest.approx(best)
    assert (cut.numpy() == side).all() or (cut.numpy() != side).all()
    assert len({int(c) for c in cluster[cut]}) == 1
    assert value <= best + 1e-12  # the relaxation is a lower bound (Shi & Malik)


def test_a_random_graphs_cut_is_bounded_by_the_best_and_the_eigenvalue() -> None:
    for seed in range(5):
        weights, _ = planted(seed, (8,))
        best, _ = minimum(weights)
        vector, value = normalised_cut(weights)
        threshold, found = best_split(weights, vector)
        assert value - 1e-12 <= best <= found + 1e-12
        values = [by_hand(weights.numpy(), (vector > t).numpy()) for t in vector.sort()[0][:-1]]
        assert found == pytest.approx(min(values))
        side = (vector > threshold).numpy()
        assert by_hand(weights.numpy(), side) == pytest.approx(float(found))


@pytest.mark.parametrize("size", [9, 400])
def test_the_vector_solves_the_generalised_problem(size: int) -> None:
    """Small graphs go to LAPACK, large ones to Lanczos."""
    weights, _ = planted(0, (size // 3, size - size // 3), between=0.3)
    vector, value = normalised_cut(weights)
    degree = weights.sum(1)
    assert torch.allclose((degree.diag() - weights) @ vector, value * degree * vector, atol=1e-7)
    assert abs(float(degree @ vector)) < 1e-9 * float(degree.sum())
    assert float(vector.norm()) == pytest.approx(1)
    all_values = np.linalg.eigvalsh((weights / (degree[:, None] * degree).sqrt()).numpy())
    assert float(value) == pytest.approx(1 - all_values[-2])


def test_a_batch_is_its_graphs_one_by_one() -> None:
    graphs = torch.stack([planted(seed, (6, 4))[0] for seed in range(6)]).reshape(2, 3, 10, 10)
    vectors, values = normalised_cut(graphs)
    thresholds, cuts = best_split(graphs, vectors)
    sides = vectors > thresholds[..., None]
    for place in itertools.product(range(2), range(3)):
        vector, value = normalised_cut(graphs[place])
        assert torch.equal(vector, vectors[place])
        assert value == values[place]
        assert best_split(graphs[place], vector)[1] == cuts[place]
        value = by_hand(graphs[place].numpy(), sides[place].numpy())
        assert value == pytest.approx(float(cuts[place]))
    small, _ = normalised_cut(graphs.float())
    assert small.dtype == torch.float32
    assert torch.allclose(small.double(), vectors, atol=1e-5)


def test_the_sign_does_not_depend_on_chance() -> None:
    weights, _ = planted(3, (5, 5))
    vector, _ = normalised_cut(weights)
    large = vector.abs() >= vector.abs().max() / 2
    assert vector[large][0] > 0
    assert torch.allclose(normalised_cut(weights * 7)[0], vector)


@pytest.mark.parametrize("sizes", [(4, 5), (2, 3, 4), (200, 150)])
def test_pieces_are_told_apart(sizes: tuple) -> None:
    weights, cluster = planted(1, sizes, between=0.0)
    vector, value = normalised_cut(weights)
    assert float(value) == pytest.approx(0, abs=1e-9)
    for piece in range(len(sizes)):
        assert float(vector[cluster == piece].std()) < 1e-6
    threshold, cut = best_split(weights, vector)
    assert float(cut) == pytest.approx(0, abs=1e-6)
    side = vector > threshold
    assert side.any() and not side.all()


def test_lone_nodes_and_graphs_without_structure() -> None:
    weights, _ = planted(2, (4, 4))
    weights[3], weights[:, 3] = 0, 0
    vector, _ = normalised_cut(weights)
    assert vector[3] == 0 and torch.isfinite(vector).all()
    for graph in (torch.ones(5, 5), torch.zeros(5, 5), torch.ones(2, 2), torch.eye(4)):
        vector, value = normalised_cut(graph)
        assert torch.isfinite(vector).all() and torch.isfinite(value)
        best_split(graph, vector)
    weights = torch.tensor([[0.0, 1], [1, 0]])
    assert normalised_cut(weights)[1] == pytest.approx(2)
    assert best_split(torch.ones(5, 5), torch.ones(5))[1] == torch.inf


def test_what_is_no_affinity_is_refused() -> None:
    for bad, words in [
        (torch.ones(3, 4), "give .* N of at least 2"),
        (torch.ones(1, 1), "give .* N of at least 2"),
        (-torch.ones(3, 3), "negative or infinite"),
        (torch.full((3, 3), torch.nan), "negative or infinite"),
    ]:
        with pytest.raises(DataError, match=words):
            normalised_cut(bad)
