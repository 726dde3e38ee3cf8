"""Watching a training, and stopping it at one step."""

import os
import signal
from typing import Any

import pytest


def stop_and_watch(
    monkeypatch: pytest.MonkeyPatch, kind: Any, at: tuple[int, int]
) -> list[tuple[int, int]]:
    """Send SIGTERM in one training step; the list fills with (epoch, batch) of all steps."""
    step, seen = kind.training_step, []

    def watched(self: Any, batch: Any, number: int) -> Any:
        seen.append((self.current_epoch, number))
        if seen.count(at) == 1 and seen[-1] == at:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch, number)

    monkeypatch.setattr(kind, "training_step", watched)
    return seen
