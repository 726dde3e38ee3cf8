"""Temperature scaling (Guo et al. 2017, On Calibration of Modern Neural Networks)."""

import numpy as np
import numpy.typing as npt

#: Temperatures that are looked at; beyond them a network says nothing that a number could mend.
_BOUNDS = (0.05, 20.0)

_SMALLEST = 1e-7


def fit_temperature(
    probabilities: npt.NDArray[np.float32],
    positive: npt.NDArray[np.bool_],
    counts: npt.NDArray[np.bool_],
) -> float:
    """The temperature under which validation labels are most likely.

    Args:
        probabilities: At temperature 1, (N, K).
        positive: Positive labels, (N, K).
        counts: Which labels count, (N, K).

    Returns:
        The number that logits are divided by; 1 where no label counts.
    """
    from scipy.optimize import minimize_scalar

    if not counts.any():
        return 1.0
    p = np.clip(probabilities[counts].astype(np.float64), _SMALLEST, 1 - _SMALLEST)
    logits, signs = np.log(p / (1 - p)), np.where(positive[counts], 1.0, -1.0)

    def loss(log_temperature: float) -> float:
        margins = signs * logits / np.exp(log_temperature)
        return float(np.logaddexp(0, -margins).mean())

    low, high = np.log(_BOUNDS)
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))
