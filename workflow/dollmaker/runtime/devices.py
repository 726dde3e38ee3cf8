"""Where networks run.

Jobs on one machine take different GPUs: each holds a lock on those it uses, as long as it lives.
"""

import fcntl
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import IO

import torch

from dollmaker.runtime import parallel
from dollmaker.runtime.errors import ModelError

#: Jobs that share a GPU at most, before no more locks are taken.
_SLOTS = 64
#: The GPUs that a job has taken, for the processes that train with it.
_TAKEN = "DOLLMAKER_GPUS"
#: Locks of this process.
_held: list[IO[bytes]] = []


def uses_gpu(wanted: str) -> bool:
    """Whether a configured ``device`` (``auto``, ``cpu`` or ``cuda``) means a GPU here; takes none.

    Raises:
        ModelError: If a GPU is demanded and there is none.
    """
    gpu = wanted != "cpu" and torch.cuda.is_available()
    if wanted == "cuda" and not gpu:
        raise ModelError("device is cuda but no GPU is usable here; set device to auto or cpu.")
    return gpu


def choose(wanted: str) -> torch.device:
    """The device for a configured ``device``, as :func:`choose_several` chooses it."""
    return choose_several(wanted, 1)[0]


def choose_several(wanted: str, count: int) -> list[torch.device]:
    """Devices of one job, 0 for all GPUs that can be seen, or one CPU, on which each is a process.

    Raises:
        ModelError: If a GPU is demanded and there is none, or there are not so many.
    """
    if not uses_gpu(wanted):
        return [torch.device("cpu")] * max(count, 1)
    names = [
        str(torch.cuda.get_device_properties(i).uuid) for i in range(torch.cuda.device_count())
    ]
    count = count or len(names)
    if count > len(names):
        raise ModelError(
            f"the job shall use {count} GPUs and sees {len(names)}; ask the scheduler for as many "
            "(`gpu` of the rule), or give fewer."
        )
    taken = [int(number) for number in os.environ.get(_TAKEN, "").split(",") if number]
    if len(taken) != count:
        folder = Path(tempfile.gettempdir()) / f"dollmaker-gpus-{os.getuid()}"
        taken = take(names, count, folder)
        os.environ[_TAKEN] = ",".join(map(str, taken))
    torch.cuda.set_device(taken[parallel.rank()])
    return [torch.device("cuda", number) for number in taken]


def take(names: Sequence[str], count: int, folder: Path) -> list[int]:
    """Choose the GPUs that the fewest other jobs have taken, and lock them.

    ``names`` are unique. Locks lie in ``folder`` on this machine; only its owner's are trusted.

    Returns:
        Their numbers, ascending. Where locks are not possible, the first ones.
    """
    found: list[int] = []
    with suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        trusted = not folder.is_symlink() and folder.stat().st_uid == os.getuid()
        for slot, (number, name) in product(range(_SLOTS if trusted else 0), enumerate(names)):
            if len(found) < count and number not in found and _lock(folder / f"{name}.{slot}"):
                found.append(number)
    return sorted(found) if len(found) == count else list(range(count))


def _lock(path: Path) -> bool:
    handle = path.open("ab")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        return False
    _held.append(handle)
    return True


def set_precision(precision: str) -> None:
    """Allow the GPU TensorFloat-32 for ``tf32``, and forbid it for anything else."""
    allowed = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed
