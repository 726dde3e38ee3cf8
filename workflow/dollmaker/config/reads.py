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
    """What a stage reads."""

    rules: tuple[str, ...]  #: The rules that run it.
    #: Keys of the configuration, a whole section or ``section.key``. What every command gets
    #: (``dataset``, ``source`` and ``allow_links``) is left out.
    keys: tuple[str, ...]
    files: tuple[str, ...]  #: Files of the user's, keys of :data:`FILES`.


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


def _reads(rules: str, keys: str = "", files: str = "") -> Reads:
    """Words of each, parted by blanks."""
    return Reads(rules=tuple(rules.split()), keys=tuple(keys.split()), files=tuple(files.split()))


#: What says which images have a true mask: the listing needs no more of the truth.
_WHICH_TRUE = "truth.kind truth.folder truth.column"

#: Stage -> what it reads, in the order the data flow.
READS: dict[str, Reads] = {
    "convert": _reads(
        "convert_source",
        "seed prepare.channels prepare.bits prepare.valid prepare.test prepare.max_quarantined "
        "prepare.max_pixels",
        "original",
    ),
    "list": _reads(
        "list_images",
        f"prepare.shards prepare.valid prepare.test prepare.hold_out_truth {_WHICH_TRUE}",
        "source",
    ),
    "decode": _reads(
        "decode_images", "prepare.size prepare.channels prepare.bits prepare.fit prepare.max_pixels"
    ),
    "index": _reads("build_index", "prepare"),  # its header says how the images were made
    "audit": _reads("audit_images", "seed prepare.fit classify.blank"),
    "classify": _reads(
        "train_member", "seed device prepare.size prepare.channels prepare.fit classify", "weights"
    ),
    "attribute": _reads(
        "explain_images", "seed device prepare.size prepare.fit attribute recipes release.recipe"
    ),
    "sample": _reads(
        "explain_sample",
        "seed device prepare.size prepare.fit sample recipes release.recipe attribute.findings "
        "attribute.precision attribute.chunk",
    ),
    "binarize": _reads("make_masks", "prepare.fit recipes release.recipe"),
    "sanity": _reads("check_recipe", "prepare.fit recipes release.recipe"),
    "labels": _reads(
        "collect_labels",
        "seed prepare classify attribute sample recipes release.recipe release.relevance "
        "release.allow_failed_sanity",
    ),
    "segment": _reads(
        "pretrain_segmenter pretrain_variant",
        "seed device prepare.size prepare.channels prepare.fit classify.blank attribute.findings "
        "segment",
        "weights",
    ),
    "explain": _reads("explain_segmenter", "seed device prepare.fit explain"),
    "adapt": _reads(
        "adapt_segmenter adapt_variant",
        f"seed device prepare {_WHICH_TRUE} segment.architecture segment.encoder "
        "segment.arguments tasks adapt",
        "task source weights",
    ),
    "evaluate": _reads(
        "evaluate", "seed prepare classify attribute recipes release.recipe truth evaluate", "truth"
    ),
    "release": _reads(
        "build_release",
        "seed prepare classify attribute sample recipes truth release evaluate.confidence "
        "evaluate.min_probability",
    ),
    "study": _reads("gather_study", "seed segment tasks adapt evaluate study"),
    "compare": _reads(
        "compare_recipes",
        "seed device prepare classify attribute recipes release.recipe truth evaluate compare",
        "truth",
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
    keys = ("kind", "column") if truth.get("column") else ("kind", "folder")
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
