"""The command status: what the files of a run say about it.

Every job has a log and, once it has succeeded, a benchmark of the same name; a log without a newer
benchmark belongs to a job that runs or has failed. plan.json names the jobs that Snakemake set out
to run when it started last. Nothing is locked: the run may be on another machine.
"""

import csv
import logging
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dollmaker.runtime.errors import DataError
from dollmaker.runtime.progress import duration
from dollmaker.store import tables
from dollmaker.store.files import read_json, write_json

#: Rules in the order in which the data flow.
RULES = (
    *("generate_phantoms", "convert_source", "list_images", "decode_images", "build_index"),
    *("audit_images", "fetch_weights", "train_member", "explain_images", "explain_sample"),
    *("choose_thresholds", "make_masks"),
    *("check_recipe", "collect_labels", "pretrain_segmenter", "explain_segmenter"),
    *("adapt_segmenter", "evaluate", "build_release", "verify_release", "compare_recipes"),
    *("pretrain_variant", "adapt_variant", "gather_study", "write_report"),
)

#: The jobs of the last start.
_PLAN = "plan.json"

#: What a job says that has failed; the last words of one that was told to stop.
_FAILED = re.compile(r"^dollmaker: error: |^Traceback \(|^\w*Error: ", re.MULTILINE)
_STOPPED = "dollmaker: stopped by SIGTERM"

#: Seconds without a word after which a running job is suspected to be dead.
SILENT = 900.0

#: Seconds by which the clock of a file server may be off.
_SLACK = 2.0

#: Finished jobs that the rate is made of.
_RECENT = 20

#: Bytes at the end of a log that are read, and lines in which a job may have said why it failed.
_END, _LAST_LINES = 8192, 50

#: What a job says at last, if it can.
_SAID = re.compile(r"(dollmaker|[\w.]*Error): (.+)")

#: Longest line of a log that is shown.
_WIDTH = 160

State = Literal["done", "running", "failed", "stopped", "silent"]


