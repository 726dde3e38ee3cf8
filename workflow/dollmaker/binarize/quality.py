"""How far a mask can be trusted, without truth."""

import numpy as np


def quality(*, agreement: float, completeness: float, probability: float, area: float) -> float:
    """A number in 0..1; 0 for an empty mask.

    The geometric mean of its parts, so that one bad part is not outweighed by the others: how far
    the members agree (PSSL uses this cosine alone), how exactly the map adds up to the logit
    (1 / (1 + error)), and how sure the committee is. The combination is our choice.

    Args:
        agreement: Mean cosine of members to the consensus, -1..1.
        completeness: Relative error of completeness, 0 is exact; NaN (unknown) is left out.
        probability: The committee's, 0..1.
        area: Share of foreground, 0..1.
    """
    if area <= 0:
        return 0.0
    parts = [np.clip(agreement, 0, 1), np.clip(probability, 0, 1)]
    if np.isfinite(completeness):
        parts.append(1 / (1 + completeness))
    return float(np.prod(parts) ** (1 / len(parts)))
