"""The estimate: count, try, look at past runs, and put together what a run costs."""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from dollmaker.adapt import learning_rates
from dollmaker.adapt.listing import list_images, split_patients
from dollmaker.attribute.selection import select_images
from dollmaker.classify.data import label_matrix
from dollmaker.config.masks import SampleConfig
from dollmaker.config.sources import CONVERTED
from dollmaker.config.tuning import AdaptConfig
from dollmaker.config.whole import Config
from dollmaker.estimate.trial import SPLITS, Trial, passes, sample
from dollmaker.launch import pipeline
from dollmaker.phantoms.dataset import write_dataset
from dollmaker.prepare.sources import check_findings, list_source
from dollmaker.runtime import devices
from dollmaker.runtime.errors import DataError
from dollmaker.store.benchmarks import Finished, read_finished
from dollmaker.store.findings import ABSENT, BLANK, PRESENT, localized

#: What a job may take, as shares of its estimate by a trial, and of the ends of finished jobs.
_TRIED, _DONE = (0.5, 1, 2), (0.8, 1.25)

#: What a job of the attribution should take: long beside its start, short to lose.
_GOOD = 1800

# Bytes, as measured in docs/lab/2026-11-21-benchmarks.md: a mask takes a sixteenth of its
# pixels in a shard, and its row; a pair of a release takes so many with its outline and JSON.
_MASK, _ROW, _PAIR = 16, 600, 6300


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What a run has to do."""

    images: dict[str, int]  #: Split -> images.
    pairs: int  #: Pairs to explain; a lower bound if ``most`` is larger.
    #: Most pairs there can be: with ``attribute.min_probability`` only the trained committee knows
    #: their number.
    most: int
    sample: int  #: Maps of a recipe's sample.
    segment: dict[str, int]  #: Split -> images of the segmenter's training, if every mask is kept.
    tasks: dict[str, dict[str, int]]  #: Task -> split -> images.


@dataclass(frozen=True)
class Jobs:
    """Jobs of a rule that are alike."""

    rule: str  #: Name of the rule.
    part: str  #: Member, recipe or run, as in the names of its files; empty if it has none.
    units: float  #: What all of them have to do; of trainings the images that are learned from.
    unit: str  #: Of what, e.g. ``maps``.
    trial: str = ""  #: The trial that measures a unit; empty if there is none.
    number: int = 1  #: How many jobs.
    gpu: bool = False  #: Whether they ask for a GPU.


def make_estimate(
    config: Config, numbers: Sequence[int], images: int, light: float, heavy: float
) -> dict[str, Any]:
    """What a run of a configuration costs on a device like this one.

    Stages are tried on so many images; finished jobs below ``results/{dataset}/benchmarks`` stand
    for others of their kind. Jobs without networks begin their work after ``light`` seconds, those
    with networks after ``heavy``.

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


def count(config: Config, index: pl.DataFrame, localized: list[str], root: Path) -> Counts:
    """Count what every stage has to do with the images of a source below ``root``.

    Raises:
        DataError: If there is nothing to explain, or a task is not as described.
    """
    options, splits = config.attribute, index["split"].to_numpy()
    chosen = select_images(index, localized, options)
    positive = label_matrix(chosen, localized) == PRESENT
    if not positive.any() and options.min_probability is None:
        raise DataError(
            "no image of the explained splits has a positive label of a finding to localize; "
            "correct attribute.splits, attribute.findings or the table."
        )
    labels = label_matrix(index, localized)
    # The segmenter learns from images with masks, and from those that show what absence looks like.
    absent = (ABSENT, BLANK) if config.classify.blank == "zeros" else (ABSENT,)
    learned = ~(labels == PRESENT).any(1) & np.isin(labels, absent).any(1)
    learned |= np.isin(index["row"], chosen.filter(pl.Series(positive.any(1)))["row"])
    drawn = labels[np.isin(splits, config.sample.splits)]
    return Counts(
        images={split: int((splits == split).sum()) for split in SPLITS},
        pairs=int(positive.sum()),
        most=int(positive.sum()) if options.min_probability is None else positive.size,
        sample=_count_sample(drawn, config.sample),
        segment={split: int(learned[splits == split].sum()) for split in ("train", "valid")},
        tasks={name: _count_task(config, name, root) for name in config.tasks},
    )


