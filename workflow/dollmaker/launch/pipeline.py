"""What the Snakefiles need to know: the configuration, and what follows from it.

Pure look-ups, so that rules only wire files together.
"""

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dollmaker.config import catalogue, reads, weight_names
from dollmaker.config import settings as configuration
from dollmaker.config.sources import NihConfig
from dollmaker.fetch.weight_files import Start
from dollmaker.prepare.convert import CONVERTED
from dollmaker.prepare.nih import table_file
from dollmaker.runtime.errors import ConfigError
from dollmaker.store import contents
from dollmaker.store.files import inside, write_json
from dollmaker.store.provenance import STAGES
from dollmaker.study import grid

Config = dict[str, Any]

#: ChestX-ray14's official lists, beside its table.
_LISTS = ("train_val_list.txt", "test_list.txt")

#: Cores that are planned for where their number is not known: on a cluster, whose profile says
#: the threads of each rule.
_CORES = 2


def configure(given: Mapping[str, Any], default: Path, files: Iterable[Path] = ()) -> Config:
    """The resolved configuration of a run.

    A configuration file replaces the embedded default as a whole; without one (only ``--config``
    values, which have no ``dataset``), the values are laid over the embedded default.

    Args:
        given: What Snakemake collected from --configfile and --config.
        default: The embedded default, config.yaml.
        files: The configuration files, of which Snakemake hides a key that is there twice.

    Raises:
        ConfigError: With the first mistake, in one sentence.
    """
    for file in files:
        configuration.read(str(file))
    values = dict(given)
    if "source" not in values:
        values = {**configuration.read(str(default)), **values}
    return configuration.resolve(values)


def stage_config(config: Config, stage: str) -> str:
    """What a stage reads of the configuration (:mod:`dollmaker.config.reads`), as inline JSON."""
    mine = reads.part(config, stage)
    always = ("dataset", "source", "allow_links")
    common = {key: config[key] for key in always if key in config}
    return configuration.sections({**common, **mine}, mine)


def settings_file(dataset: str, stage: str, text: str, make: bool) -> str:
    """The file with what a job reads of the configuration, an input of its rule.

    Its name has the checksum of its content, so that it is never written again: what another call
    of Snakemake asks for meanwhile has another name, and changes nothing under running jobs.

    Args:
        dataset: Name of the data set.
        stage: The stage, first part of the name.
        text: The settings as JSON.
        make: Whether to write it if it is not there.
    """
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    path = Path(f"results/{dataset}/config/{stage}-{digest}.json")
    if make and not path.exists():
        write_json(path, json.loads(text))
    return str(path)


def member_config(config: Config, member: str) -> str:
    """As :func:`stage_config` for classify, with one member only."""
    classify = config["classify"]
    if member not in classify["members"]:
        raise ConfigError(f"no member {member!r} in classify.members.")
    mine = {**classify, "members": {member: classify["members"][member]}}
    return stage_config({**config, "classify": mine}, "classify")


def labels_config(config: Config) -> str:
    """As :func:`stage_config` for labels, without the recipes and members that have no part."""
    return stage_config(reads.of_labels(config), "labels")


def recipe_config(config: Config, stage: str, recipe: str) -> str:
    """As :func:`stage_config` for attribute and binarize, with one recipe only."""
    mine = config["recipes"][recipe]
    if stage in ("attribute", "sample"):
        mine = {"attribute": mine["attribute"], "binarize": [{"otsu": {}}]}
    else:
        mine = {"attribute": {}, "binarize": mine["binarize"]}
    return stage_config({**config, "recipes": {recipe: mine}, "release": {"recipe": recipe}}, stage)


def task_config(config: Config, task: str) -> str:
    """As :func:`stage_config` for adapt, with one task only; what else runs is not its matter."""
    return _run_config(config, task)


