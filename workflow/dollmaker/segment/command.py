"""``dollmaker segment``."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """Declare the options."""
    parser.add_argument("--config", required=True, help="configuration file or inline JSON")
    parser.add_argument("--index", type=Path, required=True, help="index of the images")
    parser.add_argument("--images", type=Path, required=True, help="folder of the image shards")
    parser.add_argument("--labels", type=Path, required=True, help="folder of the labels")
    parser.add_argument(
        "--committee", type=Path, nargs="*", default=[], help="folders of the members"
    )
    parser.add_argument("--weights-root", type=Path, required=True, help="folder of weights files")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--gpus",
        type=int,
        default=1,
        help="GPUs that train together, 0 for all that the job sees; with device: cpu, processes",
    )


def run(name: str, arguments: argparse.Namespace) -> None:
    """Train the segmenter."""
    from dollmaker.config import settings as config
    from dollmaker.segment.stage import train_segmenter

    train_segmenter(
        config.load(arguments.config),
        arguments.index,
        arguments.images,
        arguments.labels,
        arguments.committee,
        arguments.weights_root,
        arguments.output,
        arguments.gpus,
    )
