"""``dollmaker report``."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """Declare the options."""
    parser.add_argument("--config", required=True, help="configuration file or inline JSON")
    parser.add_argument("--results", type=Path, required=True, help="folder results/{dataset}")
    parser.add_argument("--data-root", type=Path, required=True, help="folder of the source")
    parser.add_argument("--output", type=Path, required=True, help="report.html to write")
    parser.add_argument("--summary", type=Path, required=True, help="summary.json to write")
    parser.add_argument("--figures", type=Path, required=True, help="folder of figures to write")


def run(name: str, arguments: argparse.Namespace) -> None:
    """Run the command."""
    from dollmaker.config import settings as config
    from dollmaker.report.stage import report

    report(
        config.load(arguments.config),
        results_folder=arguments.results,
        data_root=arguments.data_root,
        output=arguments.output,
        summary_file=arguments.summary,
        figures_folder=arguments.figures,
    )
