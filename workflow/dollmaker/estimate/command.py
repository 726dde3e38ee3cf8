"""``dollmaker estimate``."""

import argparse
import sys
import time
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """Declare the options."""
    parser.add_argument("--config", required=True, help="configuration file or inline JSON")
    parser.add_argument("--data-root", help="folder of the source, if not the configuration's")
    parser.add_argument(
        "--devices",
        type=int,
        nargs="+",
        default=[],
        metavar="N",
        help="so many jobs at a time, too",
    )
    parser.add_argument(
        "--images", type=int, default=32, help="images to try the stages on (default 32; 0: none)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers here")


def run(name: str, arguments: argparse.Namespace) -> None:
    """Print what a run costs."""
    from dollmaker.config import settings
    from dollmaker.runtime.errors import ConfigError
    from dollmaker.store.files import write_json

    if any(number < 1 for number in arguments.devices):
        raise ConfigError("--devices has a number under 1; give numbers of devices, e.g. 8.")
    if arguments.images and arguments.images < 8:
        raise ConfigError(f"--images is {arguments.images}; give 8 or more, or 0 to try nothing.")
    given = {} if arguments.data_root is None else {"data_root": arguments.data_root}
    config = settings.resolve({**settings.read(arguments.config), **given})
    # A job spends its first seconds on imports: those of this process tell how many.
    import dollmaker.binarize.stage
    import dollmaker.release.labels  # noqa: F401

    light = time.process_time()
    from dollmaker.estimate.stage import make_estimate

    heavy = time.process_time()
    estimate = make_estimate(config, arguments.devices, arguments.images, light, heavy)
    sys.stdout.write(_render(estimate))
    if arguments.json:
        try:
            write_json(arguments.json, estimate)
        except OSError as error:
            raise ConfigError(
                f"cannot write {arguments.json} ({error.strerror}); give --json another file."
            ) from None


def _render(estimate: dict[str, Any]) -> str:
    """The estimate as text. Numbers have two digits: more would be a promise."""
    counts, line = estimate["counts"], "{:<44} {:>5} {:>18} {:>8} {:>8} {:>18} {:>9}  {}"
    splits = ", ".join(f"{split} {number:,}" for split, number in counts["images"].items())
    most = "" if counts["most"] == counts["pairs"] else f" (at most {counts['most']:,})"
    pairs = f"{counts['pairs']:,} pairs to explain{most}"
    head = ("rule", "jobs", "work", "a job", "all", "all, from .. to", "memory", "by")
    lines = [
        f"{estimate['dataset']} on {estimate['device']}: images {splits}; {pairs}",
        line.format(*head),
    ]
    for row in estimate["rules"]:
        each, times = ["?", "?", "?"], ["?", "?", "?"]
        if row["seconds"]:
            each = [_time(seconds) for seconds in row["seconds"]]
            times = [_time(row["number"] * seconds) for seconds in row["seconds"]]
        memory = f"{row['memory_mb']:,.0f} MB" if row["memory_mb"] else "?"
        name, work = f"{row['rule']} {row['part']}", f"{row['units']:,.0f} {row['unit']}"
        cells = name, row["number"], work, each[1], times[1], f"{times[0]} .. {times[2]}", memory
        lines.append(line.format(*cells, row["by"]))
    sums = {f"rule by rule, {n} at a time": ends for n, ends in estimate["seconds"].items()}
    for what, ends in {
        **sums,
        "jobs that ask for a GPU, one at a time": estimate["gpu_seconds"],
    }.items():
        low, middle, high = map(_time, ends)
        lines.append(f"{what}: {middle} ({low} .. {high}), without what is unknown")
    sizes = {name: _short(size / 1e6) for name, size in estimate["disk_bytes"].items()}
    disk = ", ".join(f"{name} {size} MB" for name, size in sizes.items())
    lines.append(f"disk: {disk}; networks come on top")
    if shards := estimate["shards"]:
        lines.append(f"with prepare.shards {shards} a job of explain_images takes half an hour")
    lines += [f"{key} could not be tried: {reason}" for key, reason in estimate["unknown"].items()]
    return "\n".join(lines) + "\n"


def _time(seconds: float) -> str:
    for unit, length in (("s", 1), ("min", 60)):
        if seconds < 90 * length:
            return f"{_short(seconds / length)} {unit}"
    return f"{_short(seconds / 3600)} h"


def _short(value: float) -> str:
    return f"{float(f'{value:.2g}'):,g}"
