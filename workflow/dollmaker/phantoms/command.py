"""``dollmaker phantom``."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """Declare the options."""
    parser.add_argument("--output", type=Path, required=True, help="folder to make")
    parser.add_argument("--images", type=int, default=1000, help="images, all views (default 1000)")
    parser.add_argument("--size", type=int, default=128, help="long side in pixels (default 128)")
    parser.add_argument("--seed", type=int, default=0, help="seed (default 0)")
    parser.add_argument(
        "--task-images", type=int, default=120, help="images of each downstream task (default 120)"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes (default 1)")


def run(name: str, arguments: argparse.Namespace) -> None:
    """Write a generated data set, whole or not at all."""
    from dollmaker.phantoms import write_dataset
    from dollmaker.phantoms.dataset import ROOT
    from dollmaker.store.files import atomic_path, require_new

    if not (arguments.output / ROOT).is_dir():  # an older one is made anew
        require_new(arguments.output)
    with atomic_path(arguments.output.resolve()) as folder:
        write_dataset(
            folder,
            images=arguments.images,
            size=arguments.size,
            seed=arguments.seed,
            task_images=arguments.task_images,
            workers=arguments.workers,
        )
