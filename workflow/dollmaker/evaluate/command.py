"""``dollmaker evaluate``: a release against somebody's truth, or (the rule) all of a run."""

import argparse
from pathlib import Path
from typing import Any

#: Options of the rule, all of them needed: what a user of a release has no use for.
_STAGE: dict[str, dict[str, Any]] = {
    "config": {"help": "configuration file or inline JSON"},
    "index": {"type": Path, "help": "index.parquet"},
    "images": {"type": Path, "help": "folder of the image shards"},
    "data-root": {"type": Path, "help": "folder of the source"},
    "committee": {"type": Path, "nargs": "+", "help": "member folders"},
    "relevance": {"type": Path, "help": "folder of all recipes' maps"},
    "masks": {"type": Path, "help": "folder of all recipes' masks"},
    "output": {"type": Path, "help": "folder to write"},
}


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """Declare the options of both forms."""
    parser.usage = (
        "dollmaker evaluate RELEASE --truth FILE_OR_FOLDER [--classes ...] [--json FILE]\n"
        f"       dollmaker evaluate {' '.join(f'--{key} ...' for key in _STAGE)} [--tasks ...]"
    )
    parser.set_defaults(refuse=parser.error)
    group = parser.add_argument_group("a release against your truth")
    group.add_argument("release", type=Path, nargs="?", help="folder of the release")
    group.add_argument(
        "--truth",
        type=Path,
        help="CheXlocalize's JSON, NIH's CSV of boxes, or a folder of pictures: "
        "{finding}/{image}.png, or {image}.png with --classes",
    )
    group.add_argument(
        "--classes",
        nargs="+",
        default=[],
        metavar="FINDING=VALUES",
        help="pixel values of a finding in files with classes, e.g. Edema=1 'Lung Lesion=2,3'",
    )
    group.add_argument(
        "--space",
        type=int,
        default=1024,
        help="side of the pictures that boxes were drawn on (1024); 0: the images themselves",
    )
    group.add_argument(
        "--missing",
        choices=("unknown", "empty"),
        default="unknown",
        help="what an image is that the truth has no entry of: left out (unknown), or without "
        "the finding (empty), so that a mask there is a false alarm",
    )
    group.add_argument("--bootstrap", type=int, default=1000, help="replicates (1000)")
    group.add_argument(
        "--min-pairs",
        type=int,
        default=10,
        help="pairs with truth that each finding needs for a mean over findings (10); else the "
        "mean is over all pairs",
    )
    group.add_argument("--json", type=Path, help="write the numbers to this file")
    stage = parser.add_argument_group("all of a run (called by the workflow)")
    for key, options in _STAGE.items():
        stage.add_argument(f"--{key}", **options)
    stage.add_argument(
        "--tasks", type=Path, nargs="*", default=[], help="folders tasks/{task}/{init}-{tuning}"
    )


def run(name: str, arguments: argparse.Namespace) -> None:
    """Run the form that the arguments ask for."""
    given = [key for key in _STAGE if getattr(arguments, key.replace("-", "_")) is not None]
    if arguments.release is None:
        missing = [f"--{key}" for key in _STAGE if key not in given]
        if missing:
            arguments.refuse(f"give a RELEASE and --truth, or {', '.join(missing)} as well")
        _run_stage(arguments)
        return
    if arguments.space < 0:
        arguments.refuse("--space is a side in pixels; give 1 or more, or 0 for the images' own")
    if arguments.truth is None:
        arguments.refuse("give --truth, the true masks that the release is scored against")
    if given:
        arguments.refuse(f"a release is scored by its truth alone; leave out --{given[0]}")
    _score_release(arguments)


def _run_stage(arguments: argparse.Namespace) -> None:
    from dollmaker.config import settings as config
    from dollmaker.evaluate.stage import evaluate

    evaluate(
        config.load(arguments.config),
        index_file=arguments.index,
        images=arguments.images,
        data_root=arguments.data_root,
        committee=arguments.committee,
        relevance=arguments.relevance,
        masks=arguments.masks,
        tasks=arguments.tasks,
        output=arguments.output,
    )


def _score_release(arguments: argparse.Namespace) -> None:
    from dollmaker.evaluate.folders import open_truth
    from dollmaker.evaluate.release import describe, score_release
    from dollmaker.release.read import read_release
    from dollmaker.store.files import write_json

    findings = read_release(arguments.release).findings
    classes = _classes(arguments.classes, findings)
    space = arguments.space or None
    truth = open_truth(arguments.truth, findings, classes, space, arguments.missing)
    result = score_release(
        arguments.release,
        truth,
        replicates=arguments.bootstrap,
        min_pairs=arguments.min_pairs,
        seed=0,
    )
    print(describe(result))
    if arguments.json:
        write_json(arguments.json, result)


def _classes(words: list[str], findings: list[str]) -> dict[str, list[int]]:
    """``Edema=1`` and the like."""
    from dollmaker.runtime.errors import ConfigError, unknown

    classes = {}
    for word in words:
        finding, _, values = word.rpartition("=")
        if not finding:
            raise ConfigError(
                f"--classes {word!r} is not FINDING=VALUES; give e.g. {word.strip('=')}=1."
            )
        if finding not in findings:
            raise ConfigError(unknown("finding", finding, findings))
        if finding in classes:
            raise ConfigError(
                f"--classes names {finding!r} twice; give its values at once, e.g. {finding}=1,2."
            )
        try:
            classes[finding] = [int(value) for value in values.split(",")]
        except ValueError:
            raise ConfigError(
                f"--classes {word!r} is not FINDING=VALUES; give whole numbers, e.g. {finding}=1,2."
            ) from None
    return classes