def _run_config(config: Config, task: str) -> str:
    adapt = {key: value for key, value in config["adapt"].items() if key != "runs"}
    mine = {**config, "tasks": {task: config["tasks"][task]}, "adapt": adapt}
    return stage_config(mine, "adapt")


def study_runs(config: Config) -> list[str]:
    """Folders of the study's fine-tunings: architecture/task/init-tuning."""
    return grid.runs(config)


def study_segmenter(config: Config, architecture: str, start: str) -> list[str]:
    """The segmenter of a start of the study, if it is a pre-training."""
    if not grid.pretrained(config, start):
        return []
    name = grid.segmenter(config, architecture, start)
    return [f"results/{config['dataset']}/study/{architecture}/segmenter/{name}"]


def study_pretraining(config: Config, architecture: str, pretraining: str) -> str:
    """As :func:`stage_config` for segment, with the network and objectives of a pre-training."""
    return stage_config(grid.pretraining_config(config, architecture, pretraining), "segment")


def study_start(config: Config, architecture: str, pretraining: str) -> list[str]:
    """As :func:`start_members`, of a pre-training of the study."""
    return start_members(grid.pretraining_config(config, architecture, pretraining))


def study_run(config: Config, architecture: str, task: str, start: str, tuning: str) -> str:
    """As :func:`stage_config` for adapt, of one fine-tuning of the study."""
    return _run_config(grid.run_config(config, architecture, task, start, tuning), task)


def study_tunings(config: Config) -> list[str]:
    """Names of the study's tunings."""
    return list(grid.tunings(config))


def study_tuning(config: Config, tuning: str) -> str:
    """What a tuning of the study trains."""
    return str(grid.tunings(config)[tuning]["tuning"])


def version(stage: str) -> int:
    """Version of a stage's computation, for ``params``."""
    return STAGES[stage]


def shards(config: Config) -> list[str]:
    """Names of the shards."""
    return [f"{number:04d}" for number in range(config["prepare"]["shards"])]


def members(config: Config) -> list[str]:
    """Names of all members."""
    return list(config["classify"]["members"])


def committee(config: Config, recipe: str) -> list[str]:
    """Folders of the members that explain a recipe's maps."""
    names = catalogue.committee(config, recipe)
    return [f"results/{config['dataset']}/committee/{name}" for name in names]


def start_members(config: Config) -> list[str]:
    """Folder of the member that the segmenter's encoder starts from, if it starts from one."""
    init = config["segment"]["init"]
    names = [init] if init in config["classify"]["members"] else []
    return [f"results/{config['dataset']}/committee/{name}" for name in names]


def explaining_members(config: Config) -> list[str]:
    """Members that explain for some recipe."""
    found = [name for recipe in recipes(config) for name in catalogue.committee(config, recipe)]
    return list(dict.fromkeys(found))


def compared(config: Config) -> Config:
    """The configuration with all recipes of the comparison."""
    return configuration.complete(config)


def sample(config: Config, recipe: str) -> str:
    """The sample of the maps that a recipe uses."""
    donor = configuration.relevance_recipe(config, recipe)
    return f"results/{config['dataset']}/sample/{donor}.h5"


def thresholds(config: Config, recipe: str) -> list[str]:
    """The table of thresholds chosen without truth, if the recipe asks for it."""
    steps = [name for step in config["recipes"][recipe]["binarize"] for name in step]
    donor = configuration.relevance_recipe(config, recipe)
    table = f"results/{config['dataset']}/thresholds/{donor}.parquet"
    return [table] if "label_free" in steps else []


def recipes(config: Config) -> list[str]:
    """Names of the recipes."""
    return list(config["recipes"])


def recipes_with_maps(config: Config) -> list[str]:
    """Recipes with maps of their own."""
    return [
        name for name in recipes(config) if configuration.relevance_recipe(config, name) == name
    ]


def segmenter_explanations(config: Config) -> list[str]:
    """The segmenter's explanations, if the report shall show them."""
    return [f"results/{config['dataset']}/explained"] if config["report"]["explained"] else []


