"""How many cores there are to use."""

import os


def cores() -> int:
    """Cores that this process may use: on a shared node those of its job, not all there are."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
