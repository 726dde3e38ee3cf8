"""From counts and rates to seconds: pure functions."""

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

#: What a job of the attribution should take, in seconds: long beside its start, short to lose.
SHORT, GOOD, LONG = 20 * 60.0, 30 * 60.0, 40 * 60.0

#: How far from the suggestion a number of shards may be before it is worth a word.
_FAR = 4


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The work of one stage.

    Attributes:
        name: The stage.
        units: How much there is to do.
        unit: Of what, e.g. ``maps``.
        jobs: Seconds of each job; jobs run side by side.
    """

    name: str
    units: int
    unit: str
    jobs: Sequence[float]

    def seconds(self, devices: int = 1) -> float:
        """Seconds on so many devices."""
        return makespan(self.jobs, devices)


def makespan(jobs: Sequence[float], devices: int) -> float:
    """Seconds until all jobs are done, the longest given out first, one at a time a device."""
    free = [0.0] * max(1, min(devices, len(jobs)))
    for job in sorted(jobs, reverse=True):
        heapq.heapreplace(free, free[0] + job)
    return max(free)


def steps_per_epoch(images: int, batch: int) -> int:
    """Steps of an epoch: the last short batch is dropped, but for a data set of less than one."""
    return images // batch if images >= batch else min(images, 1)


def training_seconds(
    *, images: int, valid: int, batch: int, epochs: int, step: float, image: float
) -> float:
    """Seconds of a training that scores the validation images after every epoch.

    Args:
        images: Training images.
        valid: Validation images.
        batch: Images a step.
        epochs: Epochs, all of them.
        step: Seconds of a step.
        image: Seconds to score an image.
    """
    return epochs * (steps_per_epoch(images, batch) * step + valid * image)


def tuning_seconds(
    *, runs: int, steps: int, evaluations: int, step: float, image: float, counts: Mapping[str, int]
) -> float:
    """Seconds of the runs of one task, start and tuning.

    Args:
        runs: Runs: sizes times seeds times learning rates.
        steps: Steps of each.
        evaluations: Times the validation images are scored in each.
        step: Seconds of a step.
        image: Seconds to score an image.
        counts: Split -> images of the task.
    """
    return runs * (steps * step + (evaluations * counts["valid"] + counts["test"]) * image)


def shared_out(seconds: float, jobs: int, start: float) -> list[float]:
    """Work in equal jobs, each with its start."""
    return [start + seconds / jobs] * jobs


def suggest_shards(seconds: float, devices: int, images: int) -> int:
    """Number of shards with which a job of the attribution takes 20 to 40 minutes.

    At least one for each device, and a multiple of them where the jobs do not get too short: then
    all devices end together.

    Args:
        seconds: Seconds of the attribution of the slowest recipe on one device.
        devices: Devices at most.
        images: Images of the data set.
    """
    shards = max(devices, math.ceil(seconds / GOOD))
    even = math.ceil(shards / devices) * devices
    if seconds / even >= SHORT:
        shards = even
    return max(1, min(shards, images))


def judge_shards(configured: int, suggested: int, seconds: float, devices: int) -> str | None:
    """A warning when the configured number of shards is far off, else ``None``."""
    job, advice = seconds / configured, f"set prepare.shards to about {suggested}."
    if configured < devices and suggested > configured:
        return (
            f"{configured} shards keep {devices - configured} of {devices} devices idle; {advice}"
        )
    if job > LONG and configured * _FAR <= suggested:
        return f"jobs of the attribution are so long that much is lost with one; {advice}"
    if job < SHORT and configured >= _FAR * suggested:
        return f"jobs of the attribution are short beside their start and files; {advice}"
    return None