def write_plan(folder: Path, logs: Iterable[str]) -> None:
    """Write down in the results folder which jobs, by their logs, a start is going to run."""
    write_json(folder / _PLAN, sorted({Path(log).stem for log in logs if log.endswith(".log")}))


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job."""

    name: str  #: Rule and wildcards, as its log is called.
    rule: str  #: The rule.
    state: State  #: ``silent`` has not failed, but not said anything for a long time either.
    changed: float  #: When its log or, if it is done, its benchmark was written, seconds.
    log: Path  #: Its log.
    last: str  #: Last line of the log.


@dataclass(frozen=True, kw_only=True)
class Stage:
    """All jobs of a rule."""

    rule: str  #: The rule.
    jobs: list[Job]  #: Those that were started.
    total: int  #: How many there will be, as far as the files tell.

    def count(self, *states: State) -> int:
        """Jobs in one of some states."""
        return sum(job.state in states for job in self.jobs)

    @property
    def per_hour(self) -> float | None:
        """Jobs an hour, of the last finished ones; ``None`` if unknown."""
        times = sorted(job.changed for job in self.jobs if job.state == "done")[-_RECENT:]
        if len(times) < 2 or times[-1] == times[0]:
            return None
        return 3600 * (len(times) - 1) / (times[-1] - times[0])

    @property
    def seconds_left(self) -> float | None:
        """Until all are done at this rate; ``None`` if unknown."""
        rate = self.per_hour
        return 3600 * (self.total - self.count("done")) / rate if rate else None


@dataclass(frozen=True, kw_only=True)
class Run:
    """The state of a run."""

    folder: Path  #: The results folder.
    images: int | None  #: Images of the source; ``None`` before they are listed.
    shards: int | None  #: Shards; ``None`` before the images are listed.
    quarantined: int | None  #: Images left out; ``None`` before the index is made.
    damaged: list[Path] = field(default_factory=list)  #: Files that were moved out of the way.
    stages: list[Stage]  #: Rules with at least one job, started or planned.
    finished: bool  #: The report is written and nothing is under way.


def read_run(folder: Path, now: float) -> Run:
    """Read the state of a run from ``results/{dataset}``, ``now`` seconds after 1970.

    Raises:
        DataError: If the folder is none of a run.
    """
    if not (folder / "logs").is_dir():
        raise DataError(
            f"{folder} is no results folder of a run (it has no logs); give results/{{dataset}}."
        )
    planned, since = _planned(folder)
    jobs = sorted(_jobs(folder, now), key=lambda job: job.name)
    # What was done before the start and is planned again waits for its turn.
    jobs = [job for job in jobs if job.changed >= since - _SLACK or job.name not in planned]
    waiting = planned - {job.name for job in jobs}
    images, shards = _listing(folder)
    stages = []
    for rule in RULES:
        mine = [job for job in jobs if job.rule == rule]
        total = len(mine) + sum(name.split("-")[0] == rule for name in waiting)
        if total:
            stages.append(Stage(rule=rule, jobs=mine, total=total))
    quarantine = folder / "quarantine.csv"
    done = any(s.rule == "write_report" and s.count("done") for s in stages)
    return Run(
        folder=folder,
        images=images,
        shards=shards,
        quarantined=_rows(quarantine) if quarantine.is_file() else None,
        damaged=sorted(folder.glob("*.damaged")) + sorted(folder.glob("*/**/*.damaged")),
        stages=stages,
        finished=done and not waiting and all(job.state == "done" for job in jobs),
    )


def _planned(folder: Path) -> tuple[set[str], float]:
    plan = folder / _PLAN
    if not plan.is_file():
        return set(), 0.0
    return set(read_json(plan)), plan.stat().st_mtime


def _jobs(folder: Path, now: float) -> Iterator[Job]:
    for log in (folder / "logs").glob("*.log"):
        try:
            written = log.stat().st_mtime
            text = _end(log)
        except OSError:  # Snakemake has just removed it
            continue
        benchmark = folder / "benchmarks" / f"{log.stem}.tsv"
        measured = benchmark.stat().st_mtime if benchmark.exists() else float("-inf")
        state: State = "running"
        if measured >= written - _SLACK:
            state = "done"
        elif _STOPPED in text:
            state = "stopped"
        elif _FAILED.search(text):
            state = "failed"
        elif now - written > SILENT:
            state = "silent"
        lines = [line for line in text.splitlines() if line.strip()]
        yield Job(
            name=log.stem,
            rule=log.stem.split("-")[0],
            state=state,
            changed=measured if state == "done" else written,
            log=log,
            last=lines[-1] if lines else "",
        )


def _end(log: Path) -> str:
    """The end of a log, without what a terminal would obey."""
    with log.open("rb") as handle:
        handle.seek(max(0, log.stat().st_size - _END))
        text = handle.read(_END).decode(errors="replace")
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


def tail(log: Path, lines: int) -> list[str]:
    """The last lines of a log that are not blank."""
    try:
        text = _end(log)
    except OSError:
        return []
    return [line.rstrip() for line in text.splitlines() if line.strip()][-lines:]


def _listing(folder: Path) -> tuple[int | None, int | None]:
    plan = folder / "prepare/listing.parquet"
    if not plan.is_file():
        return None, None
    return len(tables.read(plan)), int(tables.read_header(plan)["config"]["shards"])


def _rows(table: Path) -> int:
    with table.open(encoding="utf-8", newline="") as handle:
        return max(0, sum(1 for _ in csv.reader(handle)) - 1)


def show_status(
    results: Path, /, watch: bool = False, every: float = 5.0, tail: int = 5
) -> str | None:
    """Tell how far a run is, what runs and what failed.

    Args:
        results: Folder of a run, e.g. results/phantoms.
        watch: Show it anew every few seconds, until it is finished.
        every: Seconds between two looks.
        tail: Lines of the log of a failed job.
    """
    run = read_run(results, time.time())
    while watch:
        print(f"\x1b[2J\x1b[H{render(run, tail)}", flush=True)
        if run.finished:
            return None
        time.sleep(max(0.1, every))
        run = read_run(results, time.time())
    return render(run, tail)


def render(run: Run, lines: int) -> str:
    """Stages, what runs, and what failed with so many lines of its log."""
    parts = [_head(run), "", _table(run.stages)]
    jobs = [job for stage in run.stages for job in stage.jobs]
    if running := [job for job in jobs if job.state == "running"]:
        parts += ["", "running", *(f"  {job.name}: {job.last[:_WIDTH]}" for job in running)]
    for state, word in (
        ("failed", "failed"),
        ("stopped", "stopped, the next run goes on from there"),
        ("silent", f"without a word for {duration(SILENT)}: killed, or waiting?"),
    ):
        if found := [job for job in jobs if job.state == state]:
            parts += ["", word]
            for job in found:
                said = (f"    {line[:_WIDTH]}" for line in tail(job.log, lines))
                parts += [f"  {job.name} ({job.log})", *said]
    if run.damaged:
        parts += ["", "damaged and moved, made anew by the next run"]
        parts += [f"  {path}" for path in run.damaged]
    parts += ["", "finished: see report.html there" if run.finished else "not finished"]
    return "\n".join(parts)


def _head(run: Run) -> str:
    if run.images is None:
        return f"{run.folder}: images are not listed yet"
    text = f"{run.folder}: {run.images} images in {run.shards} shards"
    if run.quarantined:
        return f"{text}, {run.quarantined} in quarantine (quarantine.csv)"
    return text if run.quarantined is None else f"{text}, none in quarantine"


def _table(stages: list[Stage]) -> str:
    rows = [("stage", "done", "of", "running", "failed", "an hour", "left")]
    for stage in stages:
        done = stage.count("done")
        open_ = done < stage.total
        rate = f"{stage.per_hour:.1f}" if open_ and stage.per_hour is not None else ""
        left = duration(stage.seconds_left) if open_ and stage.seconds_left is not None else ""
        failed = stage.count("failed", "stopped", "silent")
        rows.append(
            (stage.rule, str(done), str(stage.total), str(stage.count("running") or ""),
             str(failed or ""), rate, left)
        )  # fmt: skip
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    line = "  ".join([f"{{:<{first}}}", *(f"{{:>{width}}}" for width in others)])
    return "\n".join(line.format(*row).rstrip() for row in rows)


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
    for log in logs:
        for line in reversed(tail(Path(log), _LAST_LINES)):
            if said := _SAID.match(line):
                return {said[1]: said[2]}
    return {}
