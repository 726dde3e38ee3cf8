"""Making labels and releases, and what a stranger does: verify, stats, show, diff, export."""

import argparse
import os
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """Declare the options of one of the commands."""
    if name == "diff":
        parser.add_argument("old", type=Path, help="folder of the older release")
        parser.add_argument("new", type=Path, help="folder of the newer release")
        parser.add_argument("--json", type=Path, help="write the numbers to this file")
        return
    if name not in ("labels", "release"):
        parser.add_argument("release", type=Path, help="folder of the release")
    if name == "show":
        parser.add_argument("image_id", help="image_id of the release's tables")
    if name == "export":
        parser.add_argument("--to", required=True, help="png, chexlocalize, coco, yolo or nnunet")
    if name in ("verify", "show", "export"):
        parser.add_argument("--images", type=Path, help="root of your copy of the source images")
    if name == "stats":
        parser.add_argument(
            "--json", type=Path, help="write the numbers and image ids to this file"
        )
    if name == "verify":
        parser.add_argument("--key", type=Path, help="public key (.pub) of who signed the release")
    if name in ("show", "export"):
        what = "PNG file to write" if name == "show" else "folder to make"
        parser.add_argument("--output", type=Path, required=True, help=what)
    if name in ("labels", "release"):
        _add_stage(parser, name)


def _add_stage(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument("--config", required=True, help="configuration file or inline JSON")
    parser.add_argument("--index", type=Path, required=True, help="index.parquet")
    if name == "labels":
        parser.add_argument(
            "--masks", type=Path, nargs="+", required=True, help="mask shards, in order"
        )
        parser.add_argument(
            "--relevance", type=Path, nargs="+", required=True, help="their maps, in order"
        )
    else:
        parser.add_argument("--images", type=Path, required=True, help="folder of the image shards")
        parser.add_argument("--labels", type=Path, required=True, help="folder of the labels")
        parser.add_argument("--segmenter", type=Path, required=True, help="its folder")
        parser.add_argument("--scores", type=Path, required=True, help="masks.parquet")
        parser.add_argument("--pairs", type=Path, required=True, help="pairs.parquet")
        parser.add_argument(
            "--others", type=Path, nargs="*", default=[], help="mask shards of other recipes"
        )
        parser.add_argument(
            "--tasks", type=Path, nargs="*", default=[], help="folders of fine-tunings"
        )
        parser.add_argument("--thresholds", type=Path, help="table of the released recipe")
    parser.add_argument("--committee", type=Path, nargs="+", required=True, help="member folders")
    parser.add_argument("--sanity", type=Path, required=True, help="result of dollmaker sanity")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")


def run(name: str, arguments: argparse.Namespace) -> None:
    """Build labels or a release, or look into one."""
    {
        "labels": _labels,
        "release": _build,
        "verify": _verify,
        "stats": _stats,
        "show": _show,
        "diff": _diff,
        "export": _export,
    }[name](arguments)


def _labels(arguments: argparse.Namespace) -> None:
    from dollmaker.config import settings as config
    from dollmaker.release.labels import collect_labels

    collect_labels(
        config.load(arguments.config),
        arguments.index,
        arguments.masks,
        arguments.relevance,
        arguments.committee,
        arguments.sanity,
        arguments.output,
    )


def _build(arguments: argparse.Namespace) -> None:
    from dollmaker.config import settings as config
    from dollmaker.release.stage import build_release

    build_release(
        config.load(arguments.config),
        index_file=arguments.index,
        images_folder=arguments.images,
        labels=arguments.labels,
        segmenter=arguments.segmenter,
        committee=arguments.committee,
        sanity=arguments.sanity,
        scores=arguments.scores,
        pairs=arguments.pairs,
        others=_by_recipe(arguments.others),
        output=arguments.output,
        tasks=arguments.tasks,
        thresholds=arguments.thresholds,
    )


def _by_recipe(shards: list[Path]) -> dict[str, list[Path]]:
    """Recipe -> its shards, from ``masks/{recipe}/{shard}.h5``."""
    found: dict[str, list[Path]] = {}
    for path in shards:
        found.setdefault(path.parent.name, []).append(path)
    return found


def _verify(arguments: argparse.Namespace) -> None:
    from dollmaker.release.signature import verify_signature
    from dollmaker.release.verify import verify
    from dollmaker.runtime.errors import ArtifactError

    faults = verify(arguments.release, arguments.images, os.cpu_count() or 1)
    if arguments.key:
        faults += verify_signature(arguments.release, arguments.key)
    if faults:
        listed = "\n".join(f"  {fault}" for fault in faults)
        raise ArtifactError(
            f"{arguments.release} has {len(faults)} faults; get the release (or the images "
            f"that are named) again:\n{listed}"
        )
    print(f"{arguments.release} is whole.")


def _stats(arguments: argparse.Namespace) -> None:
    from dollmaker.release.browse import facts, stats
    from dollmaker.store.files import write_json

    print(stats(arguments.release))
    if arguments.json:
        write_json(arguments.json, facts(arguments.release))


def _show(arguments: argparse.Namespace) -> None:
    from dollmaker.release.browse import show

    lines = show(arguments.release, arguments.image_id, arguments.output, arguments.images)
    print("\n".join(lines))


def _diff(arguments: argparse.Namespace) -> None:
    from dollmaker.release.diff import describe, diff
    from dollmaker.store.files import write_json

    result = diff(arguments.old, arguments.new)
    print(describe(result))
    if arguments.json:
        write_json(arguments.json, result)


def _export(arguments: argparse.Namespace) -> None:
    from dollmaker.release.export import export

    export(arguments.release, arguments.to, arguments.output, arguments.images)
