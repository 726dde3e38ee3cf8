"""``weights.lock.yaml``: what the weights are that were fetched by name."""

from collections.abc import Mapping
from pathlib import Path

import yaml

from dollmaker.runtime.errors import ModelError
from dollmaker.store.files import alone, write_text

#: Beside the files, so that it is copied with them.
LOCK = "weights.lock.yaml"

_HEAD = """\
# Weights that were fetched by name: what they are, and the SHA-256 of the file beside this one.
# A file that is another stops the run. Keep this with the files, or with your project.
"""

Entry = dict[str, str]


def read(root: Path) -> dict[str, Entry]:
    """Name -> its entry; empty if nothing was fetched yet.

    Raises:
        ModelError: If it is not as it was written.
    """
    path = root / LOCK
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        found = error
    sound = isinstance(found, dict) and all(
        isinstance(entry, dict) and all(isinstance(value, str) for value in entry.values())
        for entry in found.values()
    )
    if not sound or not all("sha256" in entry for entry in found.values()):
        raise ModelError(
            f"{path} is not a lock of weights; correct it, or delete it to take the files as they "
            "are."
        )
    return {str(name): dict(entry) for name, entry in found.items()}


def check(root: Path, name: str, sha256: str) -> None:
    """Refuse, by a :class:`ModelError`, weights that the lock notes with another SHA-256."""
    noted = read(root).get(name)
    if noted and noted["sha256"] != sha256:
        raise ModelError(
            f"the weights {name} have the SHA-256 {sha256[:12]}..., {root / LOCK} notes "
            f"{noted['sha256'][:12]}...; get the noted file again, or delete its entry there to "
            "take this one."
        )


def note(root: Path, name: str, entry: Mapping[str, str]) -> None:
    """Add an entry, or replace it; several processes may do so at a time."""
    with alone(root / LOCK):
        entries = {**read(root), name: dict(entry)}
        text = yaml.safe_dump(
            dict(sorted(entries.items())), sort_keys=False, allow_unicode=True, width=1000
        )
        write_text(root / LOCK, _HEAD + text)
