"""What Snakemake shows of a job that failed: what the job said."""

import logging
import re
from collections.abc import Iterable
from pathlib import Path

from dollmaker.status.run import tail

#: What a job says at last, if it can.
_SAID = re.compile(r"(dollmaker|[\w.]*Error): (.+)")

#: Lines at the end of a log that are looked at.
_LINES = 50


def mend_error(record: logging.LogRecord) -> bool:
    """A filter of Snakemake's logger that makes its errors readable, and lets every record pass.

    Snakemake shows the command of a job that failed, and not what the job said. Here the job's last
    words follow what Snakemake knows of it. Tables among the logs (the quarantine) are left out:
    ``--show-failed-logs`` would print them.
    """
    facts = vars(record)
    if record.levelno >= logging.ERROR and "aux" in facts:  # a job has failed
        facts["log"] = [log for log in facts.get("log", ()) if log.endswith(".log")]
        facts["aux"] = {**facts["aux"], **_last_words(facts["log"])}
    return True


def _last_words(logs: Iterable[str]) -> dict[str, str]:
    """Who spoke at the end of the first log with an error, and what it said."""
    for log in logs:
        for line in reversed(tail(Path(log), _LINES)):
            if said := _SAID.match(line):
                return {said[1]: said[2]}
    return {}
