"""How far a mask can be trusted, without truth."""

import numpy as np
import numpy.typing as npt

#: Change of the threshold whose effect on the mask is its stability.
CHANGE = 0.1

#: Weight of the parts that say more about the pair than about the mask.
_EXPONENT = 0.25


def stability(values: npt.NDArray[np.float32], threshold: float) -> float:
    """IoU of the masks at a threshold ten percent higher and ten percent lower, 0..1.

    Args:
        values: The map (H, W).
        threshold: Where it was cut; NaN or infinite for steps without one, which gives NaN.
    """
    if not np.isfinite(threshold):
        return float("nan")
    change = CHANGE * abs(threshold)
    lower = int((values > threshold - change).sum())
    return float((values > threshold + change).sum() / lower) if lower else 0.0


def quality(
    *, agreement: float, completeness: float, probability: float, stability: float, area: float
) -> float:
    """A number in 0..1; 0 for an empty mask.

    The stability of the mask times the fourth root of the product of the other parts: the agreement
    of the members (which PSSL uses alone), the completeness of the map, 1 / (1 + error), and the
    probability. The combination is our choice; ``snakemake compare`` reports its rank correlation
    with true overlap.

    Args:
        agreement: Mean cosine of members to the consensus, -1..1.
        completeness: Relative error of completeness, 0 is exact; NaN (unknown) is left out.
        probability: The committee's, 0..1.
        stability: Result of :func:`stability`; NaN (unknown) is left out.
        area: Share of foreground, 0..1.
    """
    if area <= 0:
        return 0.0
    others = float(np.clip(agreement, 0, 1) * np.clip(probability, 0, 1))
    if np.isfinite(completeness):
        others /= 1 + completeness
    return float((stability if np.isfinite(stability) else 1.0) * others**_EXPONENT)
