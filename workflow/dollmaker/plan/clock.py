"""Timing: what a piece of work takes, within a share of the seconds there are."""

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

_MOST = 6


@dataclass(frozen=True, kw_only=True)
class Rate:
    """What one unit takes.

    Attributes:
        what: What was measured, e.g. ``attribute doll``.
        unit: The unit, e.g. ``map``.
        seconds: Seconds a unit, for the settings of the configuration.
        repetitions: Measurements behind the median.
        how: With what it was measured.
    """

    what: str
    unit: str
    seconds: float
    repetitions: int
    how: str


class Budget:
    """Shares the seconds of a calibration; what one stage leaves or overdraws, the others share.

    Args:
        seconds: Seconds in all.
        weights: Stage -> its weight.
    """

    def __init__(self, seconds: float, weights: Mapping[str, float]) -> None:
        self._end = time.perf_counter() + seconds
        self._least = seconds / 100
        self._weights = dict(weights)

    def take(self, stage: str) -> float:
        """Seconds of a stage, which is crossed off; never quite nothing."""
        left = max(0.0, self._end - time.perf_counter())
        share = self._weights[stage] / sum(self._weights.values())
        del self._weights[stage]
        return max(left * share, self._least)


def seconds_of(work: Callable[[], object]) -> float:
    """Seconds of one call, with what it left to do on a GPU."""
    began = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def measure(work: Callable[[], object], budget: float) -> tuple[float, int]:
    """Median seconds of a call and how many it was taken of.

    The first call is a warm-up, unless it takes so long that there is no other.
    """
    times = [seconds_of(work)]
    while len(times) < _MOST and sum(times) + times[-1] <= budget:
        times.append(seconds_of(work))
    kept = times[1:] or times
    return statistics.median(kept), len(kept)


def measure_each(
    work: Callable[[int], object], budget: float, *, least: int = 2, most: int = 64
) -> tuple[float, int, int]:
    """Seconds of one of many like things.

    Args:
        work: Does so many.
        budget: Seconds to spend.
        least: How many are done at first; from their time follows how many at a time.
        most: Most at a time.

    Returns:
        Seconds of each, the number of measurements, and how many were done at a time.
    """
    first = seconds_of(lambda: work(least)) / least
    number = int(max(least, min(most, budget / 3 / max(first, 1e-9))))
    seconds, repetitions = measure(lambda: work(number), budget)
    return seconds / number, repetitions, number


def say(text: str) -> None:
    """A line of progress on stderr."""
    print(f"plan: {text}", file=sys.stderr, flush=True)
