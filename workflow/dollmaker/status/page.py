"""The state of a run as text."""

import time
from pathlib import Path

from dollmaker.runtime.progress import duration
from dollmaker.status.run import SILENT, Job, Run, Stage, read_run, tail

#: Longest line of a log that is shown.
_WIDTH = 160


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
    """Stages, what runs, what failed.

    Args:
        run: The state.
        lines: Lines of the log of each failed job.
    """
    parts = [_head(run), "", _table(run.stages)]
    jobs = [job for stage in run.stages for job in stage.jobs]
    running = [job for job in jobs if job.state == "running"]
    if running:
        parts += ["", "running"]
        parts += [f"  {job.name}: {job.last[:_WIDTH]}" for job in running]
    for state, word in (
        ("failed", "failed"),
        ("stopped", "stopped, the next run goes on from there"),
        ("silent", f"without a word for {duration(SILENT)}: killed, or waiting?"),
    ):
        found = [job for job in jobs if job.state == state]
        if found:
            parts += ["", word]
            parts += [line for job in found for line in _failure(job, lines)]
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
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if k == 0 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _failure(job: Job, lines: int) -> list[str]:
    return [f"  {job.name} ({job.log})"] + [f"    {x[:_WIDTH]}" for x in tail(job.log, lines)]
