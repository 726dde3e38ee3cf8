"""The command: what a run costs, from what there is to do, a trial, and past runs."""

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dollmaker.config.whole import Config
from dollmaker.launch import pipeline
from dollmaker.runtime.errors import ConfigError
from dollmaker.store.benchmarks import Finished, read_finished
from dollmaker.store.files import write_json
from dollmaker.store.findings import localized

if TYPE_CHECKING:
    from dollmaker.estimate.jobs import Counts, Jobs

#: What a job may take, as shares of its estimate by a trial, and of the ends of finished jobs.
_TRIED, _DONE = (0.5, 1, 2), (0.8, 1.25)

#: What a map with adaptive nodes may take, as shares of the most: about a fourth is usual.
_ADAPTIVE = (0.25, 0.5, 1)

#: What a job of the attribution should take: long beside its start, short to lose.
_GOOD = 1800

# Bytes, as measured in docs/lab/2026-11-21-benchmarks.md: a mask takes a sixteenth of its
# pixels in a shard, and its row; a pair of a release takes so many with its outline and JSON.
_MASK, _ROW, _PAIR = 16, 600, 6300


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
        DataError: If the source is not as described, or not there yet, or no stage can be tried.
        ModelError: If the device is not to be had.
    """
    if any(number < 1 for number in devices or ()):
        raise ConfigError("--devices has a number under 1; give numbers of devices, e.g. 8.")
    if images and images < 8:
        raise ConfigError(f"--images is {images}; give 8 or more, or 0 to try nothing.")
    roots = {"data_root": data_root, "weights_root": weights_root}
    config = config.replace(**{key: root for key, root in roots.items() if root is not None})
    # A job spends its first seconds on imports: those of this process tell how many, of jobs
    # without networks and of those with them.
    import dollmaker.binarize.stage
    import dollmaker.release.labels  # noqa: F401

    light = time.process_time()
    from dollmaker.estimate.jobs import count, list_jobs, read_source
    from dollmaker.estimate.trial import Trial, sample

    heavy = time.process_time()
    with tempfile.TemporaryDirectory(prefix="dollmaker-estimate-") as name:
        trial = Trial(config, Path(name))
        root, index, names = read_source(config, Path(name))
        wanted = localized(names, config.attribute.findings)
        counts = count(config, index, wanted, root)
        if images:
            trial.run(sample(index, wanted, images), names, root)
    finished = list(read_finished(Path("results") / config.dataset / "benchmarks"))
    rules = [
        _row(config, jobs, finished, trial.seconds.get(jobs.trial), heavy if jobs.gpu else light)
        for jobs in list_jobs(config, counts)
    ]
    explaining = [row for row in rules if row["rule"] == "explain_images" and row["seconds"]]
    longest = max((row["number"] * row["seconds"][1] for row in explaining), default=0.0)
    estimate = {
        "dataset": config.dataset,
        "device": trial.device.type,
        "counts": asdict(counts),
        "rules": rules,
        "seconds": {str(number): _total(rules, number) for number in sorted({1, *(devices or ())})},
        "gpu_seconds": _total([row for row in rules if row["gpu"]], 1),
        "disk_bytes": _disk(config, counts),
        # With so many shards a job of the attribution takes half an hour; 0: unknown.
        "shards": min(math.ceil(longest / _GOOD), len(index)),
        "unknown": trial.unknown,
    }
    if json:
        try:
            write_json(json, estimate)
        except OSError as error:
            raise ConfigError(
                f"cannot write {json} ({error.strerror}); give --json another file."
            ) from None
    return _render(estimate)


def _row(
    config: Config, jobs: "Jobs", finished: Sequence[Finished], unit: float | None, start: float
) -> dict[str, Any]:
    """What jobs take, ``seconds`` of one as low, middle and high: as finished ones, or as tried.

    A job begins its work after ``start`` seconds, and a unit of it was tried to take ``unit``.
    """
    mine = [one for one in finished if (one.rule, one.part) == (jobs.rule, jobs.part)]
    done = [seconds for one in mine for seconds in one.seconds]
    memory = max((most for one in mine for most in one.memory_mb), default=None)
    seconds, by = None, "unknown"
    if done:
        by = f"{len(done)} finished"
        seconds = [_DONE[0] * min(done), sum(done) / len(done), _DONE[1] * max(done)]
    elif unit is not None:
        by, work = "trial", jobs.units / jobs.number * unit
        adaptive = jobs.unit == "maps" and config.maps(jobs.part).adaptive
        shares = _ADAPTIVE if adaptive else (1, 1, 1)
        seconds = [k * (start + share * work) for k, share in zip(_TRIED, shares, strict=True)]
    return {**asdict(jobs), "seconds": seconds, "memory_mb": memory, "by": by}


def _total(rules: Sequence[dict[str, Any]], number: int) -> list[float]:
    """Seconds of all rules, one after another with so many jobs at a time."""
    total = [0.0, 0.0, 0.0]
    for rule in dict.fromkeys(row["rule"] for row in rules):
        mine = [row for row in rules if row["rule"] == rule and row["seconds"]]
        for k in range(3):
            work = sum(row["number"] * row["seconds"][k] for row in mine)
            total[k] += max([work / number, *(row["seconds"][k] for row in mine)])
    return total


def _disk(config: Config, counts: "Counts") -> dict[str, int]:
    """Bytes of what is large; images are uncompressed, and networks come on top."""
    prepare, pairs = config.prepare, counts.pairs
    pixels, images = prepare.size**2, sum(counts.images.values())
    return {
        "images": images * prepare.channels * prepare.bits // 8 * pixels,
        "relevance": 2 * pixels * pairs * len(pipeline.recipes_with_maps(config)),
        "masks": pairs * len(config.recipes) * (pixels // _MASK + _ROW),
        "labels and release": pairs * _PAIR,
    }


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
