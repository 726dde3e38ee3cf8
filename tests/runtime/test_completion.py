"""What bash offers with the tab key."""

import shutil
import subprocess

import pytest

from dollmaker.runtime.completion import completion


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
