"""The stage: all scores of a run, as Parquet files in one folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dollmaker.config.whole import Config
from dollmaker.evaluate.classifiers import score_classifiers
from dollmaker.evaluate.masks import Folders, score_pairs
from dollmaker.evaluate.means import gated_by_steps, summarize
from dollmaker.evaluate.tasks import compare_starts, read_runs, score_tasks
from dollmaker.measures.baselines import BASELINES, MEAN_MAP, SEGMENTER
from dollmaker.pixels.levels import Numbers
from dollmaker.pixels.mask_forms import Folder, Pictures
from dollmaker.pixels.truth import Truth, of_boxes, of_chexlocalize, require_sound
from dollmaker.runtime.errors import DataError
from dollmaker.store import provenance, tables
from dollmaker.store.files import inside
from dollmaker.store.findings import localized
from dollmaker.store.tables import read_index


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What is scored."""

    index: Path  #: The index.
    images: Path  #: Folder of the image shards.
    data_root: Path  #: Folder of the source, for the truth.
    committee: Sequence[Path]  #: Folders of the members.
    relevance: Path  #: Folder with a folder of relevance shards per recipe.
    masks: Path  #: Folder with a folder of mask shards per recipe.
    #: Folder of the pre-trained segmenter; without one it is not scored.
    segmenter: Path | None = None
    tasks: Sequence[Path] = ()  #: Folders ``tasks/{task}/{init}-{tuning}``.


def evaluate(config: Config, inputs: Inputs, output: Path) -> None:
    """Score all of a run: classifiers, masks and tasks.

    Args:
        config: The resolved configuration.
        inputs: What is scored.
        output: Folder for classifiers, pairs, masks, tasks and differences (Parquet).

    Raises:
        ArtifactError: If a file of an earlier stage is missing or damaged.
        DataError: If the truth is not as described.
    """
    index, names = read_index(inputs.index)
    findings = localized(names, config.attribute.findings)
    replicates, seed = config.evaluate.bootstrap, config.seed
    truth = load_truth(config, inputs.data_root, findings)
    places = ("images", "relevance", "masks", "segmenter")
    folders = Folders(**{name: getattr(inputs, name) for name in places})
    pairs = score_pairs(config, index, findings, folders, truth)
    require_sound(truth, "truth.targets")
    runs, least, gates = read_runs(inputs.tasks), config.evaluate.min_pairs, _gates(config)
    results = {
        "classifiers": score_classifiers(config, index, names, inputs.committee),
        "pairs": pairs,
        "masks": summarize(pairs, findings, replicates, seed, min_pairs=least, gated_by=gates),
        "tasks": score_tasks(runs, replicates, seed),
        "differences": compare_starts(runs, replicates, seed),
    }
    header = provenance.header("evaluate", config.evaluate.dump(), seed=seed)
    header["targets"] = truth.targets if truth is not None else []
    for name, table in results.items():
        tables.write(table, output / f"{name}.parquet", header)


def load_truth(config: Config, data_root: Path, findings: Sequence[str]) -> Truth | None:
    """Open the configured truth of the findings that are scored; ``None`` if there is none.

    Raises:
        DataError: If a file is missing or is not as described.
    """
    options = config.truth
    if options is None:
        return None
    root = partial(inside, data_root, links=config.allow_links)
    if options.kind == "chexlocalize":
        return of_chexlocalize([root(name) for name in options.files], findings, options.missing)
    if options.kind == "boxes":
        return of_boxes(root(options.file or ""), options.space, findings, options.missing)
    folder = root(options.folder or "")
    if not folder.is_dir():
        raise DataError(f"mask folder {folder} does not exist; correct truth.folder.")
    targets = options.targets or {}
    return Truth(
        form=Pictures(
            Folder(folder, links=config.allow_links, named=True),
            Numbers(targets, bits=options.encoding == "bits"),
            config.prepare.max_pixels,
        ),
        called=lambda image, _: f"true mask {image.mask!r} of {image.identifier!r}",
        targets=list(targets),
        by_target=True,
        findings=options.findings,
        missing=options.missing,
        when_labelled=options.when_labelled,
    )


def _gates(config: Config) -> dict[str, str]:
    """Recipe -> who says that a finding is there; the others as the released recipe."""
    asked, least = config.attribute.min_probability, config.evaluate.min_probability
    found = {
        name: gated_by_steps(recipe.binarize or [], asked, least)
        for name, recipe in config.recipes.items()
    }
    others = dict.fromkeys((SEGMENTER, MEAN_MAP, *BASELINES), found[config.release.recipe])
    return others | found
