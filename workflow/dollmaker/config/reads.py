"""What each stage reads: of the configuration, and of the user's files.

This is the one declaration. The files of settings (:mod:`dollmaker.launch.pipeline`), the
settings that the labels name as their origin, and the table in docs/reference/contracts.md follow
from it: a stage gets what stands here and nothing else, and runs again when that changes.
"""

from dataclasses import dataclass

from dollmaker.config import catalogue
from dollmaker.config.base import Tree
from dollmaker.config.whole import Config


@dataclass(frozen=True, kw_only=True)
class Reads:
    """What a stage reads.

    Attributes:
        rules: The rules that run it.
        keys: Keys of the configuration, a whole section or ``section.key``. What every command
            gets (``dataset``, ``source`` and ``allow_links``) is left out.
        files: Files of the user's, keys of :data:`FILES`.
    """

    rules: tuple[str, ...]
    keys: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


#: Kinds of files of the user's -> what of them counts.
FILES = {
    "original": "of sources that are converted: tables and masks, the key of DICOM's names; of "
    "images names and sizes",
    "source": "the source's tables, ChestX-ray14's lists; names and sizes in class folders; names "
    "in `truth.folder` without a column",
    "weights": "the weights file that training starts from; one that is named is an input",
    "task": "the task's table and masks; of images without a table names and sizes",
    "truth": "all true masks",
}

#: What says which images have a true mask: the listing needs no more of the truth.
_WHICH_TRUE = ("truth.kind", "truth.folder", "truth.column")

#: Stage -> what it reads, in the order the data flow.
READS: dict[str, Reads] = {
    "convert": Reads(
        rules=("convert_source",),
        keys=(
            "seed",
            *(f"prepare.{k}" for k in ("channels", "bits", "valid", "test")),
            *(f"prepare.{k}" for k in ("max_quarantined", "max_pixels")),
        ),
        files=("original",),
    ),
    "list": Reads(
        rules=("list_images",),
        keys=(
            *(f"prepare.{key}" for key in ("shards", "valid", "test", "hold_out_truth")),
            *_WHICH_TRUE,
        ),
        files=("source",),
    ),
    "decode": Reads(
        rules=("decode_images",),
        keys=tuple(f"prepare.{k}" for k in ("size", "channels", "bits", "fit", "max_pixels")),
    ),
    # Its header says how the images were made.
    "index": Reads(rules=("build_index",), keys=("prepare",)),
    "audit": Reads(rules=("audit_images",), keys=("seed", "prepare.fit", "classify.blank")),
    "classify": Reads(
        rules=("train_member",),
        keys=("seed", "device", "prepare.size", "prepare.channels", "prepare.fit", "classify"),
        files=("weights",),
    ),
    "attribute": Reads(
        rules=("explain_images",),
        keys=(
            *("seed", "device", "prepare.size", "prepare.fit"),
            *("attribute", "recipes", "release.recipe"),
        ),
    ),
    "sample": Reads(
        rules=("explain_sample",),
        keys=(
            *("seed", "device", "prepare.size", "prepare.fit"),
            *("sample", "recipes", "release.recipe"),
            *(f"attribute.{key}" for key in ("findings", "precision", "chunk")),
        ),
    ),
    "binarize": Reads(rules=("make_masks",), keys=("prepare.fit", "recipes", "release.recipe")),
    "sanity": Reads(rules=("check_recipe",), keys=("prepare.fit", "recipes", "release.recipe")),
    "labels": Reads(
        rules=("collect_labels",),
        keys=(
            *("seed", "prepare", "classify", "attribute", "sample", "recipes"),
            *(f"release.{key}" for key in ("recipe", "relevance", "allow_failed_sanity")),
        ),
    ),
    "segment": Reads(
        rules=("pretrain_segmenter", "pretrain_variant"),
        keys=(
            *("seed", "device", "prepare.size", "prepare.channels", "prepare.fit"),
            *("classify.blank", "attribute.findings", "segment"),
        ),
        files=("weights",),
    ),
    "explain": Reads(
        rules=("explain_segmenter",), keys=("seed", "device", "prepare.fit", "explain")
    ),
    "adapt": Reads(
        rules=("adapt_segmenter", "adapt_variant"),
        keys=(
            *("seed", "device", "prepare", *_WHICH_TRUE),
            *(f"segment.{key}" for key in ("architecture", "encoder", "arguments")),
            *("tasks", "adapt"),
        ),
        files=("task", "source", "weights"),
    ),
    "evaluate": Reads(
        rules=("evaluate",),
        keys=(
            *("seed", "prepare", "classify", "attribute", "recipes", "release.recipe"),
            *("truth", "evaluate"),
        ),
        files=("truth",),
    ),
    "release": Reads(
        rules=("build_release",),
        keys=(
            *("seed", "prepare", "classify", "attribute", "sample", "recipes", "truth"),
            *("release", "evaluate.confidence", "evaluate.min_probability"),
        ),
    ),
    "study": Reads(
        rules=("gather_study",),
        keys=("seed", "segment", "tasks", "adapt", "evaluate", "study"),
    ),
    "compare": Reads(
        rules=("compare_recipes",),
        keys=(
            *("seed", "device", "prepare", "classify", "attribute", "recipes", "release.recipe"),
            *("truth", "evaluate", "compare"),
        ),
        files=("truth",),
    ),
}

#: Makes a part of section truth complete, where no more of it is read.
_STAND_INS = {"folder": "masks", "column": None, "targets": {"mask": [1]}}


def part(config: Tree, stage: str) -> Tree:
    """What a stage reads of a resolved configuration, a configuration itself."""
    chosen: Tree = {}
    for key in READS[stage].keys:
        section, _, name = key.partition(".")
        if not name:
            chosen[section] = config[section]
        elif section != "truth":
            chosen.setdefault(section, {})[name] = config[section][name]
        else:
            chosen["truth"] = _which_true(config["truth"])
    return chosen


def _which_true(truth: Tree | None) -> Tree | None:
    """The part of section truth that says which images have a mask; the rest serves scores only.

    A folder counts only where masks are called as their images.
    """
    if truth is None or truth["kind"] != "masks":
        return None
    keys = ("kind", "column") if truth["column"] else ("kind", "column", "folder")
    return {**_STAND_INS, **{key: truth[key] for key in keys}}


def of_labels(config: Config) -> Config:
    """The configuration of the released masks: their recipe and members alone."""
    recipe, classify = config.release.recipe, config.classify
    recipes = {n: r for n, r in config.recipes.items() if n in (recipe, config.donor(recipe))}
    members = {name: classify.members[name] for name in catalogue.committee(config, recipe)}
    return config.replace(recipes=recipes, classify=classify.replace(members=members))


def table() -> str:
    """The declaration as a table in Markdown, for docs/reference/contracts.md."""
    lines = ["| rule | configuration | files of the user's |", "|---|---|---|"]
    for reads in READS.values():
        rules = ", ".join(f"`{rule}`" for rule in reads.rules)
        keys = ", ".join(f"`{key}`" for key in reads.keys)
        lines.append(f"| {rules} | {keys} | {', '.join(reads.files)} |")
    return "\n".join(lines) + "\n"
