"""``dollmaker sanity``."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """Declare the options."""
    parser.add_argument("--config", required=True, help="configuration file or inline JSON")
    parser.add_argument("--index", type=Path, required=True, help="index.parquet")
    parser.add_argument("--images", type=Path, required=True, help="folder of the image shards")
    parser.add_argument("--sample", type=Path, required=True, help="sample of the recipe's maps")
    parser.add_argument("--recipe", required=True, help="recipe of the configuration")
    parser.add_argument("--thresholds", type=Path, help="table made by dollmaker thresholds")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")


def run(name: str, arguments: argparse.Namespace) -> None:
    """Check one recipe."""
    from dollmaker.config import settings as config
    from dollmaker.sanity.stage import check_recipe

    check_recipe(
        config.load(arguments.config),
        arguments.index,
        arguments.images,
        arguments.sample,
        arguments.recipe,
        arguments.output,
        arguments.thresholds,
    )
