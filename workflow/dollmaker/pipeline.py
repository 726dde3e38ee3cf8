"""What the Snakefiles need to know: the configuration, and what follows from it.

Pure look-ups, so that rules only wire files together.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from dollmaker import catalogue
from dollmaker import config as configuration
from dollmaker.errors import ConfigError
from dollmaker.files import sha256_file
from dollmaker.prepare.convert import CONVERTED
from dollmaker.prepare.nih import table_file
from dollmaker.provenance import STAGES
from dollmaker.study import plan

Config = dict[str, Any]

#: Cores that the embedded rules plan for; profiles set threads for larger machines.
_CORES = 2

#: Stage -> sections its command reads. A change of any of them reruns the stage.
_SECTIONS = {
    "prepare": ("prepare", "truth"),
    "classify": ("seed", "device", "prepare", "classify"),
    "attribute": ("seed", "device", "prepare", "attribute", "recipes"),
    "sample": ("seed", "device", "prepare", "attribute", "sample", "recipes"),
    "binarize": ("recipes",),
    "sanity": ("recipes",),
    "compare": (
        "seed",
        "device",
        "prepare",
        "classify",
        "attribute",
        "recipes",
        "truth",
        "evaluate",
        "compare",
    ),
    "labels": ("seed", "prepare", "classify", "attribute", "sample", "recipes"),
    "release": (
        "seed",
        "prepare",
        "classify",
        "attribute",
        "sample",
        "recipes",
        "truth",
        "release",
    ),
    "segment": ("seed", "device", "prepare", "classify", "attribute", "segment"),
    "explain": ("seed", "device", "explain"),
    "adapt": (
        "seed",
        "device",
        "prepare",
        "truth",
        "classify",
        "attribute",
        "segment",
        "tasks",
        "adapt",
    ),
    "study": (
        "seed",
        "prepare",
        "classify",
        "attribute",
        "segment",
        "tasks",
        "adapt",
        "evaluate",
        "study",
    ),
    "evaluate": (
        "seed",
        "prepare",
        "classify",
        "attribute",
        "recipes",
        "truth",
        "tasks",
        "adapt",
        "evaluate",
    ),
}

#: What a stage reads of the section release if not all of it and more than the recipe's name.
_OF_RELEASE = {"labels": ("recipe", "relevance", "allow_failed_sanity")}


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
    """The sections that a stage reads, as inline JSON; of the release only its recipe's name."""
    if "recipes" not in _SECTIONS[stage]:
        return configuration.sections(config, _SECTIONS[stage])
    if "release" not in _SECTIONS[stage]:
        keys = _OF_RELEASE.get(stage, ("recipe",))
        config = {**config, "release": {key: config["release"][key] for key in keys}}
    return configuration.sections(config, (*_SECTIONS[stage], "release"))


def convert_config(config: Config) -> str:
    """What the conversion of a source reads, as inline JSON: of prepare a few keys only."""
    keys = ("valid", "test", "max_quarantined", "max_pixels")
    prepare = {key: config["prepare"][key] for key in keys}
    return configuration.sections({**config, "prepare": prepare}, ("seed", "prepare"))


def member_config(config: Config, member: str) -> str:
    """As :func:`stage_config` for classify, with one member only."""
    classify = config["classify"]
    if member not in classify["members"]:
        raise ConfigError(f"no member {member!r} in classify.members.")
    mine = {**classify, "members": {member: classify["members"][member]}}
    return stage_config({**config, "classify": mine}, "classify")


def recipe_config(config: Config, stage: str, recipe: str) -> str:
    """As :func:`stage_config` for attribute and binarize, with one recipe only."""
    mine = config["recipes"][recipe]
    if stage in ("attribute", "sample"):
        mine = {"attribute": mine["attribute"], "binarize": [{"otsu": {}}]}
    else:
        mine = {"attribute": {}, "binarize": mine["binarize"]}
    return stage_config({**config, "recipes": {recipe: mine}, "release": {"recipe": recipe}}, stage)


def task_config(config: Config, task: str) -> str:
    """As :func:`stage_config` for adapt, with one task only."""
    return stage_config({**config, "tasks": {task: config["tasks"][task]}}, "adapt")


def study_runs(config: Config) -> list[str]:
    """Folders of the study's fine-tunings: architecture/task/init-tuning."""
    return plan.runs(config)


def study_segmenter(config: Config, architecture: str, start: str) -> list[str]:
    """The segmenter of a start of the study, if it is a pre-training."""
    if not plan.pretrained(config, start):
        return []
    name = plan.segmenter(config, architecture, start)
    return [f"results/{config['dataset']}/study/{architecture}/segmenter/{name}"]


def study_pretraining(config: Config, architecture: str, pretraining: str) -> str:
    """As :func:`stage_config` for segment, with the network and objectives of a pre-training."""
    return stage_config(plan.pretraining_config(config, architecture, pretraining), "segment")


