"""What the audit of borders and shapes takes: measured on a few images and on made-up features."""

import numpy as np

from dollmaker.pixels.geometry import Fit
from dollmaker.plan.clock import Rate, measure
from dollmaker.plan.material import SAMPLE, Material
from dollmaker.prepare.border import border_features, shape_features
from dollmaker.prepare.confounding import predictability

#: Most rows of the regression that is measured; above, its price grows with them.
_ROWS = 4000


def audit(material: Material, fit: Fit, images: int, budget: float) -> Rate:
    """Seconds of an image: its border once, and a row of the regression of each finding.

    Args:
        material: Images.
        fit: How sources lie in the square.
        images: Images of the data set.
        budget: Seconds to spend.
    """
    index = material.tiled(SAMPLE)
    pixels = material.pixels(index).numpy()
    sides = index["width"].to_numpy(), index["height"].to_numpy()
    border = border_features(pixels, *sides, fit)
    split = border.shape[1]
    width = split + shape_features(*sides).shape[1]
    borders, repetitions = measure(lambda: border_features(pixels, *sides, fit), budget / 2)
    rows = min(images, _ROWS)
    rng = np.random.default_rng(0)
    features = rng.standard_normal((rows, width), dtype=np.float32)
    labels = (np.arange(rows) % 2).astype(np.int8)
    patients = [str(row) for row in range(rows)]
    parts = [range(split), range(split, width), range(width)]
    regression, _ = measure(
        lambda: predictability(features, labels, patients, parts, 0), budget / 2
    )
    findings = len(material.findings)
    return Rate(
        what="audit",
        unit="image",
        seconds=borders / SAMPLE + findings * regression / rows,
        repetitions=repetitions,
        how=f"{SAMPLE} borders, a regression of {rows:,} made-up rows for {findings} findings",
    )
