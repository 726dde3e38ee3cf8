"""How many masks each step of binarize makes a second, and how many normalised cuts."""

import gc
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dollmaker.attribute.graphs import normalised_cut
from dollmaker.binarize.cuts import FAMILY, Cut
from dollmaker.binarize.label_free import CRITERION
from dollmaker.binarize.pair import Pair
from dollmaker.binarize.steps import STEPS
from dollmaker.binarize.thresholds import otsu
from shared import clouds, keep, options

#: Places along a side of the grids: a ViT/14 at 476 pixels, MaskCut's ViT/8 at 480.
GRIDS = (34, 60)

#: Channels of the features, and the cosine over which two places are joined (TokenCut's).
_CHANNELS, _TAU, _WEAK = 64, 0.2, 1e-5

#: Largest difference of eigenvalues, and of entries of vectors of length 1.
_SAME = 1e-6


def measure(*, size: int, images: int, rounds: int) -> dict[str, Any]:
    """Time every step, in seconds of processor time: masks per second on one core.

    Maps are smooth blobs over a low floor, images clouds with grain. Steps that need a mask get
    Otsu's. In each round every step takes all pairs once; a step that is done in a blink repeats
    that until 20 ms are over, so that the clock is not what is measured. Processor time does not
    count waiting for a core that others use.

    Args:
        size: Side of maps and images in pixels.
        images: Pairs.
        rounds: Medians are taken over these.

    Returns:
        ``masks_per_second`` (step -> number) and what was measured.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        pairs = [otsu(pair) for pair in blobs(images, size)]
        speeds: dict[str, list[float]] = {name: [] for name in STEPS}
        for name in STEPS:  # libraries are loaded, memory is there
            STEPS[name](pairs[0])
        gc.collect()
        for _ in range(rounds):
            for name in STEPS:
                speeds[name].append(_speed(name, pairs))
    finally:
        torch.set_num_threads(threads)
    return {
        "size": size,
        "images": images,
        "rounds": rounds,
        "processor": platform.processor() or platform.machine(),
        "masks_per_second": {name: statistics.median(values) for name, values in speeds.items()},
    }


def _speed(name: str, pairs: list[Pair]) -> float:
    step, done = STEPS[name], 0
    start = time.process_time()
    while True:
        for pair in pairs:
            step(pair)
        done += len(pairs)
        seconds = time.process_time() - start
        if seconds > 0.02:
            return done / seconds


def blobs(images: int, size: int) -> list[Pair]:
    """Pairs of a smooth map with a few maxima and a textured colour image, seeded."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] / size
    pictures = ((clouds(images, 3, size).numpy() + 1) * 127.5).astype(np.uint8)
    cuts = {(CRITERION, FAMILY): Cut("area", 0.1)}
    pairs = []
    for picture in pictures:
        total = 0.02 * rng.random((size, size))
        for height, top, left, width in rng.uniform(
            (0.5, 0.2, 0.2, 0.05), (1, 0.8, 0.8, 0.15), (3, 4)
        ):
            total += height * np.exp(-((y - top) ** 2 + (x - left) ** 2) / (2 * width**2))
        relevance = (total / total.max()).astype(np.float32)
        pairs.append(Pair(map=relevance, image=picture, label=1, probability=0.9, cuts=cuts))
    return pairs


def print_speeds(results: Mapping[str, Any]) -> None:
    """Print to stdout."""
    print(
        f"binarize, {results['size']} px, {results['images']} pairs, median of "
        f"{results['rounds']} rounds, one core, {results['processor']}"
    )
    print(f"{'step':<24}{'masks/s':>12}")
    for name, speed in results["masks_per_second"].items():
        print(f"{name:<24}{speed:>12,.1f}")


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


def main() -> None:
    """Measure and print."""
    parser = options(__doc__, size=224, images=8, rounds=5)
    parser.add_argument("--grids", type=int, nargs="+", default=GRIDS, help="places along a side")
    given = parser.parse_args()
    results = measure(size=given.size, images=given.images, rounds=given.rounds)
    print_speeds(results)
    results["cuts_per_second"] = measure_cuts(images=given.images, grids=given.grids)
    print_cuts(results["cuts_per_second"])
    keep(results, given.json)


if __name__ == "__main__":
    main()
