"""What bash and zsh offer with the tab key."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from dollmaker.runtime.cli import completion


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["ver"], "verify"),
        (["evaluate", "r", "--tr"], "--truth"),
        (["verify", "--"], "--help --images --key"),
        (["verify", "rel"], ""),
    ],
)
def test_commands_and_options_are_offered(words: list[str], offered: str) -> None:
    line = " ".join(["dollmaker", *words])
    script = f"{completion('bash')}COMP_WORDS=({line}); COMP_CWORD={len(words)}; _dollmaker"
    script += '; echo "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == offered


def test_zsh_takes_the_bridge_to_bash() -> None:
    assert completion("zsh").endswith(completion("bash")) and "bashcompinit" in completion("zsh")


#: A terminal with a shell in it; each pattern is waited for. The control sign empties the line.
TALK = r"""
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "eval \"\$(<$1)\"; print be''gun"
zpty -r shell seen '*begun*'
zpty -w -n shell $'dollmaker ver\t'
zpty -r shell seen '*verify *'
zpty -w -n shell $'\x15dollmaker evaluate r --tr\t'
zpty -r shell seen '*--truth *'
zpty -w -n shell $'\x15dollmaker verify --\t'
zpty -r shell seen '*--help*--images*--key*'
zpty -w -n shell $'\x15dollmaker verify relea\t'
zpty -r shell seen '*release-1/*'
"""


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh")
def test_zsh_offers_commands_options_and_files(tmp_path: Path) -> None:
    (tmp_path / "script").write_text(completion("zsh"))
    (tmp_path / "release-1").mkdir()
    done = subprocess.run(
        ["zsh", "-f", "-c", TALK, "zsh", "script"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "ZDOTDIR": str(tmp_path), "TERM": "dumb"},
        timeout=60,
    )
    assert done.returncode == 0 and not done.stderr, done.stdout + done.stderr
