"""Some of many, to look at or to show."""

import numpy as np


def evenly(total: int, most: int) -> list[int]:
    """Places of at most so many of ``total`` things, evenly spread from the first to the last."""
    return [int(place) for place in np.linspace(0, total - 1, min(most, total)).round()]