def study_run(config: Config, architecture: str, task: str, start: str, tuning: str) -> str:
    """As :func:`stage_config` for adapt, of one fine-tuning of the study."""
    return stage_config(plan.run_config(config, architecture, task, start, tuning), "adapt")


def study_tunings(config: Config) -> list[str]:
    """Names of the study's tunings."""
    return list(plan.tunings(config))


def study_tuning(config: Config, tuning: str) -> str:
    """What a tuning of the study trains."""
    return str(plan.tunings(config)[tuning]["tuning"])


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


def explainers(config: Config) -> list[str]:
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


def explained_recipes(config: Config) -> list[str]:
    """Recipes with maps of their own."""
    return [
        name for name in recipes(config) if configuration.relevance_recipe(config, name) == name
    ]


def explained(config: Config) -> list[str]:
    """The segmenter's explanations, if the report shall show them."""
    return [f"results/{config['dataset']}/explained"] if config["report"]["explained"] else []


def tuned(config: Config) -> list[str]:
    """Folders of all fine-tunings: task/init-tuning."""
    runs = [run.replace("/", "-") for run in config["adapt"]["runs"]]
    return [f"{task}/{run}" for task in config["tasks"] for run in runs]


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
        return [str(table_file(config, Path(root)))]
    if source["kind"] == "chexpert":
        folder = (source.get("chexpert") or {}).get("folder", "CheXpert-v1.0-small")
        return [f"{root.rstrip('/')}/{folder}/{name}.csv" for name in ("train", "valid")]
    return [f"{root.rstrip('/')}/{source['table']['file']}"]


def original_files(config: Config) -> list[str]:
    """The files that the conversion of a source depends on; none if it is not converted."""
    source = config["source"]
    root = str(config["data_root"]).rstrip("/")
    if source["kind"] == "patches":
        return [f"{root}/{source['patches']['table']}"]
    if source["kind"] == "msd":
        return [f"{root}/{source['msd']['folder']}/dataset.json"]
    return [f"{root}/{source['jsrt']['images']}"] if source["kind"] == "jsrt" else []


def content(config: Config, files: Sequence[str]) -> str:
    """Checksum of files of the user's, for ``params``: their times do not matter, their bytes do.

    Of a folder the names and sizes of all files in it count. What the workflow makes itself
    (generated or converted sources) has rules of its own and is left out.

    Args:
        config: The resolved configuration.
        files: Files or folders, as :func:`source_files` and the like give them.
    """
    own = f"results/{config['dataset']}"
    return _content(tuple(file for file in files if not Path(file).is_relative_to(own)))


@lru_cache
def _content(files: tuple[str, ...]) -> str:
    """The same for any files; once a process, as every fine-tuning of a task asks for it."""
    digest = hashlib.sha256()
    for path in map(Path, files):
        if path.is_dir():
            for name, size in sorted(_list_sizes(path)):
                digest.update(f"{name} {size}\n".encode())
        elif path.is_file():
            digest.update(sha256_file(path).encode())
    return digest.hexdigest()[:16]


def _list_sizes(folder: Path) -> Iterator[tuple[str, int]]:
    """Files below a folder, relative to it, and their sizes; links to folders are followed once."""
    seen = set()
    for place, names, files in os.walk(folder, followlinks=True):
        seen.add(Path(place).resolve())
        names[:] = [name for name in names if Path(place, name).resolve() not in seen]
        for name in files:
            path = Path(place, name)
            if path.is_file():  # no broken link
                yield path.relative_to(folder).as_posix(), path.stat().st_size


def task_files(config: Config, task: str) -> list[str]:
    """The table of a task, or its folder of images without one, and its masks."""
    options = config["tasks"][task]
    names = [options["table"] or options["images"], options["masks"]]
    return [f"{data_root(config).rstrip('/')}/{name}" for name in names]


def truth_files(config: Config) -> list[str]:
    """The files of the true masks; masks that are files are listed in the source's table."""
    truth = config["truth"] or {}
    names = [*truth.get("files", ()), truth.get("file")]
    return [f"{data_root(config).rstrip('/')}/{name}" for name in names if name]


def share_of_cores(jobs: int) -> int:
    """Threads of each of so many jobs that run side by side."""
    return max(1, _CORES // max(1, jobs))


def relevance_shard(config: Config, dataset: str, recipe: str, shard: str) -> str:
    """The relevance shard that a mask shard is made from."""
    donor = configuration.relevance_recipe(config, recipe)
    return f"results/{dataset}/relevance/{donor}/{shard}.h5"


def released_maps(config: Config) -> list[str]:
    """The relevance shards of the released recipe, if maps are released."""
    if not config["release"]["relevance"]:
        return []
    dataset, recipe = config["dataset"], config["release"]["recipe"]
    return [relevance_shard(config, dataset, recipe, shard) for shard in shards(config)]


def report_config(config: Config) -> str:
    """The whole configuration as inline JSON: the report shows it."""
    return configuration.sections(config, config)
