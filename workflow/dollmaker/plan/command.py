"""``dollmaker plan``."""

import argparse
import sys
import time
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """Declare the options."""
    parser.add_argument("--config", required=True, help="configuration file or inline JSON")
    parser.add_argument(
        "--data-root", help="folder of the source, if not that of the configuration"
    )
    parser.add_argument(
        "--devices",
        type=int,
        nargs="+",
        default=[],
        metavar="N",
        help="also tell the hours on so many devices like this one",
    )
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="about how long to calibrate (default 60)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers here")


def run(name: str, arguments: argparse.Namespace) -> None:
    """Print what the full run costs."""
    from dollmaker.config import settings as config
    from dollmaker.runtime.errors import ConfigError
    from dollmaker.store.files import write_json

    if any(number < 1 for number in arguments.devices):
        raise ConfigError("--devices has a number under 1; give numbers of devices, e.g. 8.")
    if not 0 < arguments.seconds <= 86400:
        raise ConfigError("--seconds must be over 0 and at most 86400; 60 is a good choice.")
    given = {} if arguments.data_root is None else {"data_root": arguments.data_root}
    settings = config.resolve({**config.read(arguments.config), **given})
    # A job spends its first seconds on imports: those of this process tell how many.
    began = time.perf_counter()
    import dollmaker.binarize.stage
    import dollmaker.prepare.stage
    import dollmaker.release.labels  # noqa: F401

    light = time.perf_counter() - began
    from dollmaker.plan.stage import make_plan
    from dollmaker.plan.table import render

    heavy = time.perf_counter() - began
    plan = make_plan(settings, arguments.devices, arguments.seconds, light, heavy)
    sys.stdout.write(render(plan))
    if arguments.json:
        try:
            write_json(arguments.json, plan)
        except OSError as error:
            raise ConfigError(
                f"cannot write {arguments.json} ({error.strerror}); give --json another file."
            ) from None
