"""Jobs of one machine take different GPUs."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import pytest
import torch

from dollmaker.config import settings as config
from dollmaker.launch.preflight import preflight
from dollmaker.runtime import devices
from dollmaker.runtime.errors import ModelError

HOLD = """
import sys
from pathlib import Path
from dollmaker.runtime.devices import take
print(*take(sys.argv[2].split(","), int(sys.argv[3]), Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


def hold(folder: Path, names: str, count: int) -> tuple[subprocess.Popen[str], list[int]]:
    """A process that takes GPUs and holds them until its stdin is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), names, str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, [int(word) for word in process.stdout.readline().split()]


def test_jobs_take_free_gpus_then_share_them_evenly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[IO[bytes]] = []
    monkeypatch.setattr(devices, "_held", held)
    locks, names = tmp_path / "locks", ["a", "b", "c"]
    first, taken = hold(locks, ",".join(names), 2)
    assert taken == [0, 1]
    # A file that is opened twice is locked as by two processes.
    assert devices.take(names, 1, locks) == [2]
    assert devices.take(names, 3, locks) == [0, 1, 2], "all are taken: each is shared by two"
    first.communicate()
    assert devices.take(names, 1, locks) == [0], "a GPU whose job has ended is free again"
    for handle in held:
        handle.close()
    assert locks.stat().st_mode & 0o077 == 0


def test_locks_of_somebody_else_are_not_used(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "locks").symlink_to(tmp_path / "other")
    assert devices.take(["a", "b"], 1, tmp_path / "locks") == [0]
    assert not list((tmp_path / "other").iterdir())


def test_a_cpu_is_as_many_devices_as_processes() -> None:
    assert devices.choose_several("cpu", 2) == [torch.device("cpu")] * 2
    assert devices.choose_several("cpu", 0) == [torch.device("cpu")]
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="no GPU is usable"):
            devices.choose("cuda")


def test_a_look_before_the_run_takes_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.delenv("DOLLMAKER_GPUS", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    uuid = SimpleNamespace(uuid="x")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: uuid)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(devices, "take", lambda *_: [3])
    source = {"kind": "phantoms"}
    preflight(config.resolved({"dataset": "x", "source": source, "device": "cuda"}))
    # Jobs inherit the variables of the process that starts them: all would use this GPU.
    assert "DOLLMAKER_GPUS" not in os.environ and taken == []
