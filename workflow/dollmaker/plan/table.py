"""The plan as text. Numbers have two digits: more would be a promise."""

import math
from collections.abc import Sequence
from typing import Any


def render(plan: dict[str, Any]) -> str:
    """Everything for the terminal, from what :func:`dollmaker.plan.stage.make_plan` returns."""
    parts = [_head(plan), _stages(plan), _disk(plan["disk"]), _rates(plan), _foot(plan)]
    return "\n\n".join(parts) + "\n"


def _head(plan: dict[str, Any]) -> str:
    counts, device = plan["counts"], plan["device"]
    images = sum(counts["images"].values())
    splits = ", ".join(f"{split} {number:,}" for split, number in counts["images"].items())
    maps = ", ".join(f"{name} {number:,}" for name, number in counts["maps"].items() if number)
    least = "at least " if counts["most"] > counts["pairs"] else ""
    threads = f", {_plural(device['threads'], 'thread')}" if device["threads"] else ""
    lines = [
        f"Plan of {plan['dataset']}: {images:,} images ({splits}) of "
        f"{counts['patients']:,} patients",
        f"explain {counts['explained']:,} images, {least}{counts['pairs']:,} pairs: {maps}",
        *(
            f"task {name}: " + ", ".join(f"{split} {number:,}" for split, number in task.items())
            for name, task in counts["tasks"].items()
        ),
        f"device: {device['type']} ({device['name']}{threads})",
    ]
    return "\n".join(lines)


def _stages(plan: dict[str, Any]) -> str:
    numbers = list(plan["seconds"])
    head = ["stage", "work", "jobs", "overall"]
    head += ["1 device" if n == "1" else f"{n} devices" for n in numbers]
    rows = [
        [
            stage["stage"],
            f"{stage['units']:,} {stage['unit']}",
            f"{stage['jobs']:,}",
            rate(stage["seconds"]["1"] / max(stage["units"], 1), stage["unit"].rstrip("s")),
            *(duration(stage["seconds"][n]) for n in numbers),
        ]
        for stage in plan["stages"]
    ]
    rows.append(["total", "", "", "", *(duration(plan["seconds"][n]) for n in numbers)])
    return _grid([head, *rows], left=2)


def _disk(disk: dict[str, Any]) -> str:
    rows = [["disk", "size", ""]]
    for one in disk["artifacts"]:
        if not one["bytes"]:
            continue
        estimate, most = size(one["bytes"]), size(one["most"])
        bound = f"(uncompressed {most})" if most != estimate else ""
        rows.append([one["name"], estimate, bound])
    rows.append(["total", size(disk["bytes"]), ""])
    rows.append(["state of running jobs, goes away", size(disk["working_bytes"]), ""])
    return _grid(rows, left=1)


def _rates(plan: dict[str, Any]) -> str:
    calibration = plan["calibration"]
    rows = [["measured here", "", "with"]]
    for one in calibration["rates"]:
        times = f"; {_plural(one['repetitions'], 'time')}"
        rows.append([one["what"], rate(one["seconds"], one["unit"]), one["how"] + times])
    start = calibration["start"]
    rows.append(["start of a job", duration(start["heavy"]), "imports, with networks"])
    rows.append(["", duration(start["light"]), "without"])
    return _grid(rows, left=1)


def _foot(plan: dict[str, Any]) -> str:
    shards = plan["shards"]
    lines = [
        f"prepare.shards: {shards['configured']:,} configured, a job of the attribution takes "
        f"{duration(60 * shards['minutes_configured'])}; suggested for "
        f"{_plural(shards['devices'], 'device')}: {shards['suggested']:,} "
        f"({duration(60 * shards['minutes_suggested'])} a job)",
        *plan["notes"],
    ]
    return "\n".join(lines)


def rounded(value: float) -> str:
    """Two digits that count, with thousands separated: 0.0123 -> 0.012, 1234 -> 1,200."""
    if value <= 0 or not math.isfinite(value):
        return "0"
    digits = 1 - math.floor(math.log10(value))
    value = round(value, digits)
    digits = 1 - math.floor(math.log10(value))  # 9.97 became 10
    return f"{value:,.{max(0, digits)}f}"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours."""
    if seconds < 90:
        return f"{rounded(seconds)} s"
    if seconds < 90 * 60:
        return f"{rounded(seconds / 60)} min"
    return f"{rounded(seconds / 3600)} h"


def size(number: float) -> str:
    """Bytes in decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 999.5:
            return f"{rounded(number)} {unit}"
        number /= 1000
    return f"{rounded(number)} TB"


def rate(seconds: float, unit: str) -> str:
    """Units a second, or seconds a unit if that is a number over one."""
    if seconds <= 0:
        return "-"
    return f"{rounded(1 / seconds)} {unit}s/s" if seconds < 1 else f"{rounded(seconds)} s/{unit}"


def _plural(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _grid(rows: Sequence[Sequence[str]], left: int) -> str:
    """Columns side by side; the first ``left`` and the last of three are flush left."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if k < left or (len(row) == 3 and k == 2) else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
