"""``dollmaker prepare-convert``, ``-list``, ``-decode``, ``-index`` and ``-audit``."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """Declare the options of one of the five commands."""
    parser.add_argument("--config", required=True, help="configuration file or inline JSON")
    parser.add_argument("--output", type=Path, required=True, help="file or folder to write")
    if name == "prepare-audit":
        parser.add_argument("--index", type=Path, required=True, help="index of the data set")
        parser.add_argument("--images", type=Path, required=True, help="folder of image shards")
    if name in ("prepare-convert", "prepare-list", "prepare-decode"):
        parser.add_argument("--data-root", type=Path, required=True, help="folder of the source")
    if name in ("prepare-decode", "prepare-index"):
        parser.add_argument("--plan", type=Path, required=True, help="plan made by prepare-list")
    if name == "prepare-decode":
        parser.add_argument("--shard", required=True, help="shard to decode, e.g. 0000")
        parser.add_argument("--rows", type=Path, required=True, help="table of rows to write")
    if name in ("prepare-convert", "prepare-decode"):
        parser.add_argument("--workers", type=int, default=1, help="threads")
    if name == "prepare-index":
        parser.add_argument(
            "--rows", type=Path, nargs="+", required=True, help="rows of all shards"
        )
        parser.add_argument("--quarantine", type=Path, required=True, help="CSV of broken images")


def run(name: str, arguments: argparse.Namespace) -> None:
    """Run one of the five commands."""
    from dollmaker.config import settings as config
    from dollmaker.prepare import audit, convert, stage

    settings = config.load(arguments.config)
    if name == "prepare-convert":
        convert.convert(settings, arguments.data_root, arguments.output, arguments.workers)
    elif name == "prepare-list":
        stage.list_images(settings, arguments.data_root, arguments.output)
    elif name == "prepare-decode":
        stage.decode_shard(
            settings,
            arguments.plan,
            arguments.shard,
            arguments.data_root,
            arguments.output,
            arguments.rows,
            arguments.workers,
        )
    elif name == "prepare-audit":
        audit.audit_images(settings, arguments.index, arguments.images, arguments.output)
    else:
        stage.build_index(
            settings, arguments.plan, arguments.rows, arguments.output, arguments.quarantine
        )
