"""What a run has to do, counted from the tables of the source and of the tasks."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from dollmaker.adapt import learning_rates
from dollmaker.adapt.listing import list_images, split_patients
from dollmaker.attribute.selection import draw_pairs, select_images
from dollmaker.classify.labels import label_matrix
from dollmaker.classify.stage import member_options
from dollmaker.config.sources import CONVERTED
from dollmaker.config.whole import Config
from dollmaker.launch import pipeline
from dollmaker.phantoms.dataset import write_dataset
from dollmaker.prepare.sources import check_findings, list_source
from dollmaker.release.parts import SPLITS
from dollmaker.runtime.errors import DataError
from dollmaker.store.findings import ABSENT, BLANK, PRESENT

#: An image that is only looked at costs this share of one that is learned from.
_LOOKED_AT = 1 / 3


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


def read_source(config: Config, folder: Path) -> tuple[Path, pl.DataFrame, list[str]]:
    """Where the images of a source lie, its listing without shards, and the names of its findings.

    Phantoms that are not there yet are generated in a ``folder``.

    Raises:
        DataError: If the source is not as described, or not there yet.
    """
    root = Path(pipeline.data_root(config))
    if config.source.kind == "phantoms" and not root.is_dir():
        root = folder / "phantoms"
        write_dataset(root, seed=config.seed, **config.source.phantoms.dump())
    index, names = list_source(config, root)
    check_findings(names, config)
    index = index.unique("image_id", keep="first", maintain_order=True)
    return root, index.with_columns(shard=pl.lit(""), row=pl.int_range(pl.len())), names


def count(config: Config, index: pl.DataFrame, localized: list[str], root: Path) -> Counts:
    """Count what every stage has to do with the images of a source below ``root``.

    Raises:
        DataError: If there is nothing to explain, or a task is not as described.
    """
    options = config.attribute
    chosen = select_images(index, localized, options)
    positive = label_matrix(chosen, localized) == PRESENT
    if not positive.any() and options.min_probability is None:
        raise DataError(
            "no image of the explained splits has a positive label of a finding to localize; "
            "correct attribute.splits, attribute.findings or the table."
        )
    labels, splits = label_matrix(index, localized), index["split"].to_numpy()
    # The segmenter learns from images with masks, and from those that show what absence looks like.
    absent = (ABSENT, BLANK) if config.classify.blank == "zeros" else (ABSENT,)
    learned = ~(labels == PRESENT).any(1) & np.isin(labels, absent).any(1)
    learned[chosen["row"].to_numpy()[positive.any(1)]] = True
    if config.segment.objectives.structure:
        learned |= splits == "train"
    drawn = draw_pairs(index, localized, config.sample, config.seed)
    return Counts(
        images=_by_split(splits),
        pairs=int(positive.sum()),
        most=int(positive.sum()) if options.min_probability is None else positive.size,
        # As they are and mirrored; of the checked ones three random ones and another finding.
        sample=sum(2 + 4 * pair.checked for pair in drawn),
        segment={split: int(learned[splits == split].sum()) for split in ("train", "valid")},
        tasks={name: _by_split(_splits_of_task(config, name, root)) for name in config.tasks},
    )


def _by_split(splits: Iterable[str]) -> dict[str, int]:
    return {split: list(splits).count(split) for split in SPLITS}


def _splits_of_task(config: Config, name: str, root: Path) -> list[str]:
    listed = list_images(name, config.tasks[name], root, config.allow_links)
    return split_patients(name, config, root, listed.patients)


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
                 _of_runs(config, counted), "images", "segment", gpu=True)
            for task, counted in counts.tasks.items() for run in runs
        ),
        *[Jobs("explain_segmenter", "", images, "images")] * config.report.explained,
        *(Jobs(rule, "", pairs, "masks") for rule in scoring),
    ]  # fmt: skip


def _of_member(config: Config, name: str, counts: Counts) -> float:
    """Every epoch with its validation, and the predictions at the end."""
    images, options = counts.images, member_options(config.classify, config.classify.members[name])
    each, held_out = passes(images["train"], images["valid"]), {**images, "train": 0}
    return float(options.epochs * each + passes(**held_out))


def _of_runs(config: Config, images: dict[str, int]) -> float:
    """Every n, seed and learning rate: its steps, and the images that it is scored on."""
    options = config.adapt
    runs = len(options.n) * options.seeds * len(learning_rates(options.learning_rate))
    learned = options.steps * options.batch_size
    return float(runs * passes(learned, options.evaluations * images["valid"], images["test"]))


def passes(train: float, valid: float, test: float = 0) -> float:
    """Images that are learned from, and what others cost that are only looked at."""
    return train + (valid + test) * _LOOKED_AT
