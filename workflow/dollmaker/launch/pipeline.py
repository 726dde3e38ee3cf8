"""What the Snakefiles need to know: the configuration, and what follows from it.

Pure look-ups, so that rules only wire files together.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dollmaker.adapt import PLAIN
from dollmaker.config import catalogue, reads, settings, weight_names
from dollmaker.config.base import Tree
from dollmaker.config.sources import CONVERTED
from dollmaker.config.whole import Config
from dollmaker.fetch.needed import Start
from dollmaker.prepare.nih import table_file
from dollmaker.runtime.errors import ConfigError
from dollmaker.store import sums as checksums
from dollmaker.store.files import inside, write_json
from dollmaker.store.provenance import STAGES
from dollmaker.study import grid

#: Keys of the configuration that every command gets.
_ALWAYS = ("dataset", "source", "allow_links")

#: ChestX-ray14's official lists, beside its table.
_LISTS = ("train_val_list.txt", "test_list.txt")


def configure(given: Mapping[str, Any], default: Path, files: Iterable[Path] = ()) -> Config:
    """The resolved configuration of a run, of what Snakemake collected from its options.

    A configuration file replaces the embedded ``default``, config.yaml, as a whole; without one
    (only ``--config`` values, which have no ``source``), the values are laid over it. The files are
    read here, too, as Snakemake hides a key that is there twice.

    Raises:
        ConfigError: With the first mistake, in one sentence.
    """
    for file in files:
        settings.read(str(file))
    embedded = {} if "source" in given else settings.read(str(default))
    return settings.resolved({**embedded, **given})


# What a job reads of the configuration, as inline JSON.


def stage_config(config: Config, stage: str) -> str:
    """What a stage reads of the configuration (:mod:`dollmaker.config.reads`)."""
    return _stage_text(config.dump(), stage)


def report_config(config: Config) -> str:
    """The whole configuration: the report shows it."""
    return _text(config.dump())


def member_config(config: Config, member: str) -> str:
    """As :func:`stage_config` for classify, with one member only."""
    classify = config.classify
    if member not in classify.members:
        raise ConfigError(f"no member {member!r} in classify.members.")
    mine = classify.replace(members={member: classify.members[member]})
    return stage_config(config.replace(classify=mine), "classify")


def labels_config(config: Config) -> str:
    """As :func:`stage_config` for labels, without the recipes and members that have no part."""
    return stage_config(reads.of_labels(config), "labels")


def recipe_config(config: Config, stage: str, recipe: str) -> str:
    """As :func:`stage_config` for attribute and binarize, with one recipe only."""
    tree = config.dump()
    mine = tree["recipes"][recipe]
    if stage in ("attribute", "sample"):
        mine["binarize"] = [{"otsu": {}}]
    else:
        mine["attribute"] = {}
    return _stage_text({**tree, "recipes": {recipe: mine}, "release": {"recipe": recipe}}, stage)


def task_config(config: Config, task: str) -> str:
    """As :func:`stage_config` for adapt, with one task only; what else runs is not its matter."""
    tree = config.dump()
    adapt = {key: value for key, value in tree["adapt"].items() if key != "runs"}
    return _stage_text({**tree, "tasks": {task: tree["tasks"][task]}, "adapt": adapt}, "adapt")


def _stage_text(tree: Tree, stage: str) -> str:
    return _text({**{key: tree[key] for key in _ALWAYS}, **reads.part(tree, stage)})


def _text(tree: Tree) -> str:
    """Inline JSON; of configurations without links it is that of before the key was known."""
    known = [key for key in sorted(tree) if key != "allow_links" or tree[key]]
    return json.dumps({key: tree[key] for key in known}, ensure_ascii=False)


def settings_file(dataset: str, stage: str, text: str, make: bool) -> str:
    """The file with what a job reads of the configuration, an input of its rule.

    Its name has the checksum of its content, so that it is never written again: what another call
    of Snakemake asks for meanwhile has another name, and changes nothing under running jobs. It is
    written, if it is not there, where ``make`` says so.
    """
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    path = Path(f"results/{dataset}/config/{stage}-{digest}.json")
    if make and not path.exists():
        write_json(path, json.loads(text))
    return str(path)


def version(stage: str) -> int:
    """Version of a stage's computation, for ``params``."""
    return STAGES[stage]


# Files and folders that rules read and write.


def shards(config: Config) -> list[str]:
    """Names of the shards."""
    return [f"{number:04d}" for number in range(config.prepare.shards)]


