"""The command: what a run costs, as text."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dollmaker.config.whole import Config
from dollmaker.runtime.errors import ConfigError
from dollmaker.store.files import write_json


def tell_costs(
    config: Config,
    data_root: str | None = None,
    weights_root: str | None = None,
    devices: Sequence[int] | None = None,
    images: int = 32,
    json: Path | None = None,
) -> str:
    """Tell what a run costs, from a trial and past runs.

    Args:
        config: The resolved configuration.
        data_root: Folder of the source, if not the configuration's.
        weights_root: Folder of the weights files, if not the configuration's.
        devices: Tell the costs of so many jobs at a time, too.
        images: Images to try the stages on; 0: none.
        json: Write all numbers to this file.

    Raises:
        ConfigError: If a number is out of range, or the file cannot be written.
    """
    if any(number < 1 for number in devices or ()):
        raise ConfigError("--devices has a number under 1; give numbers of devices, e.g. 8.")
    if images and images < 8:
        raise ConfigError(f"--images is {images}; give 8 or more, or 0 to try nothing.")
    roots = {"data_root": data_root, "weights_root": weights_root}
    config = config.replace(**{key: root for key, root in roots.items() if root is not None})
    # A job spends its first seconds on imports: those of this process tell how many.
    import dollmaker.binarize.stage
    import dollmaker.release.labels  # noqa: F401

    light = time.process_time()
    from dollmaker.estimate.costs import make_estimate

    heavy = time.process_time()
    estimate = make_estimate(config, devices or (), images, light, heavy)
    if json:
        try:
            write_json(json, estimate)
        except OSError as error:
            raise ConfigError(
                f"cannot write {json} ({error.strerror}); give --json another file."
            ) from None
    return _render(estimate)


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
        name, work = f"{row['rule']} {row['part']}", f"{row['units']:,.0f} {row['unit']}"
        each = row["seconds"] or [math.nan] * 3
        low, middle, high = (_time(row["number"] * seconds) for seconds in each)
        times = _time(each[1]), middle, f"{low} .. {high}"
        memory = f"{row['memory_mb']:,.0f} MB" if row["memory_mb"] else "?"
        lines.append(line.format(name, row["number"], work, *times, memory, row["by"]))
    sums = {f"rule by rule, {n} at a time": ends for n, ends in estimate["seconds"].items()}
    sums["jobs that ask for a GPU, one at a time"] = estimate["gpu_seconds"]
    for what, ends in sums.items():
        low, middle, high = map(_time, ends)
        lines.append(f"{what}: {middle} ({low} .. {high}), without what is unknown")
    sizes = {name: _short(size / 1e6) for name, size in estimate["disk_bytes"].items()}
    disk = ", ".join(f"{name} {size} MB" for name, size in sizes.items())
    lines.append(f"disk: {disk}; networks come on top")
    if (shards := estimate["shards"]) > 1:
        lines.append(f"with prepare.shards {shards} a job of explain_images takes half an hour")
    lines += [f"{key} could not be tried: {reason}" for key, reason in estimate["unknown"].items()]
    return "\n".join(lines)


def _time(seconds: float) -> str:
    if math.isnan(seconds):
        return "?"
    for unit, length in (("s", 1), ("min", 60)):
        if seconds < 90 * length:
            return f"{_short(seconds / length)} {unit}"
    return f"{_short(seconds / 3600)} h"


def _short(value: float) -> str:
    return f"{float(f'{value:.2g}'):,g}"
