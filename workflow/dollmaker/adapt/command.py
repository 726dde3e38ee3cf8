"""``dollmaker adapt``."""

import argparse
from pathlib import Path

from dollmaker.adapt import TUNINGS


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """Declare the options."""
    parser.add_argument("--config", required=True, help="configuration file or inline JSON")
    parser.add_argument("--task", required=True, help="key of the section tasks")
    parser.add_argument(
        "--init",
        required=True,
        help="where the network starts: random, imagenet, classifier, or the name of a segmenter",
    )
    parser.add_argument(
        "--tuning",
        required=True,
        choices=TUNINGS,
        help="what is trained",
    )
    parser.add_argument("--data-root", type=Path, required=True, help="folder of the source")
    parser.add_argument("--weights-root", type=Path, required=True, help="folder of weights files")
    parser.add_argument("--committee", type=Path, help="folder of a member, for classifier")
    parser.add_argument(
        "--segmenter", type=Path, help="folder of the segmenter, for doll and the like"
    )
    parser.add_argument(
        "--index",
        type=Path,
        help="the index that classifiers and segmenters were trained on: a task whose test images "
        "they have seen is refused",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to write")


def run(name: str, arguments: argparse.Namespace) -> None:
    """Fine-tune on a task."""
    from dollmaker.adapt.stage import adapt
    from dollmaker.config import settings as config

    adapt(
        config.load(arguments.config),
        arguments.task,
        arguments.init,
        arguments.tuning,
        data_root=arguments.data_root,
        weights_root=arguments.weights_root,
        committee=arguments.committee,
        segmenter=arguments.segmenter,
        output=arguments.output,
        index=arguments.index,
    )
