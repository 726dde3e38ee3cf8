"""What Snakemake shows of a job that failed: what the job said, without its configuration."""

import logging
import re
from collections.abc import Iterable
from pathlib import Path

from dollmaker.status.run import tail

#: A JSON object as a shell gets it.
_JSON = re.compile(r"""'\{(?:[^']|'"'"')*\}'""")

#: What a job says at last, if it can.
_SAID = re.compile(r"(dollmaker|[\w.]*Error): (.+)")

#: Lines at the end of a log that are looked at.
_LINES = 50


def mend_error(record: logging.LogRecord) -> bool:
    """A filter of Snakemake's logger that makes its errors readable, and lets every record pass.

    Snakemake shows the whole command of a job that failed, with kilobytes of configuration, and
    not what the job said. Here the configuration is left out, and the job's last words follow
    what Snakemake knows of it. ``snakemake --printshellcmds`` shows commands in full. Tables
    among the logs (the quarantine) are left out, too: ``--show-failed-logs`` would print them.
    """
    facts = vars(record)
    if record.levelno >= logging.ERROR:
        for name in ("msg", "shellcmd"):
            if isinstance(facts.get(name), str):
                facts[name] = _JSON.sub("'{...}'", facts[name])
        if "aux" in facts:  # a job has failed; Snakemake ends with what is in here
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
