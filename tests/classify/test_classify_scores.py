"""Probabilities are what they say: weights are taken back, and a temperature is found."""

import numpy as np
import pytest
import torch

from dollmaker.classify.scores import fit_temperature
from dollmaker.classify.train import masked_bce
from dollmaker.networks.member import Calibration


def test_the_shift_takes_the_weight_of_positives_back() -> None:
    """A constant trained with weight w on positives: its probability is the true share again."""
    share, weight = 0.05, 10.0
    values = (torch.arange(1000) < 1000 * share).double()[:, None]
    logit = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logit], max_iter=100, tolerance_grad=1e-10)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = masked_bce(
            logit.expand(1000, 1), values, torch.ones_like(values), torch.tensor([weight]).double()
        )
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    trained = logit.detach()[None]
    assert torch.sigmoid(trained).item() == pytest.approx(0.3448, abs=1e-3)
    calibration = Calibration(shift=[float(np.log(weight))])
    assert calibration.probabilities(trained).item() == pytest.approx(share, abs=1e-4)


def test_nothing_to_calibrate_changes_no_bit() -> None:
    logits = torch.randn(5, 3)
    assert torch.equal(Calibration().probabilities(logits), torch.sigmoid(logits))


@pytest.mark.parametrize(("shift", "temperature"), [((float("nan"),), 1), ((), 0), ((), -2)])
def test_numbers_that_calibrate_nothing_are_refused(shift: tuple, temperature: float) -> None:
    with pytest.raises(ValueError, match=r"shift|temperature"):
        Calibration(shift=shift, temperature=temperature)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_that_made_the_labels_is_found(temperature: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (20_000, 2))
    positive = rng.random(logits.shape) < 1 / (1 + np.exp(-logits / temperature))
    counts = rng.random(logits.shape) < 0.8
    positive[~counts] = rng.random((~counts).sum()) < 0.5  # labels that do not count say nothing
    given = (1 / (1 + np.exp(-logits))).astype(np.float32)
    assert fit_temperature(given, positive, counts) == pytest.approx(temperature, rel=0.05)
    assert fit_temperature(given, positive, np.zeros_like(counts)) == 1.0
