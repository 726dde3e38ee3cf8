"""``dollmaker evaluate``."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """Declare the options."""
    parser.add_argument("--config", required=True, help="configuration file or inline JSON")
    parser.add_argument("--index", type=Path, required=True, help="index.parquet")
    parser.add_argument("--images", type=Path, required=True, help="folder of the image shards")
    parser.add_argument("--data-root", type=Path, required=True, help="folder of the source")
    parser.add_argument("--committee", type=Path, nargs="+", required=True, help="member folders")
    parser.add_argument("--relevance", type=Path, required=True, help="folder of all recipes' maps")
    parser.add_argument("--masks", type=Path, required=True, help="folder of all recipes' masks")
    parser.add_argument(
        "--tasks", type=Path, nargs="*", default=[], help="folders tasks/{task}/{init}-{tuning}"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to write")


def run(name: str, arguments: argparse.Namespace) -> None:
    """Run the command."""
    from dollmaker import config
    from dollmaker.evaluate.stage import evaluate

    evaluate(
        config.load(arguments.config),
        index_file=arguments.index,
        images=arguments.images,
        data_root=arguments.data_root,
        committee=arguments.committee,
        relevance=arguments.relevance,
        masks=arguments.masks,
        tasks=arguments.tasks,
        output=arguments.output,
    )