def committee(config: Config, recipe: str) -> list[str]:
    """Folders of the members that explain a recipe's maps."""
    return _members(config, catalogue.committee(config, recipe))


def start_members(config: Config) -> list[str]:
    """Folder of the member that the segmenter's encoder starts from, if it starts from one."""
    init = config.segment.init
    return _members(config, [init] if init in config.classify.members else [])


def _members(config: Config, names: Iterable[str]) -> list[str]:
    return [f"results/{config.dataset}/committee/{name}" for name in names]


def explaining_members(config: Config) -> list[str]:
    """Names of the members that explain for some recipe."""
    found = [name for recipe in config.recipes for name in catalogue.committee(config, recipe)]
    return list(dict.fromkeys(found))


def recipes_with_maps(config: Config) -> list[str]:
    """Recipes with maps of their own."""
    return [name for name in config.recipes if config.donor(name) == name]


def negatives(config: Config, recipe: str) -> list[str]:
    """Every shard of images, if the recipe's maps start from some of them."""
    starts = "negatives" in config.maps(recipe).baselines
    return [f"results/{config.dataset}/images/{k}.h5" for k in shards(config) if starts]


def sample(config: Config, recipe: str) -> str:
    """The sample of the maps that a recipe uses."""
    return f"results/{config.dataset}/sample/{config.donor(recipe)}.h5"


def thresholds(config: Config, recipe: str) -> list[str]:
    """The table of thresholds chosen without truth, if the recipe asks for it."""
    table = f"results/{config.dataset}/thresholds/{config.donor(recipe)}.parquet"
    steps = config.recipes[recipe].binarize
    return [table] if any("label_free" in step for step in steps) else []


def relevance_shard(config: Config, dataset: str, recipe: str, shard: str) -> str:
    """The relevance shard that a mask shard is made from."""
    return f"results/{dataset}/relevance/{config.donor(recipe)}/{shard}.h5"


def released_maps(config: Config) -> list[str]:
    """The relevance shards of the released recipe, which know the outlines of its masks."""
    dataset, recipe = config.dataset, config.release.recipe
    return [relevance_shard(config, dataset, recipe, shard) for shard in shards(config)]


def released_tasks(config: Config) -> list[str]:
    """Folders of the fine-tunings that the release carries."""
    runs = [name.split("/") for name in dict.fromkeys(config.release.models) if name != "committee"]
    return [f"results/{config.dataset}/tasks/{task}/{start}-{how}" for task, start, how in runs]


def released_thresholds(config: Config) -> list[str]:
    """The thresholds of the released recipe, if the release carries its committee."""
    carried = "committee" in config.release.models
    return thresholds(config, config.release.recipe) if carried else []


def segmenter_explanations(config: Config) -> list[str]:
    """The segmenter's explanations, if the report shall show them."""
    return [f"results/{config.dataset}/explained"] if config.report.explained else []


def tuned(config: Config) -> list[str]:
    """Folders of all fine-tunings: task/init-tuning."""
    return [f"{task}/{run.replace('/', '-')}" for task in config.tasks for run in config.adapt.runs]


def start_folders(config: Config, start: str, architecture: str | None = None) -> list[str]:
    """The folder that a fine-tuning starts from: the first member, a segmenter, or none.

    A start of the study is one of an architecture, and of the names of pre-trainings there.
    """
    if start == "classifier":
        return _members(config, list(config.classify.members)[:1])
    if start in PLAIN:
        return []
    if architecture is None:
        return [f"results/{config.dataset}/segmenter"]
    name = grid.segmenter(config, architecture, start)
    return [f"results/{config.dataset}/study/{architecture}/segmenter/{name}"]


def start_words(start: str, folders: Sequence[str]) -> list[str]:
    """The words of a command that name the folder of a start, if it has one."""
    return ["--committee" if start == "classifier" else "--segmenter", *folders] if folders else []


def sums(folders: Iterable[str]) -> list[str]:
    """Files with the checksums of what folders below results/{dataset} hold.

    A folder counts as changed when its sums do, and not when it is newer: of folders Snakemake
    knows the time alone.
    """
    parts = [folder.split("/", 2) for folder in folders]
    return [f"{results}/{name}/sums/{rest}.sha256" for results, name, rest in parts]


# What the user brings: the source, tasks, true masks and weights.


