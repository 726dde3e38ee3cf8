"""How many masks each step of binarize makes a second."""

import gc
import platform
import statistics
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from dollmaker.bench.subject import clouds
from dollmaker.binarize.cuts import FAMILY, Cut
from dollmaker.binarize.pair import Pair
from dollmaker.binarize.steps import STEPS
from dollmaker.binarize.thresholds import otsu


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
    cuts = {("stability", FAMILY): Cut("area", 0.1)}
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
