"""``dollmaker publish``."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """Declare the options."""
    parser.add_argument("release", type=Path, help="folder of the release")
    parser.add_argument("--to", required=True, help="hf:OWNER/NAME, zenodo, or a folder to make")
    parser.add_argument("--private", action="store_true", help="seen by its owners only")
    parser.add_argument("--creators", nargs="+", help='who made it, "Family, Given" (zenodo)')
    parser.add_argument("--dry-run", action="store_true", help="check everything and send nothing")


def run(name: str, arguments: argparse.Namespace) -> None:
    """Publish."""
    from dollmaker.publish.stage import publish

    publish(
        arguments.release,
        arguments.to,
        private=arguments.private,
        creators=arguments.creators or (),
        dry_run=arguments.dry_run,
    )
