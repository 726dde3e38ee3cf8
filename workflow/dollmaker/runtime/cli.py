"""The command line: one thin command per rule.

A command lives in the room of its stage, in ``command.py``, as two functions: ``add_arguments``
and ``run``. Only the command that was asked for is imported, and it imports torch and the like
inside ``run``, so that help is instant.
"""

import argparse
import contextlib
import importlib
import sys
from collections.abc import Sequence

from dollmaker import __version__
from dollmaker.runtime.errors import DamagedError, DollmakerError, unknown
from dollmaker.runtime.extras import missing
from dollmaker.runtime.faults import out_of_space, set_aside
from dollmaker.runtime.stopping import STOPPED, Terminated, on_sigterm

#: Command -> (module with add_arguments and run, what it does). In the order the data flows.
COMMANDS = {
    "init": ("launch", "Lay out a workflow in a new folder: configuration, profiles, rules."),
    "estimate": ("estimate", "Tell what a run costs, from a trial and past runs."),
    "status": ("status", "Tell how far a run is, what runs and what failed."),
    "fetch": ("fetch", "Fetch published weights that are named, or list them."),
    "phantom": ("phantoms", "Generate radiographs in CheXpert's form, with pixel truth."),
    "prepare-convert": ("prepare", "Turn patches, volumes or raw files into pictures and a table."),
    "prepare-list": ("prepare", "List the images of the source."),
    "prepare-decode": ("prepare", "Decode the images of one shard."),
    "prepare-index": ("prepare", "Gather the decoded shards into the index."),
    "prepare-audit": ("prepare", "Tell how well border and shape predict each label."),
    "classify": ("classify", "Train one member of the committee."),
    "attribute": ("attribute", "Explain one shard of images with the committee."),
    "sample": ("attribute", "Explain a sample in more ways, for thresholds and sanity checks."),
    "thresholds": ("binarize", "Choose thresholds without truth."),
    "binarize": ("binarize", "Turn the relevance maps of one shard into masks."),
    "sanity": ("sanity", "Check that a recipe's masks depend on the model and the finding."),
    "labels": ("release", "Gather the masks of the released recipe; what segmenters learn from."),
    "release": ("release", "Put labels, models, scores, checksums and a card into a release."),
    "verify": ("release", "Check that a release is whole and consistent."),
    "stats": ("release", "Show the numbers of a release."),
    "show": ("release", "Draw the masks of an image of a release."),
    "diff": ("release", "Tell what changed from one release to another."),
    "export": ("release", "Write a release in the form of another tool."),
    "predict": ("predict", "Find in new pictures what a release's models have learned."),
    "publish": ("publish", "Put a release on the Hub, on Zenodo or into a folder."),
    "segment": ("segment", "Pre-train a segmenter on the labels."),
    "explain": ("explain", "Show where a segmenter looks when it calls pixels a finding."),
    "adapt": ("adapt", "Fine-tune on a task with true masks."),
    "study": ("study", "Tell what a start is worth, from the runs of a study."),
    "evaluate": ("evaluate", "Score a release, or all of a run, against truth."),
    "compare": ("compare", "Score all recipes side by side."),
    "report": ("report", "Write report.html and summary.json."),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        0 on success, 1 when the input was wrong (one sentence on stderr), 2 when the command line
        was, 130 on Ctrl-C, 143 on SIGTERM.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="dollmaker",
        description="Pixel-level pseudo-masks from image-level labels.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="commands:\n"
        + "\n".join(f"  {name:<16} {doc}" for name, (_, doc) in COMMANDS.items())
        + "\n\n'dollmaker COMMAND --help' lists the options of a command.",
    )
    parser.add_argument("--version", action="version", version=f"dollmaker {__version__}")
    parser.add_argument("command", metavar="COMMAND", help="one of the commands below")
    name = parser.parse_args(words[:1]).command
    if name not in COMMANDS:
        parser.error(unknown("command", name, COMMANDS))
    module = importlib.import_module(f"dollmaker.{COMMANDS[name][0]}.command")
    command = argparse.ArgumentParser(prog=f"dollmaker {name}", description=COMMANDS[name][1])
    module.add_arguments(command, name)
    arguments = command.parse_args(words[1:])
    try:
        with on_sigterm():
            module.run(name, arguments)
    except DamagedError as error:
        aside = set_aside(error.path)
        remedy = "; moved to {}, run the workflow again to make it anew."
        _say(f"error: {error.what}{remedy.format(aside)}" if aside else f"error: {error}")
        return 1
    except DollmakerError as error:
        _say(f"error: {error}")
        return 1
    except Terminated:
        _say("stopped by SIGTERM; what was finished is kept, run it again to go on.")
        return STOPPED
    except KeyboardInterrupt:
        _say("interrupted.")
        return 130
    except ModuleNotFoundError as error:
        if (sentence := missing(error)) is None:
            raise
        _say(f"error: {sentence}")
        return 1
    except Exception as error:
        if not out_of_space(error):
            raise
        _say(
            f"error: the disk is full, or a quota or file limit is reached ({error}); make room "
            "and run it again, nothing that was finished is lost."
        )
        return 1
    return 0


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # who reads our words may have been stopped, too
        print(f"dollmaker: {text}", file=sys.stderr, flush=True)


def entry() -> None:
    """The installed command ``dollmaker``."""
    sys.exit(main())