def tuned(config: Config) -> list[str]:
    """Folders of all fine-tunings: task/init-tuning."""
    runs = [run.replace("/", "-") for run in config["adapt"]["runs"]]
    return [f"{task}/{run}" for task in config["tasks"] for run in runs]


def released_tasks(config: Config) -> list[str]:
    """Folders of the fine-tunings that the release carries."""
    named = dict.fromkeys(config["release"]["models"])
    runs = [name.split("/") for name in named if name != "committee"]
    return [
        f"results/{config['dataset']}/tasks/{task}/{start}-{tuning}" for task, start, tuning in runs
    ]


def released_thresholds(config: Config) -> list[str]:
    """The thresholds of the released recipe, if the release carries its committee."""
    carried = "committee" in config["release"]["models"]
    return thresholds(config, config["release"]["recipe"]) if carried else []


def data_root(config: Config) -> str:
    """Where the source data lie: generated and converted ones under results, else as configured."""
    if config["source"]["kind"] == "phantoms":
        return f"results/{config['dataset']}/phantoms"
    if config["source"]["kind"] in CONVERTED:
        return f"results/{config['dataset']}/source"
    return str(config["data_root"])


def source_files(config: Config) -> list[str]:
    """The files of the source that prepare depends on."""
    source = config["source"]
    root = data_root(config)
    if source["kind"] == "phantoms" or source["kind"] in CONVERTED:
        return [root]
    if source["kind"] == "nih":
        links = config.get("allow_links", False)
        find = partial(inside, Path(root), links=links)
        return [str(table_file(NihConfig(**source["nih"]), find))]
    if source["kind"] == "chexpert":
        folder = (source.get("chexpert") or {}).get("folder", "CheXpert-v1.0-small")
        return [f"{root.rstrip('/')}/{folder}/{name}.csv" for name in ("train", "valid")]
    if source["kind"] == "folder":
        return [f"{root.rstrip('/')}/{source['folder']['root']}"]
    return [f"{root.rstrip('/')}/{source['table']['file']}"]


def original_files(config: Config) -> list[str]:
    """The files that the conversion of a source depends on; none if it is not converted."""
    source = config["source"]
    root = str(config["data_root"]).rstrip("/")
    if source["kind"] == "patches":
        return [f"{root}/{source['patches']['table']}"]
    if source["kind"] == "msd":
        return [f"{root}/{source['msd']['folder']}/dataset.json"]
    if source["kind"] == "dicom":
        return [f"{root}/{source['dicom']['labels']}"]
    return [f"{root}/{source['jsrt']['images']}"] if source["kind"] == "jsrt" else []


def content(
    config: Config, files: Sequence[str], listed: Sequence[str] = (), named: Sequence[str] = ()
) -> str:
    """Checksum of files of the user's, for ``params``: their times do not matter, their bytes do.

    What the workflow makes itself (generated or converted sources) has rules of its own and is
    left out.

    Args:
        config: The resolved configuration.
        files: Files or folders, as :func:`source_files` and the like give them.
        listed: Folders of which the names and sizes of files count.
        named: Folders of which the names of files count.
    """
    own = f"results/{config['dataset']}"

    def others(names: Sequence[str]) -> list[str]:
        return [name for name in names if not Path(name).is_relative_to(own)]

    return contents.content(others(files), others(listed), others(named))


def original_content(config: Config) -> str:
    """Checksum of what the conversion of a source reads: of images names and sizes only."""
    kind = config["source"]["kind"]
    if kind not in CONVERTED:
        return content(config, [])
    options, root = config["source"][kind], str(config["data_root"]).rstrip("/")
    if kind == "msd":
        folder = f"{root}/{options['folder']}"
        files = [f"{folder}/dataset.json", f"{folder}/labelsTr"]
        return content(config, files, listed=[f"{folder}/imagesTr"])
    names = [options[key] for key in ("table", "masks", "labels", "key") if options.get(key)]
    files = [f"{root}/{name}" for name in names]
    images = options["folder" if kind == "dicom" else "images"]
    return content(config, files, listed=[f"{root}/{images}"])


