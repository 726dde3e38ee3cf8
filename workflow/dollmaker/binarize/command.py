"""``dollmaker binarize``."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """Declare the options."""
    parser.add_argument("--config", required=True, help="configuration file or inline JSON")
    parser.add_argument("--images", type=Path, required=True, help="image shard")
    parser.add_argument("--relevance", type=Path, required=True, help="relevance shard")
    parser.add_argument("--recipe", required=True, help="recipe of the configuration")
    parser.add_argument("--output", type=Path, required=True, help="mask shard to write")


def run(name: str, arguments: argparse.Namespace) -> None:
    """Binarize one shard."""
    from dollmaker import config
    from dollmaker.binarize.stage import binarize_shard

    binarize_shard(
        config.load(arguments.config),
        arguments.images,
        arguments.relevance,
        arguments.recipe,
        arguments.output,
    )
