"""``dollmaker binarize`` and ``dollmaker thresholds``."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """Declare the options of one of the two commands."""
    if name == "thresholds":
        parser.add_argument("--sample", type=Path, required=True, help="sample of a recipe")
        parser.add_argument("--output", type=Path, required=True, help="table to write")
        return
    parser.add_argument("--config", required=True, help="configuration file or inline JSON")
    parser.add_argument("--images", type=Path, required=True, help="image shard")
    parser.add_argument("--relevance", type=Path, required=True, help="relevance shard")
    parser.add_argument("--recipe", required=True, help="recipe of the configuration")
    parser.add_argument("--thresholds", type=Path, help="table made by dollmaker thresholds")
    parser.add_argument("--output", type=Path, required=True, help="mask shard to write")


def run(name: str, arguments: argparse.Namespace) -> None:
    """Choose thresholds, or binarize one shard."""
    if name == "thresholds":
        from dollmaker.binarize.choice import choose_thresholds

        choose_thresholds(arguments.sample, arguments.output)
        return
    from dollmaker.binarize.stage import binarize_shard
    from dollmaker.config import settings as config

    binarize_shard(
        config.load(arguments.config),
        arguments.images,
        arguments.relevance,
        arguments.recipe,
        arguments.output,
        arguments.thresholds,
    )
