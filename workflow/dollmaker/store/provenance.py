"""Where an artifact comes from: the header that every file of the pipeline carries."""

import hashlib
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from dollmaker import __version__

#: Version of the file contracts, and those that are read: 1 is that of releases of version 0.1.
FORMAT = 2
FORMATS = (1, FORMAT)

#: Version of each stage's computation. Raise it when results change: the workflow passes it
#: through ``params``, so that exactly the stages concerned run again.
STAGES: dict[str, int] = {
    "fetch": 1,
    "phantom": 1,
    "convert": 3,
    "prepare": 5,
    "audit": 1,
    "classify": 5,
    "attribute": 5,
    "sample": 5,
    "thresholds": 5,
    "sanity": 3,
    "binarize": 6,
    "labels": 3,
    "release": 6,
    "segment": 8,
    "explain": 5,
    "adapt": 10,
    "study": 9,
    "evaluate": 8,
    "compare": 6,
    "report": 6,
}

_LIBRARIES = ("torch", "numpy", "scikit-image", "h5py")


def header(
    stage: str,
    settings: Mapping[str, Any],
    *,
    seed: int | None = None,
    inputs: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Describe the origin of an artifact, for JSON: equal inputs give equal headers.

    Args:
        stage: Name of the stage that writes it.
        settings: The stage's section of the configuration.
        seed: Seed of its random numbers, if it has any.
        inputs: Name -> sha256 of the models and files it was made from.
    """
    return {
        "format": FORMAT,
        "stage": stage,
        "stage_version": STAGES[stage],
        "dollmaker": __version__,
        "config": dict(settings),
        "seed": seed,
        "inputs": dict(inputs or {}),
        "libraries": {name: metadata.version(name) for name in _LIBRARIES},
    }


@dataclass(frozen=True)
class Commit:
    """The commit of the code that runs."""

    name: str  #: 40 hexadecimal digits, with ``-dirty`` where files differ from it.
    date: str  #: ISO 8601 date of the commit.


def find_commit() -> Commit | None:
    """The commit of a checkout; ``None`` for an installed package, or without git."""
    package = Path(__file__).parents[1]
    try:
        root = Path(_git(package, "rev-parse", "--show-toplevel"))
        if root.resolve() / "workflow" / "dollmaker" != package.resolve():
            return None  # the repository of somebody else, which dollmaker is installed in
        dirty = "-dirty" if _git(package, "status", "--porcelain", "--", ".") else ""
        return Commit(
            _git(package, "rev-parse", "HEAD") + dirty,
            _git(package, "show", "-s", "--format=%cs", "HEAD"),
        )
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    return done.stdout.strip()


def digest(value: Any) -> str:
    """Short stable hash of a JSON-serialisable value, used as key of resumable state."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
