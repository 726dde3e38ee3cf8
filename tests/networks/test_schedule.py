"""The learning rate over a run."""

import pytest

from dollmaker.networks.schedule import factor


@pytest.mark.parametrize("steps", [1, 2, 4, 5, 100])
def test_rises_then_falls_within_the_peak(steps: int) -> None:
    values = [factor(step, steps) for step in range(steps + 1)]
    warm = max(1, round(steps / 5))
    assert values[0] == pytest.approx(1 / 25)
    assert values[: warm + 1] == sorted(values[: warm + 1])
    assert values[warm:] == sorted(values[warm:], reverse=True)
    assert all(0 <= value <= 1 for value in values)
    if steps > 1:
        assert values[warm] == pytest.approx(1)
        assert values[-1] == pytest.approx(0)
