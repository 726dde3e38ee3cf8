"""What jobs of past runs took: Snakemake's benchmark files."""

import csv
import re
from pathlib import Path


def read(folder: Path, rule: str, part: str) -> tuple[list[float], float]:
    """Seconds of the finished jobs of a rule, by the clock, and the most memory of one in MB.

    Files are called ``{rule}-{part}-{shard}.tsv``, without what a rule does not have. Of a resumed
    job the file tells the last attempt alone. What is no number is passed over: of a job that was
    over at once Snakemake does not know the memory.
    """
    mine = re.compile(re.escape(f"{rule}-{part}" if part else rule) + r"(-\d{4,})?")
    seconds, memory = [], [0.0]
    for file in sorted(folder.glob(f"{rule}*.tsv")):
        if mine.fullmatch(file.stem):
            text = file.read_text(encoding="utf-8", errors="replace")
            for row in csv.DictReader(text.splitlines(), delimiter="\t"):
                seconds += _number(row.get("s"))
                memory += _number(row.get("max_rss"))
    return seconds, max(memory)


def _number(text: str | None) -> list[float]:
    try:
        return [value] if 0 < (value := float(text or "")) < float("inf") else []
    except ValueError:
        return []
