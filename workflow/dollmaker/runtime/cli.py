"""The command line: each command is a typed function of the stage that it belongs to.

Its arguments come of the signature (:mod:`signatures`), and what it returns is printed. Only the
command that was asked for is imported.
"""

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Sequence
from typing import Literal, NoReturn

from dollmaker import __version__
from dollmaker.runtime import signatures
from dollmaker.runtime.errors import (
    DamagedError,
    DollmakerError,
    UsageError,
    missing,
    out_of_space,
    set_aside,
    unknown,
)
from dollmaker.runtime.stopping import STOPPED, Terminated, on_sigterm

#: Errors of a path that the user named: not to be written to, a folder, or below a file.
_OF_PATHS = (PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)

#: Command -> its function, module:name, in the order in which data flow. Of two functions, the
#: second is meant where ``--config`` is given: it is what the workflow calls.
COMMANDS = {
    "init": "launch.layout:init",
    "estimate": "estimate.costs:tell_costs",
    "status": "status.run:show_status",
    "completion": "runtime.cli:completion",
    "fetch": "fetch.stage:fetch_weights",
    "phantom": "phantoms.dataset:write_dataset",
    "prepare-convert": "prepare.convert:convert",
    "prepare-list": "prepare.stage:list_images",
    "prepare-decode": "prepare.stage:decode_shard",
    "prepare-index": "prepare.stage:build_index",
    "prepare-audit": "prepare.audit:audit_images",
    "classify": "classify.stage:train_member",
    "attribute": "attribute.stage:explain_shard",
    "sample": "attribute.sample:explain_sample",
    "thresholds": "binarize.label_free:choose_thresholds",
    "binarize": "binarize.stage:binarize_shard",
    "sanity": "sanity.stage:check_recipe",
    "labels": "release.labels:collect_labels",
    "release": "release.stage:build_release",
    "verify": "release.verify:require_whole",
    "stats": "release.browse:stats",
    "show": "release.browse:show",
    "diff": "release.browse:tell_changes",
    "export": "release.export:export",
    "predict": "predict.stage:predict",
    "publish": "release.publish:publish",
    "segment": "segment.stage:train_segmenter",
    "explain": "explain.stage:explain_segmenter",
    "adapt": "adapt.stage:adapt",
    "study": "study.stage:write_study",
    "evaluate": "evaluate.release:evaluate_release evaluate.stage:evaluate",
    "compare": "compare.stage:compare",
    "report": "report.stage:report",
}

#: Commands that need ``dollmaker[torch]`` and not the workflow.
_OF_TORCH = ("predict",)

#: bash's own way; zsh has a bridge to it.
_SCRIPT = """\
_dollmaker() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} offered=""
    if [ "$COMP_CWORD" = 1 ]; then
        offered="{commands}"
    elif [ "${{word:0:1}}" = - ]; then
        case ${{COMP_WORDS[1]}} in
{options}
        esac
    fi
    COMPREPLY=($(compgen -W "$offered" -- "$word"))
}}
complete -o default -F _dollmaker dollmaker
"""

#: Its compinit takes time, and asks of folders that others may write: not twice.
_ZSH = """\
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
autoload -Uz bashcompinit && bashcompinit
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        0 on success, 1 when the input was wrong (one sentence on stderr), 2 when the command line
        was, 130 on Ctrl-C, 143 on SIGTERM.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    name = words[0] if words else ""
    if name not in COMMANDS:
        _overview(words[:1])
    targets = COMMANDS[name].split()
    target = targets[-1] if any(word.startswith("--config") for word in words) else targets[0]
    parser = _parser(name, target, targets)
    arguments = parser.parse_args(words[1:])
    try:
        with on_sigterm():
            if (told := signatures.bind(signatures.find(target), vars(arguments))()) is not None:
                _tell(told)
    except UsageError as error:
        parser.error(str(error))
    except Terminated:
        _say("stopped by SIGTERM; what was finished is kept, run it again to go on.")
        return STOPPED
    except KeyboardInterrupt:
        _say("interrupted.")
        return 130
    except Exception as error:
        if (sentence := _sentence(error, name)) is None:
            raise
        _say(f"error: {sentence}")
        return 1
    return 0


def _sentence(error: Exception, command: str) -> str | None:
    """What to say of an error that is no bug; a damaged file is moved out of the way."""
    if isinstance(error, DamagedError) and (aside := set_aside(error.path)):
        return f"{error.what}; moved to {aside}, run the workflow again to make it anew."
    if isinstance(error, DollmakerError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        return missing(error, of_workflow=command not in _OF_TORCH)
    if out_of_space(error):
        return (
            f"the disk is full, or a quota or file limit is reached ({error}); make room and run "
            "it again, nothing that was finished is lost."
        )
    if isinstance(error, _OF_PATHS) and error.filename:
        return f"{error.filename2 or error.filename}: {error.strerror}; give another path."
    return None


def _parser(name: str, target: str, targets: Sequence[str] = ()) -> argparse.ArgumentParser:
    """What reads the words of a command; usage and help tell of its other functions, too."""
    parser = argparse.ArgumentParser(
        prog=f"dollmaker {name}",
        description=signatures.find(target).text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    signatures.add_arguments(parser, signatures.find(target))
    others = [_parser(name, other) for other in targets if other != target]
    if others:
        usages = [one.format_usage().removeprefix("usage: ") for one in (parser, *others)]
        parser.usage = "       ".join(usages).rstrip()
        for one in others:
            one.usage = argparse.SUPPRESS
        parser.epilog = "\n".join(f"or:\n\n{one.format_help().lstrip()}" for one in others)
    return parser


def _overview(words: Sequence[str]) -> NoReturn:
    """Help, the version, or what is wrong with words that begin with no command."""
    parser = argparse.ArgumentParser(
        prog="dollmaker",
        description="Pixel-level pseudo-masks from image-level labels.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="commands:\n"
        + "\n".join(
            f"  {name:<16} {signatures.summary(targets.split()[0])}"
            for name, targets in COMMANDS.items()
        )
        + "\n\n'dollmaker COMMAND --help' lists the options of a command.",
    )
    parser.add_argument("--version", action="version", version=f"dollmaker {__version__}")
    parser.add_argument("command", metavar="COMMAND", help="one of the commands below")
    name = parser.parse_args(words).command
    parser.error(unknown("command", name, COMMANDS))


def _tell(text: object) -> None:
    """Print what a command found; who reads it may have had enough of it, as ``head`` has."""
    try:
        print(text, flush=True)
    except BrokenPipeError:  # Python would say so once more when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # who reads our words may have been stopped, too
        print(f"dollmaker: {text}", file=sys.stderr, flush=True)


def entry() -> None:
    """The installed command ``dollmaker``."""
    sys.exit(main())


# --- completion ---------------------------------------------------------------------------------


def completion(shell: Literal["bash", "zsh"], /) -> str:
    """Print what completes commands and options with the tab key; elsewhere files are offered.

    Add it to the shell's start: eval "$(dollmaker completion bash)" in ~/.bashrc, or the same with
    zsh in ~/.zshrc.

    Args:
        shell: bash or zsh.
    """
    lines = []
    for name, targets in COMMANDS.items():
        first, *others = targets.split()
        usage = _parser(name, first, (first, *others)).format_usage()
        options = dict.fromkeys(["--help", *re.findall(r"--[a-z][a-z-]*", usage)])
        lines.append(f'            {name}) offered="{" ".join(options)}" ;;')
    script = _SCRIPT.format(commands=" ".join(COMMANDS), options="\n".join(lines))
    return _ZSH * (shell == "zsh") + script
