"""The end of a process: SIGTERM (a time limit, a preempted node, a user), or that of its parent."""

import ctypes
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

#: Exit status of a stopped command, as shells give it: 128 + 15.
STOPPED = 143

_PR_SET_PDEATHSIG = 1


class Terminated(BaseException):
    """SIGTERM came. Not an Exception: nothing on the way may take it for a mistake of its own."""


def _raise(signum: int, frame: FrameType | None) -> None:
    raise Terminated


@contextmanager
def on_sigterm(handler: Callable[[int, FrameType | None], Any] = _raise) -> Iterator[None]:
    """Handle SIGTERM within the block, by default with :class:`Terminated`.

    Does nothing outside of the main thread, where Python allows no handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def die_with_parent() -> None:
    """End this process when the one that started it is killed (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
