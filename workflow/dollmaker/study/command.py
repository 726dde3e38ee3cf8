"""``dollmaker study``."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """Declare the options."""
    parser.add_argument("--config", required=True, help="configuration file or inline JSON")
    parser.add_argument("--index", type=Path, required=True, help="index of the images")
    parser.add_argument("--study", type=Path, required=True, help="folder of the study's runs")
    parser.add_argument("--scores", type=Path, required=True, help="folder of the score tables")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")


def run(name: str, arguments: argparse.Namespace) -> None:
    """Gather the runs of a study."""
    from dollmaker.config import settings as config
    from dollmaker.study.stage import write_study

    write_study(
        config.load(arguments.config),
        arguments.index,
        arguments.study,
        arguments.scores,
        arguments.output,
    )
