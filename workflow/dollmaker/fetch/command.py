"""``dollmaker fetch``."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """Declare the options."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--config", help="configuration file or inline JSON: all that it names")
    which.add_argument("--name", help="one name, e.g. timm:resnet18.a1_in1k")
    parser.add_argument(
        "--weights-root", type=Path, help="folder of weights files; default as configured"
    )
    parser.add_argument(
        "--list",
        action="store_true",
        help="fetch nothing; print every file, where it is had and where to put it by hand",
    )


def run(name: str, arguments: argparse.Namespace) -> None:
    """Fetch published weights, or list them."""
    from dollmaker.config import settings as config
    from dollmaker.fetch import needed, page

    root = arguments.weights_root
    if arguments.config:
        settings = config.complete(config.load(arguments.config))
        root = root or Path(settings["weights_root"])
        settings = {**settings, "weights_root": str(root)}
        needs = needed.join(needed.of_config(settings), needed.of_study(settings))
    else:
        root = root or Path("weights")
        needs = [needed.of_name(arguments.name, root)]
    if arguments.list:
        print(page.listed(needs, root), end="")
        return
    from dollmaker.fetch.stage import fetch

    for need in needs:
        if need.name:
            print(fetch(need.name, root))
