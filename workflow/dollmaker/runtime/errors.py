"""Errors that speak to the user.

Every message names what was wrong, where, and ends with the remedy. The command line prints the
message of a :class:`DollmakerError` as one sentence and exits with code 1; any other exception is
a bug of this project and keeps its traceback.
"""

from collections.abc import Iterable
from pathlib import Path


class DollmakerError(Exception):
    """Base of all errors that are the input's, not the program's."""


class UsageError(DollmakerError):
    """The arguments of a command do not go together."""


class ConfigError(DollmakerError):
    """The configuration has an unknown key, a wrong type or an impossible combination."""


class DataError(DollmakerError):
    """A table, an image folder or a truth file is not as described."""


class ModelError(DollmakerError):
    """A model, its weights file or the device it should run on is missing or does not fit."""


class ArtifactError(DollmakerError):
    """A file of the pipeline itself is missing, damaged or of another version."""


class DamagedError(ArtifactError):
    """A file of the pipeline is not as it was written; it can be made anew.

    Args:
        what: What is wrong with it, a sentence without its end.
        path: The file, or the folder that is one output.
    """

    def __init__(self, what: str, path: Path) -> None:
        super().__init__(f"{what}; delete it and run the workflow again to make it anew.")
        self.what = what
        self.path = path


def unknown(kind: str, name: object, known: Iterable[object]) -> str:
    """The sentence for a name that is not in a closed list, of a kind such as ``finding``."""
    listed = ", ".join(str(item) for item in known)
    return f"unknown {kind} {str(name)!r}; use one of: {listed}."
