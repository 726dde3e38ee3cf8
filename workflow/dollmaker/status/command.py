"""``dollmaker status``."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """Declare the options."""
    parser.add_argument("results", type=Path, help="folder of a run, e.g. results/phantoms")
    parser.add_argument("--watch", action="store_true", help="show it anew every few seconds")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two looks")
    parser.add_argument("--tail", type=int, default=5, help="lines of the log of a failed job")


def run(name: str, arguments: argparse.Namespace) -> None:
    """Print the state of a run, once or until it is finished."""
    import time

    from dollmaker.status.page import render
    from dollmaker.status.run import read_run

    while True:
        state = read_run(arguments.results, time.time())
        text = render(state, arguments.tail)
        if not arguments.watch:
            print(text)
            return
        print(f"\x1b[2J\x1b[H{text}", flush=True)
        if state.finished:
            return
        time.sleep(max(0.1, arguments.every))