def _count_sample(labels: Any, options: SampleConfig) -> int:
    """Maps as they are and mirrored; of the checked ones three random ones and another finding."""
    positive, absent = (labels == PRESENT).sum(0), np.isin(labels, (ABSENT, BLANK)).sum(0)
    plain = np.minimum(positive, options.positives) + np.minimum(absent, options.checks)
    return int((2 * plain + 4 * np.minimum(positive, options.checks)).sum())


def _count_task(config: Config, name: str, root: Path) -> dict[str, int]:
    listed = list_images(name, config.tasks[name], root, config.allow_links)
    splits = split_patients(name, config, root, listed.patients)
    return {split: splits.count(split) for split in SPLITS}


def list_jobs(config: Config, counts: Counts) -> list[Jobs]:
    """All jobs, in the order they run."""
    shards, released, runs = config.prepare.shards, config.release.recipe, config.adapt.runs
    images, pairs, drawn = sum(counts.images.values()), counts.pairs, counts.sample
    whole, kind = pipeline.recipes_with_maps(config), config.source.kind
    choosing = {config.donor(n) for n in config.recipes if pipeline.thresholds(config, n)}
    sampled = [n for n in whole if n in {*choosing, config.donor(released)}]
    lessons = config.segment.epochs * passes(**counts.segment)
    made = {"phantoms": "generate_phantoms", **dict.fromkeys(CONVERTED, "convert_source")}
    scoring = ("evaluate", "build_release", "verify_release", "write_report")
    return [
        *(Jobs(rule, "", images, "images") for source, rule in made.items() if source == kind),
        Jobs("list_images", "", images, "images"),
        Jobs("decode_images", "", images, "images", "decode", shards),
        Jobs("build_index", "", images, "images"),
        Jobs("audit_images", "", images, "images"),
        *(
            Jobs("train_member", n, _of_member(config, n, counts), "images", f"train {n}", gpu=True)
            for n in config.classify.members
        ),
        *(Jobs("explain_images", n, pairs, "maps", f"explain {n}", shards, True) for n in whole),
        *(Jobs("explain_sample", n, drawn, "maps", f"explain {n}", gpu=True) for n in sampled),
        *(Jobs("choose_thresholds", n, drawn, "maps") for n in whole if n in choosing),
        *(Jobs("make_masks", n, pairs, "masks", f"binarize {n}", shards) for n in config.recipes),
        Jobs("check_recipe", released, drawn, "maps"),
        Jobs("collect_labels", "", pairs, "masks", "labels"),
        Jobs("pretrain_segmenter", "", lessons, "images", "segment", gpu=True),
        *(
            Jobs("adapt_segmenter", f"{task}-{run.replace('/', '-')}",
                 _of_runs(config.adapt, counted), "images", "segment", gpu=True)
            for task, counted in counts.tasks.items() for run in runs
        ),
        *[Jobs("explain_segmenter", "", images, "images")] * config.report.explained,
        *(Jobs(rule, "", pairs, "masks") for rule in scoring),
    ]  # fmt: skip


def _of_member(config: Config, name: str, counts: Counts) -> float:
    """Every epoch with its validation, and the predictions at the end."""
    images, own = counts.images, config.classify.members[name].epochs
    epochs = config.classify.epochs if own is None else own
    each, held_out = passes(images["train"], images["valid"]), {**images, "train": 0}
    return float(epochs * each + passes(**held_out))


def _of_runs(options: AdaptConfig, images: dict[str, int]) -> float:
    """Every n, seed and learning rate: its steps, and the images that it is scored on."""
    runs = len(options.n) * options.seeds * len(learning_rates(options.learning_rate))
    learned = options.steps * options.batch_size
    return float(runs * passes(learned, options.evaluations * images["valid"], images["test"]))
