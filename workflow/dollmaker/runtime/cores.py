"""The cores that there are to use, and work for each of them."""

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

from dollmaker.runtime.stopping import die_with_parent

#: As :func:`map`, in processes where that is worth their start.
Spread = Callable[..., Iterator[Any]]

#: Cores that are planned for where their number is not known: on a cluster, whose profile says
#: the threads of each rule.
_PLANNED = 2


def planned(given: int | None) -> int:
    """Cores to plan for; those given are ``None`` or endless where others share them out."""
    return given if given and given < sys.maxsize else _PLANNED


def share(jobs: int, cores: int) -> int:
    """Threads of each of so many jobs that run side by side on so many cores."""
    return max(1, cores // max(1, jobs))


def cores() -> int:
    """Cores that this process may use: on a shared node those of its job, not all there are."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def mapping(workers: int) -> Iterator[Spread]:
    """A :func:`map` that works in processes if there are more than two pieces for each of them."""
    # Processes start with the first work that is given to them.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, die_with_parent) as pool:

        def spread(
            function: Callable[..., Any], pieces: Sequence[Any], *more: Any
        ) -> Iterator[Any]:
            many = workers > 1 and len(pieces) > 2 * workers
            return (pool.map if many else map)(function, pieces, *more)

        yield spread
