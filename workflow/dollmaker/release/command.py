"""``dollmaker release`` and ``dollmaker verify``."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """Declare the options of one of the two commands."""
    if name == "verify":
        parser.add_argument("release", type=Path, help="folder of the release")
        return
    parser.add_argument("--config", required=True, help="configuration file or inline JSON")
    parser.add_argument("--index", type=Path, required=True, help="index.parquet")
    parser.add_argument("--images", type=Path, required=True, help="folder of the image shards")
    parser.add_argument(
        "--masks", type=Path, nargs="+", required=True, help="mask shards, in order"
    )
    parser.add_argument("--committee", type=Path, nargs="+", required=True, help="member folders")
    parser.add_argument("--sanity", type=Path, required=True, help="result of dollmaker sanity")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")


def run(name: str, arguments: argparse.Namespace) -> None:
    """Build or verify a release."""
    if name == "verify":
        from dollmaker.errors import ArtifactError
        from dollmaker.release.verify import verify

        faults = verify(arguments.release)
        if faults:
            listed = "\n".join(f"  {fault}" for fault in faults)
            raise ArtifactError(
                f"{arguments.release} has {len(faults)} faults; get the release again:\n{listed}"
            )
        print(f"{arguments.release} is whole.")
        return
    from dollmaker import config
    from dollmaker.release.stage import build_release

    build_release(
        config.load(arguments.config),
        arguments.index,
        arguments.images,
        arguments.masks,
        arguments.committee,
        arguments.sanity,
        arguments.output,
    )
