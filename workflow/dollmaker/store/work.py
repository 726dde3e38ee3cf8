"""Resumable state of a long job, and who may write it.

A job that is killed leaves its state in a folder beside its output, and the next attempt goes on
from there. On a cluster the first attempt may still be alive: a node that was given up can go on
writing. So every attempt signs the folder, and whoever finds another signature stops.
"""

import glob
import os
import secrets
import shutil
import socket
from pathlib import Path

from dollmaker.runtime import parallel
from dollmaker.runtime.errors import ArtifactError
from dollmaker.store.files import remove, sha256_file, write_text


class Work:
    """The folder of a job's state, taken over by this attempt.

    Folders of other keys (an older configuration, code or input) are removed. Of several processes
    that train together, the first takes it over.

    Args:
        output: The output that the job will make.
        key: Hash of all that determines the result.
    """

    def __init__(self, output: Path, key: str) -> None:
        #: Where the state lies: beside the output, never part of it.
        self.folder = output.with_name(f".{output.name}-{key}.work")
        if parallel.rank():
            return
        start = f".{output.name}-"
        for other in output.parent.glob(f"{glob.escape(start)}*.work"):
            # A key has no hyphen: what has one belongs to an output with a longer name.
            if other != self.folder and "-" not in other.name.removeprefix(start):
                shutil.rmtree(other, ignore_errors=True)
        self._signature = f"{socket.gethostname()} {os.getpid()} {secrets.token_hex(8)}\n"
        self._owner = self.folder / "owner"
        for left in self.folder.glob(".*.part"):
            remove(left)
        write_text(self._owner, self._signature)

    def require(self) -> None:
        """Make sure that this attempt may write: ask before every write.

        Raises:
            ArtifactError: If a later attempt has taken over, or has finished.
        """
        try:
            mine = self._owner.read_text(encoding="utf-8") == self._signature
        except OSError:
            mine = False
        if not mine:
            raise ArtifactError(
                f"another attempt has taken over {self.folder}; this one stops, leave the other be."
            )

    def finish(self) -> None:
        """Remove the folder: the output is there."""
        shutil.rmtree(self.folder, ignore_errors=True)


#: States that are kept: should the newest be damaged, the one before is at hand.
_GENERATIONS = 2


def state_name(number: int, part: Path) -> str:
    """The name of a state file: its number and its checksum."""
    return f"state-{number:09d}-{sha256_file(part)[:16]}.ckpt"


def newest_state(folder: Path) -> Path | None:
    """The newest state file that is as it was written; damaged ones are removed."""
    for path in sorted(folder.glob("state-*.ckpt"), reverse=True):
        if path.name == state_name(int(path.name.split("-")[1]), path):
            return path
        print(f"{path} is damaged and was removed; going on from an earlier state", flush=True)
        path.unlink()
    return None


def remove_old_states(folder: Path) -> None:
    """Keep the newest states only."""
    for path in sorted(folder.glob("state-*.ckpt"), reverse=True)[_GENERATIONS:]:
        path.unlink(missing_ok=True)