def data_root(config: Config) -> str:
    """Where the source data lie: generated and converted ones under results, else as configured."""
    if config.source.kind == "phantoms":
        return f"results/{config.dataset}/phantoms"
    if config.source.kind in CONVERTED:
        return f"results/{config.dataset}/source"
    return config.data_root


def source_files(config: Config) -> list[str]:
    """The files of the source that prepare depends on."""
    source, root = config.source, data_root(config)
    if source.kind == "phantoms" or source.kind in CONVERTED:
        return [root]
    if source.kind == "nih":
        find = partial(inside, Path(root), links=config.allow_links)
        return [str(table_file(source.own, find))]
    if source.kind == "chexpert":
        folder = source.chexpert.folder
        return _below(root, f"{folder}/train.csv", f"{folder}/valid.csv")
    return _below(root, source.own.root if source.kind == "folder" else source.own.file)


def source_sums(config: Config) -> list[str]:
    """The sums of a source that the workflow makes."""
    own = f"results/{config.dataset}/"
    return sums(file for file in source_files(config) if file.startswith(own))


def source_content(config: Config) -> str:
    """Checksum of what lists the images: tables, official lists, and names of masks.

    Of class folders it is the names and sizes of their files.
    """
    files, truth = source_files(config), config.truth
    by_name = truth and truth.kind == "masks" and not truth.column
    named = truth_files(config) if by_name else []
    if config.source.kind == "folder":
        return content(config, [], listed=files, named=named)
    if config.source.kind == "nih":
        files += [str(Path(files[0]).with_name(name)) for name in _LISTS]
    return content(config, files, named=named)


def original_files(config: Config) -> list[str]:
    """The files that the conversion of a source depends on; none if it is not converted."""
    source = config.source
    if source.kind not in CONVERTED:
        return []
    if source.kind == "msd":
        return _below(config.data_root, f"{source.own.folder}/dataset.json")
    key = {"patches": "table", "dicom": "labels", "jsrt": "images"}[source.kind]
    return _below(config.data_root, getattr(source.own, key))


def original_content(config: Config) -> str:
    """Checksum of what the conversion of a source reads: of images names and sizes only."""
    kind, options, root = config.source.kind, config.source.own, config.data_root
    if kind not in CONVERTED:
        return content(config, [])
    if kind == "msd":
        names = [f"{options.folder}/dataset.json", f"{options.folder}/labelsTr"]
        images = f"{options.folder}/imagesTr"
    else:
        given = [getattr(options, key, None) for key in ("table", "masks", "labels", "key")]
        names = [name for name in given if name]
        images = options.folder if kind == "dicom" else options.images
    return content(config, _below(root, *names), listed=_below(root, images))


def task_files(config: Config, task: str) -> list[str]:
    """The table of a task, or its folder of images without one, and its masks."""
    options = config.tasks[task]
    return _below(data_root(config), options.table or options.images, options.masks)


def task_content(config: Config, task: str) -> str:
    """Checksum of what a task is read from; of images without a table names and sizes only."""
    options, files = config.tasks[task], task_files(config, task)
    listed = [] if options.table else files[:1]
    mine = content(config, files[len(listed) :], listed=listed)
    inherits = options.valid is None and options.test is None
    return f"{mine} {source_content(config)}" if inherits else mine


def truth_files(config: Config) -> list[str]:
    """The files of the true masks, or their folder."""
    truth = config.truth
    names = [*truth.files, truth.file, truth.folder] if truth else []
    return _below(data_root(config), *filter(None, names))


def truth_content(config: Config) -> str:
    """Checksum of the true masks."""
    return content(config, truth_files(config))


def weights_content(config: Config, start: Start) -> str:
    """Checksum of a start that is a file of the user's; of none where it is not."""
    own = start is not None and not weight_names.parse(*start)
    return content(config, [str(Path(config.weights_root) / start[0])] if start and own else [])


def content(
    config: Config, files: Sequence[str], listed: Sequence[str] = (), named: Sequence[str] = ()
) -> str:
    """Checksum of files of the user's, for ``params``: as :func:`dollmaker.store.sums.content`.

    What the workflow makes itself (generated or converted sources) has rules of its own and is
    left out.
    """
    own = f"results/{config.dataset}"

    def others(names: Sequence[str]) -> list[str]:
        return [name for name in names if not Path(name).is_relative_to(own)]

    return checksums.content(others(files), others(listed), others(named))


def _below(root: str, *names: str) -> list[str]:
    return [f"{root.rstrip('/')}/{name}" for name in names]
