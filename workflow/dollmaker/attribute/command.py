"""``dollmaker attribute`` and ``dollmaker sample``."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """Declare the options of one of the two commands."""
    parser.add_argument("--config", required=True, help="configuration file or inline JSON")
    parser.add_argument("--index", type=Path, required=True, help="index.parquet")
    parser.add_argument("--images", type=Path, required=True, help="folder of the image shards")
    if name == "attribute":
        parser.add_argument("--shard", required=True, help="shard to explain, e.g. 0000")
    parser.add_argument(
        "--committee", type=Path, nargs="+", required=True, help="folders of all members"
    )
    parser.add_argument("--recipe", required=True, help="recipe of the configuration")
    parser.add_argument("--output", type=Path, required=True, help="shard to write")


def run(name: str, arguments: argparse.Namespace) -> None:
    """Explain one shard, or the sample."""
    from dollmaker.config import settings as config

    if name == "sample":
        from dollmaker.attribute.sample import explain_sample

        explain_sample(
            config.load(arguments.config),
            arguments.index,
            arguments.images,
            arguments.committee,
            arguments.recipe,
            arguments.output,
        )
        return
    from dollmaker.attribute.stage import explain_shard

    explain_shard(
        config.load(arguments.config),
        arguments.index,
        arguments.images,
        arguments.committee,
        arguments.recipe,
        arguments.shard,
        arguments.output,
    )
