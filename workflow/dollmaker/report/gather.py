"""Everything the report reads, gathered once; whatever was not run is simply absent."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from dollmaker.config.whole import Config
from dollmaker.evaluate.stage import load_truth
from dollmaker.explain import measures as explanations
from dollmaker.pixels.truth import Truth
from dollmaker.release.parts import SPLITS, Tree, read_rows
from dollmaker.runtime.errors import ArtifactError
from dollmaker.store import findings as labels
from dollmaker.store import tables
from dollmaker.store.benchmarks import read_finished
from dollmaker.store.files import read_json
from dollmaker.store.tables import read_index

#: Stage -> the rules whose seconds are its.
RULES = {
    "phantom": ("generate_phantoms",),
    "prepare": ("list_images", "convert_source", "decode_images", "build_index", "audit_images"),
    "classify": ("train_member",),
    "attribute": ("explain_images",),
    "sample": ("explain_sample",),
    "binarize": ("choose_thresholds", "make_masks"),
    "release": ("check_recipe", "collect_labels", "build_release", "verify_release"),
    "segment": ("pretrain_segmenter",),
    "explain": ("explain_segmenter",),
    "adapt": ("adapt_segmenter",),
    "evaluate": ("evaluate",),
}

#: Those whose jobs belong to a recipe.
_OF_RECIPES = {*RULES["attribute"], *RULES["sample"], *RULES["binarize"], "check_recipe"}


@dataclass(frozen=True, kw_only=True)
class Explanations:
    """Where the segmenter looks: means of the measures (rows), and the overlays as PNG."""

    layer: str
    pixels: str
    split: str
    rows: list[explanations.Row]
    picture: bytes


@dataclass(frozen=True, kw_only=True)
class Results:
    """The results of one data set."""

    config: Config
    folder: Path  #: ``results/{dataset}``.
    index: pl.DataFrame
    names: list[str]  #: All findings; ``findings`` are those that are localized.
    findings: list[str]
    header: Tree  #: Provenance of the index, with the quarantine.
    #: How well border and shape predict the labels; empty if not measured.
    confounding: pl.DataFrame
    members: dict[str, Tree]  #: Member name -> its model.json.
    #: Table name -> table of the evaluation; missing ones are absent.
    scores: dict[str, pl.DataFrame]
    sanity: dict[str, Tree]  #: Recipe -> its sanity checks, where they were made.
    truth: Truth | None
    segmenter: Tree | None  #: segmenter.json, or ``None``.
    explanations: Explanations | None
    tasks: dict[str, dict[str, Path]]  #: Task name -> run name ``{init}-{tuning}`` -> folder.
    release: dict[str, int]  #: Split -> number of released masks.
    #: Stage -> seconds of all its jobs, ``None`` where nothing was measured.
    seconds: dict[str, float | None]

    def table(self, name: str) -> pl.DataFrame:
        """A table of the evaluation; one without columns where it was not made."""
        return self.scores.get(name, pl.DataFrame())


def gather(config: Config, folder: Path, data_root: Path) -> Results:
    """Read what there is in ``results/{dataset}``, and the truth, which is under ``data_root``.

    Raises:
        ArtifactError: If the index is missing or a file is damaged.
        DataError: If the truth is not as described.
    """
    index, names = read_index(folder / "index.parquet")
    localized = labels.localized(names, config.attribute.findings)
    audit, segmenter = folder / "audit.parquet", folder / "segmenter/segmenter.json"
    committee = sorted(config.classify.members)
    members = {name: folder / f"committee/{name}/model.json" for name in committee}
    checks = {name: folder / f"sanity/{name}.json" for name in config.recipes}
    return Results(
        config=config,
        folder=folder,
        index=index,
        names=names,
        findings=localized,
        header=tables.read_header(folder / "index.parquet"),
        confounding=tables.read(audit) if audit.exists() else pl.DataFrame(),
        members=_read_existing(members),
        scores={path.stem: tables.read(path) for path in sorted(folder.glob("scores/*.parquet"))},
        sanity=_read_existing(checks),
        truth=load_truth(config, data_root, localized),
        segmenter=read_json(segmenter) if segmenter.exists() else None,
        explanations=_explanations(folder / "explained") if config.report.explained else None,
        tasks=_tasks(config, folder / "tasks"),
        release={
            split: read_rows(folder / "release", split).height
            for split in SPLITS
            if (folder / "release").is_dir()
        },
        seconds=read_seconds(folder / "benchmarks", config.recipes),
    )


def _read_existing(files: Mapping[str, Path]) -> dict[str, Tree]:
    return {name: read_json(path) for name, path in files.items() if path.exists()}


def _explanations(folder: Path) -> Explanations | None:
    if not folder.is_dir():
        return None
    table, picture = folder / "measures.parquet", folder / "overlays.png"
    asked = tables.read_header(table)["config"]
    if not picture.is_file():
        raise ArtifactError(f"{picture} does not exist; delete {folder} and run again.")
    return Explanations(
        layer=asked["layer"],
        pixels=explanations.tell_pixels(asked["pixels"], asked["point"]),
        split=asked["split"],
        rows=explanations.summarize(tables.read(table)),
        picture=picture.read_bytes(),
    )


def _tasks(config: Config, folder: Path) -> dict[str, dict[str, Path]]:
    """Runs in the order of the configuration."""
    runs = [run.replace("/", "-") for run in config.adapt.runs]
    found = {
        task: {run: folder / task / run for run in runs if (folder / task / run).is_dir()}
        for task in config.tasks
    }
    return {task: there for task, there in found.items() if there}


def read_seconds(folder: Path, recipes: Collection[str] | None = None) -> dict[str, float | None]:
    """Total seconds of each stage from Snakemake's benchmark files.

    A repeated benchmark counts with its mean. With ``recipes``, maps and masks of other recipes (of
    a comparison) do not count.
    """
    stage_of = {rule: stage for stage, rules in RULES.items() for rule in rules}
    total: dict[str, float] = defaultdict(float)
    for job in read_finished(folder):
        other = job.rule in _OF_RECIPES and recipes is not None and job.part not in recipes
        if job.rule in stage_of and job.seconds and not other:
            total[stage_of[job.rule]] += sum(job.seconds) / len(job.seconds)
    return {stage: total.get(stage) for stage in RULES}
