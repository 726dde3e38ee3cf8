"""Where an artifact comes from: the header that every file of the pipeline carries."""

import hashlib
import json
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from dollmaker import __version__

#: Version of the file contracts. Readers refuse files of another one.
FORMAT = 1

#: Version of each stage's computation. Raise it when results change: the workflow passes it
#: through ``params``, so that exactly the stages concerned run again.
STAGES: dict[str, int] = {
    "phantom": 1,
    "convert": 1,
    "prepare": 2,
    "classify": 1,
    "attribute": 2,
    "sample": 1,
    "thresholds": 2,
    "sanity": 1,
    "binarize": 1,
    "release": 1,
    "segment": 2,
    "explain": 1,
    "adapt": 2,
    "evaluate": 1,
    "compare": 1,
    "report": 1,
}

_LIBRARIES = ("torch", "numpy", "scikit-image", "h5py")


def header(
    stage: str,
    config: Mapping[str, Any],
    *,
    seed: int | None = None,
    inputs: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Describe the origin of an artifact.

    Args:
        stage: Name of the stage that writes it.
        config: The stage's section of the configuration.
        seed: Seed of its random numbers, if it has any.
        inputs: Name -> sha256 of the models and files it was made from.

    Returns:
        A JSON-serialisable dictionary without times or paths: equal inputs give equal headers.
    """
    return {
        "format": FORMAT,
        "stage": stage,
        "stage_version": STAGES[stage],
        "dollmaker": __version__,
        "config": dict(config),
        "seed": seed,
        "inputs": dict(inputs or {}),
        "libraries": {name: metadata.version(name) for name in _LIBRARIES},
    }


def digest(value: Any) -> str:
    """Short stable hash of a JSON-serialisable value, used as key of resumable state."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
