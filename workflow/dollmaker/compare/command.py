"""``dollmaker compare``."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """Declare the options."""
    parser.add_argument("--config", required=True, help="configuration file or inline JSON")
    parser.add_argument("--results", type=Path, required=True, help="folder results/{dataset}")
    parser.add_argument("--data-root", type=Path, required=True, help="folder of the source")


def run(name: str, arguments: argparse.Namespace) -> None:
    """Compare all recipes."""
    from dollmaker.compare.stage import compare
    from dollmaker.config import settings as config

    settings = config.complete(config.load(arguments.config))
    compare(settings, arguments.results, arguments.data_root)
