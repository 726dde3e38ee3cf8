"""The file that teaches a shell the words of the command line."""

import argparse
import re
from typing import Literal

from dollmaker.runtime import signatures
from dollmaker.runtime.cli import COMMANDS

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

#: compinit takes time, and asks of folders that others may write: not twice.
_ZSH = """\
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
autoload -Uz bashcompinit && bashcompinit
"""


def completion(shell: Literal["bash", "zsh"], /) -> str:
    """Print what completes commands and options with the tab key; elsewhere files are offered.

    Add it to the shell's start: eval "$(dollmaker completion bash)" in ~/.bashrc, or the same with
    zsh in ~/.zshrc.

    Args:
        shell: bash or zsh.
    """
    options = "\n".join(
        f'            {name}) offered="{" ".join(_options(targets.split()))}" ;;'
        for name, targets in COMMANDS.items()
    )
    script = _SCRIPT.format(commands=" ".join(COMMANDS), options=options)
    return _ZSH * (shell == "zsh") + script


def _options(targets: list[str]) -> list[str]:
    """The options of a command, of all its functions."""
    usages = []
    for target in targets:
        parser = argparse.ArgumentParser()
        signatures.add_arguments(parser, signatures.find(target))
        usages.append(parser.format_usage())
    return list(dict.fromkeys(["--help", *re.findall(r"--[a-z][a-z-]*", " ".join(usages))]))