def weights_content(config: Config, start: Start) -> str:
    """Checksum of a start that is a file of the user's; of none where it is not."""
    file = [] if start is None or weight_names.parse(*start) else [start[0]]
    return content(config, [str(Path(config["weights_root"]) / name) for name in file])


def source_content(config: Config) -> str:
    """Checksum of what lists the images: tables, official lists, and names of masks.

    Of class folders it is the names and sizes of their files.
    """
    files, listed = source_files(config), []
    if config["source"]["kind"] == "folder":
        files, listed = [], files
    if config["source"]["kind"] == "nih":
        files = [*files, *(str(Path(files[0]).with_name(name)) for name in _LISTS)]
    truth = config["truth"]
    by_name = truth and truth["kind"] == "masks" and not truth["column"]
    return content(config, files, listed, named=truth_files(config) if by_name else [])


def truth_content(config: Config) -> str:
    """Checksum of the true masks."""
    return content(config, truth_files(config))


def task_content(config: Config, task: str) -> str:
    """Checksum of what a task is read from; of images without a table names and sizes only."""
    options, files = config["tasks"][task], task_files(config, task)
    listed = [] if options["table"] else files[:1]
    mine = content(config, files[len(listed) :], listed=listed)
    inherits = options["valid"] is None and options["test"] is None
    return f"{mine} {source_content(config)}" if inherits else mine


def sums(folders: Iterable[str]) -> list[str]:
    """Files with the checksums of what folders below results/{dataset} hold.

    A folder counts as changed when its sums do, and not when it is newer: of folders Snakemake
    knows the time alone.
    """
    parts = [folder.split("/", 2) for folder in folders]
    return [f"{results}/{name}/sums/{rest}.sha256" for results, name, rest in parts]


def source_sums(config: Config) -> list[str]:
    """The sums of a source that the workflow makes."""
    own = f"results/{config['dataset']}/"
    return sums(file for file in source_files(config) if file.startswith(own))


def task_files(config: Config, task: str) -> list[str]:
    """The table of a task, or its folder of images without one, and its masks."""
    options = config["tasks"][task]
    names = [options["table"] or options["images"], options["masks"]]
    return [f"{data_root(config).rstrip('/')}/{name}" for name in names]


def truth_files(config: Config) -> list[str]:
    """The files of the true masks, or their folder."""
    truth = config["truth"] or {}
    names = [*truth.get("files", ()), truth.get("file"), truth.get("folder")]
    return [f"{data_root(config).rstrip('/')}/{name}" for name in names if name]


def cores(given: int | None) -> int:
    """Cores to plan for.

    Args:
        given: What Snakemake was called with; ``None`` or endless where others share them out.
    """
    return given if given and given < sys.maxsize else _CORES


def share_of_cores(jobs: int, cores: int = _CORES) -> int:
    """Threads of each of so many jobs that run side by side on so many cores."""
    return max(1, cores // max(1, jobs))


def relevance_shard(config: Config, dataset: str, recipe: str, shard: str) -> str:
    """The relevance shard that a mask shard is made from."""
    donor = configuration.relevance_recipe(config, recipe)
    return f"results/{dataset}/relevance/{donor}/{shard}.h5"


def released_maps(config: Config) -> list[str]:
    """The relevance shards of the released recipe, which know the outlines of its masks."""
    dataset, recipe = config["dataset"], config["release"]["recipe"]
    return [relevance_shard(config, dataset, recipe, shard) for shard in shards(config)]


def report_config(config: Config) -> str:
    """The whole configuration as inline JSON: the report shows it."""
    return configuration.sections(config, config)
