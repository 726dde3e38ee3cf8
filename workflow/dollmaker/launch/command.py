"""``dollmaker init``."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """Declare the options."""
    parser.add_argument("folder", type=Path, help="folder to make")


def run(name: str, arguments: argparse.Namespace) -> None:
    """Lay out a workflow."""
    from dollmaker.launch.layout import init

    init(arguments.folder)
