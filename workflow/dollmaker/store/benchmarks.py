"""What Snakemake has measured of finished jobs, in ``benchmarks/{rule}-{part}-{shard}.tsv``."""

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: Rules whose jobs have a shard, which their names end with.
_SHARDED = ("decode_images", "explain_images", "make_masks")


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A finished job; of a resumed one the last attempt alone."""

    rule: str  #: Its rule.
    part: str  #: Its member, recipe or run; empty if the rule has none.
    seconds: list[float]  #: By the clock, of each time that it was measured.
    memory_mb: list[float]  #: The most memory, likewise; none of a job that was over at once.


def read_finished(folder: Path) -> Iterator[Finished]:
    """The finished jobs of a run, by name; what is no number in their tables is passed over."""
    for file in sorted(folder.rglob("*.tsv")):
        rule, _, part = file.stem.partition("-")
        text = file.read_text(encoding="utf-8", errors="replace")
        rows = list(csv.DictReader(text.splitlines(), delimiter="\t"))
        yield Finished(
            rule=rule,
            part=part.rpartition("-")[0] if rule in _SHARDED else part,
            seconds=[value for row in rows for value in _number(row.get("s"))],
            memory_mb=[value for row in rows for value in _number(row.get("max_rss"))],
        )


def _number(text: str | None) -> list[float]:
    try:
        return [value] if 0 < (value := float(text or "")) < math.inf else []
    except ValueError:
        return []
