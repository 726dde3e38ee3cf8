"""``dollmaker classify``."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """Declare the options."""
    parser.add_argument("--config", required=True, help="configuration file or inline JSON")
    parser.add_argument("--index", type=Path, required=True, help="index.parquet")
    parser.add_argument("--images", type=Path, required=True, help="folder of the image shards")
    parser.add_argument("--member", required=True, help="name of the member to train")
    parser.add_argument("--weights-root", type=Path, required=True, help="folder of weights files")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--gpus",
        type=int,
        default=1,
        help="GPUs that train together, 0 for all that the job sees; with device: cpu, processes",
    )


def run(name: str, arguments: argparse.Namespace) -> None:
    """Train one member."""
    from dollmaker.classify.stage import train_member
    from dollmaker.config import settings as config

    train_member(
        config.load(arguments.config),
        arguments.index,
        arguments.images,
        arguments.member,
        arguments.weights_root,
        arguments.output,
        arguments.gpus,
    )
