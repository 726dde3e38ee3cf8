"""The estimate: count, try, look at past runs, and put together what a run costs."""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from dollmaker.config.whole import Config
from dollmaker.estimate.jobs import Counts, Jobs, count, list_jobs
from dollmaker.estimate.trial import Trial, sample
from dollmaker.launch import pipeline
from dollmaker.phantoms import write_dataset
from dollmaker.prepare.sources import check_findings, list_source
from dollmaker.runtime import devices
from dollmaker.store.benchmarks import Finished, read_finished
from dollmaker.store.findings import localized

#: What a job may take, as shares of its estimate by a trial, and of the ends of finished jobs.
_TRIED, _DONE = (0.5, 1, 2), (0.8, 1.25)

#: What a job of the attribution should take: long beside its start, short to lose.
_GOOD = 1800

# Bytes, as measured in docs/lab/2026-11-21-benchmarks.md: a mask takes a sixteenth of its
# pixels in a shard, and its row; a pair of a release takes so many with its outline and JSON.
_MASK, _ROW, _PAIR = 16, 600, 6300


def make_estimate(
    config: Config, numbers: Sequence[int], images: int, light: float, heavy: float
) -> dict[str, Any]:
    """What a run of a configuration costs on a device like this one.

    Finished jobs below ``results/{dataset}/benchmarks`` stand for others of their kind.

    Args:
        config: The resolved configuration.
        numbers: Numbers of jobs at a time.
        images: Images that the stages are tried on; 0 tries nothing.
        light: Seconds until a job without networks begins its work.
        heavy: Seconds until one with networks does.

    Returns:
        ``counts``, ``rules`` (jobs, units, ``seconds`` of a job as low, middle and high or
        ``None``, ``memory_mb`` if known, ``by``), ``seconds`` of all by number of jobs at a time,
        ``gpu_seconds`` of those that ask for a GPU, ``disk_bytes``, ``shards`` with which a job of
        the attribution takes half an hour (0: unknown), ``unknown`` (trial -> why it failed).

    Raises:
        DataError: If the source is not as described, or not there yet.
        ModelError: If the device is not to be had.
    """
    device = devices.choose(config.device)
    with tempfile.TemporaryDirectory(prefix="dollmaker-estimate-") as name:
        folder = Path(name)
        root = Path(pipeline.data_root(config))
        if config.source.kind == "phantoms" and not root.is_dir():  # they are generated for this
            root = folder / "phantoms"
            write_dataset(root, seed=config.seed, **config.source.phantoms.dump())
        index, names = list_source(config, root)
        check_findings(names, config)
        index = index.unique("image_id", keep="first", maintain_order=True)
        index = index.with_columns(shard=pl.lit(""), row=pl.int_range(pl.len()))
        wanted = localized(names, config.attribute.findings)
        counts = count(config, index, wanted, root)
        trial = Trial(config, device, folder)
        if images:
            trial.run(sample(index, wanted, images), names, root)
    finished = list(read_finished(Path("results") / config.dataset / "benchmarks"))
    rules = [
        _estimate(config, jobs, finished, trial, heavy if jobs.gpu else light)
        for jobs in list_jobs(config, counts)
    ]
    explaining = [row for row in rules if row["rule"] == "explain_images" and row["seconds"]]
    longest = max((row["number"] * row["seconds"][1] for row in explaining), default=0.0)
    return {
        "dataset": config.dataset,
        "device": device.type,
        "counts": asdict(counts),
        "rules": rules,
        "seconds": {str(number): _total(rules, number) for number in sorted({1, *numbers})},
        "gpu_seconds": _total([row for row in rules if row["gpu"]], 1),
        "disk_bytes": _disk(config, counts),
        "shards": min(math.ceil(longest / _GOOD), len(index)),
        "unknown": trial.unknown,
    }


def _estimate(
    config: Config, jobs: Jobs, finished: Sequence[Finished], trial: Trial, start: float
) -> dict[str, Any]:
    """A row of the result."""
    mine = [one for one in finished if (one.rule, one.part) == (jobs.rule, jobs.part)]
    done = [seconds for one in mine for seconds in one.seconds]
    memory = max((most for one in mine for most in one.memory_mb), default=None)
    seconds, by = None, "unknown"
    if done:
        by = f"{len(done)} finished"
        seconds = [_DONE[0] * min(done), sum(done) / len(done), _DONE[1] * max(done)]
    elif jobs.trial in trial.seconds:
        by, work = "trial", jobs.units / jobs.number * trial.seconds[jobs.trial]
        # Most maps are done with about a fourth of the nodes that they may take.
        adaptive = jobs.unit == "maps" and config.maps(jobs.part).adaptive
        shares = (0.25, 0.5, 1) if adaptive else (1, 1, 1)
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


def _disk(config: Config, counts: Counts) -> dict[str, int]:
    """Bytes of what is large; images are uncompressed, and networks come on top."""
    prepare, pairs = config.prepare, counts.pairs
    pixels, images = prepare.size**2, sum(counts.images.values())
    return {
        "images": images * prepare.channels * prepare.bits // 8 * pixels,
        "relevance": 2 * pixels * pairs * len(pipeline.recipes_with_maps(config)),
        "masks": pairs * len(config.recipes) * (pixels // _MASK + _ROW),
        "labels and release": pairs * _PAIR,
    }
