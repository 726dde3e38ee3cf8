"""The jobs of every rule that `snakemake all` runs, and how much each has to do."""

from dataclasses import dataclass

from dollmaker.adapt import learning_rates
from dollmaker.config.sources import CONVERTED
from dollmaker.config.tuning import AdaptConfig
from dollmaker.config.whole import Config
from dollmaker.estimate.count import Counts
from dollmaker.launch import pipeline

#: An image that is only looked at costs this share of one that is learned from.
LOOKED_AT = 1 / 3


@dataclass(frozen=True)
class Jobs:
    """Jobs of a rule that are alike.

    Attributes:
        rule: Name of the rule.
        part: Member, recipe or run, as in the names of its files; empty if it has none.
        units: What all of them have to do; of trainings the images that are learned from.
        unit: Of what, e.g. ``maps``.
        trial: The trial that measures a unit; empty if there is none.
        number: How many jobs.
        gpu: Whether they ask for a GPU.
    """

    rule: str
    part: str
    units: float
    unit: str
    trial: str = ""
    number: int = 1
    gpu: bool = False


def list_jobs(config: Config, counts: Counts) -> list[Jobs]:
    """All jobs, in the order they run."""
    shards, released = config.prepare.shards, config.release.recipe
    images, pairs, drawn = sum(counts.images.values()), counts.pairs, counts.sample
    whole, kind = pipeline.recipes_with_maps(config), config.source.kind
    recipes = list(config.recipes)
    choosing = {config.donor(r) for r in recipes if pipeline.thresholds(config, r)}
    sampled = [n for n in whole if n in {*choosing, config.donor(released)}]
    passes = config.segment.epochs * _passes(**counts.segment)
    first = {"phantoms": "generate_phantoms", **dict.fromkeys(CONVERTED, "convert_source")}
    runs = [(task, run) for task in config.tasks for run in config.adapt.runs]
    return [
        *(Jobs(first[kind], "", images, "images") for _ in range(kind in first)),
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
        *(Jobs("make_masks", n, pairs, "masks", f"binarize {n}", shards) for n in recipes),
        Jobs("check_recipe", released, drawn, "maps"),
        Jobs("collect_labels", "", pairs, "masks", "labels"),
        Jobs("pretrain_segmenter", "", passes, "images", "segment", gpu=True),
        *(
            Jobs("adapt_segmenter", f"{task}-{run.replace('/', '-')}",
                 _of_runs(config.adapt, counts.tasks[task]), "images", "segment", gpu=True)
            for task, run in runs
        ),
        *(
            Jobs("explain_segmenter", "", images, "images")
            for _ in pipeline.segmenter_explanations(config)
        ),
        Jobs("evaluate", "", pairs, "masks"),
        Jobs("build_release", "", pairs, "masks"),
        Jobs("verify_release", "", pairs, "masks"),
        Jobs("write_report", "", pairs, "masks"),
    ]  # fmt: skip


def _passes(train: float, valid: float, test: float = 0) -> float:
    return train + (valid + test) * LOOKED_AT


def _of_member(config: Config, name: str, counts: Counts) -> float:
    """Every epoch with its validation, and the predictions at the end."""
    images, own = counts.images, config.classify.members[name].epochs
    epochs = config.classify.epochs if own is None else own
    held_out = _passes(0, images["valid"], images["test"])
    return float(epochs * _passes(images["train"], images["valid"]) + held_out)


def _of_runs(options: AdaptConfig, images: dict[str, int]) -> float:
    """Every n, seed and learning rate: its steps, and the images that it is scored on."""
    runs = len(options.n) * options.seeds * len(learning_rates(options.dump()))
    learned = options.steps * options.batch_size
    return float(runs * _passes(learned, options.evaluations * images["valid"], images["test"]))
