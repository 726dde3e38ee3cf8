"""How far a long job is: a bar on a terminal, else a plain line on stderr every few seconds."""

import resource
import sys
import time
from pathlib import Path


class Progress:
    """Counts work, of which an earlier run had ``done`` some; a line ``every`` seconds."""

    def __init__(
        self, label: str, total: int, done: int = 0, every: float = 5.0, unit: str = "images"
    ) -> None:
        self._label, self._total, self._every, self._unit = label, total, every, unit
        self._done = self._first = done
        self._start = self._last = time.monotonic()
        self._maps = self._nodes = 0
        self._terminal = sys.stderr.isatty()

    def add(self, images: int, maps: int = 0, nodes: int = 0) -> None:
        """Count images, and where maps are made these and the nodes spent on them."""
        self._done += images
        self._maps += maps
        self._nodes += nodes
        now = time.monotonic()
        last = self._done >= self._total
        if now - self._last >= (0.2 if self._terminal else self._every) or last:
            self._last = now
            print(self._line(now), end="\n" if last or not self._terminal else "", file=sys.stderr)
            sys.stderr.flush()

    def _line(self, now: float) -> str:
        seconds = max(now - self._start, 1e-9)
        left = seconds / max(self._done - self._first, 1) * (self._total - self._done)
        rates = f"{self._maps / seconds:.1f} maps/s, " if self._maps else ""
        rates += f"{self._nodes / self._maps:.1f} nodes/map, " if self._maps and self._nodes else ""
        text = (
            f"{self._label}: {self._done}/{self._total} {self._unit}, "
            f"{rates}{memory_mb():.0f} MB, {duration(left)} left"
        )
        if not self._terminal:
            return text
        width = 24
        filled = width * self._done // max(self._total, 1)
        return f"\r[{'#' * filled}{'.' * (width - filled)}] {text}\x1b[K"


def memory_mb() -> float:
    """Resident memory of this process in MB."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return pages * resource.getpagesize() / 2**20


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
