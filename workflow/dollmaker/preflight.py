"""Before the first job: refuse at once what would stop the run hours later."""

from pathlib import Path
from typing import Any

from dollmaker import catalogue
from dollmaker.errors import ConfigError, DataError, ModelError
from dollmaker.files import inside
from dollmaker.findings import CHEXPERT
from dollmaker.prepare.convert import CONVERTED, converted_findings, list_items
from dollmaker.prepare.nih import NIH, table_file
from dollmaker.prepare.sources import check_findings, make_plan
from dollmaker.study import plan

Config = dict[str, Any]


def preflight(config: Config) -> None:
    """Refuse at once what would stop the run hours later.

    Raises:
        DataError: If the data folder or a table is missing or not as described.
        ConfigError: If a configured finding or step does not exist.
        ModelError: If a weights file is missing.
    """
    root = Path(config["data_root"])
    if config["source"]["kind"] != "phantoms" and not root.is_dir():
        raise DataError(f"data folder {root} does not exist; set data_root to an existing folder.")
    truth = config["truth"]
    if config["attribute"]["with_truth"] and (truth is None or truth["kind"] != "masks"):
        raise ConfigError(
            "attribute.with_truth needs true masks as files; set truth.kind to masks or remove it."
        )
    files = {m["weights"] for m in config["classify"]["members"].values()}
    starts = [run.split("/")[0] for run in config["adapt"]["runs"]]
    if config["tasks"] and "imagenet" in [*starts, *config["study"]["inits"]]:
        files.add(config["adapt"]["imagenet"])
    plan.check(config)
    _check_init(config)
    for name in sorted(file for file in files if file):
        path = Path(config["weights_root"]) / name
        if not path.is_file():
            raise ModelError(
                f"weights file {path} does not exist; correct weights_root or the file's name."
            )
    check_findings(_findings(config, root), config)
    _check_masks(config, root)
    from dollmaker.binarize.steps import check_order, make_chain

    for name, recipe in config["recipes"].items():
        catalogue.committee(config, name)
        make_chain(recipe["binarize"])
        check_order([step for entry in recipe["binarize"] for step in entry])
    if config["device"] == "cuda":
        from dollmaker import devices

        devices.uses_gpu("cuda")  # which one, each job chooses


def _check_init(config: Config) -> None:
    """The start of the segmenter's encoder is a member or a file."""
    init, members = config["segment"]["init"], config["classify"]["members"]
    path = Path(config["weights_root"]) / init
    if init != "random" and init not in members and not path.is_file():
        raise ModelError(
            f"segment.init is {init!r}, which is no committee member, and weights file {path} does "
            f"not exist; use random, {', '.join(members)}, or a file under weights_root."
        )


def _check_masks(config: Config, root: Path) -> None:
    """True masks that are the user's are there; generated and converted ones are made later."""
    if config["source"]["kind"] in ("phantoms", *CONVERTED):
        return
    truth = config["truth"] or {}
    named = [("truth.files", file) for file in truth.get("files", ())]
    named += [(f"truth.{key}", truth[key]) for key in ("file", "folder") if truth.get(key)]
    for task, options in config["tasks"].items():
        keys = [key for key in ("table", "images", "masks") if options[key]]
        named += [(f"tasks.{task}.{key}", options[key]) for key in keys]
    for key, name in named:
        if not inside(root, name).exists():
            raise DataError(f"{root / name} does not exist; correct {key} or data_root.")


def _findings(config: Config, root: Path) -> list[str]:
    """The findings of the source; of a table, after a look at all its rows."""
    kind = config["source"]["kind"]
    if kind in CONVERTED:
        list_items(config, root)  # the original is there and as described; nothing is converted
        return converted_findings(config)
    if kind == "nih":
        table_file(config, root)
        return list(NIH)
    return make_plan(config, root)[1] if kind == "table" else list(CHEXPERT)
