"""Errors that speak to the user.

Every message names what was wrong, where, and ends with the remedy. The command line prints the
message of a :class:`DollmakerError` as one sentence and exits with code 1; any other exception is
a bug of this project and keeps its traceback.
"""

import errno
import os
from collections.abc import Iterable
from pathlib import Path

#: Environment variable by which the workflow names the folder of its own results.
RESULTS = "DOLLMAKER_RESULTS"

_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

#: How libraries in other languages say so: HDF5, safetensors, Arrow, torch.
_WORDS = ("No space left", "errno = 28", "errno 28", "os error 28", "File too large", "os error 27")

#: Libraries of ``dollmaker[torch]``; all others that may be missing are of the workflow.
_TORCH = {
    *("torch", "torchvision", "timm", "segmentation_models_pytorch"),
    *("safetensors", "huggingface_hub"),
}
_OTHERS = {"pydicom": "dicom", "torchxrayvision": "xrv", "imagecodecs": "deep"}


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
    """A file, or a folder that is one output, is not as it was written; it can be made anew.

    ``what`` is wrong with it, a sentence without its end.
    """

    def __init__(self, what: str, path: Path) -> None:
        super().__init__(f"{what}; delete it and run the workflow again to make it anew.")
        self.what, self.path = what, path


def unknown(kind: str, name: object, known: Iterable[object]) -> str:
    """The sentence for a name that is not in a closed list, of a kind such as ``finding``."""
    listed = ", ".join(str(item) for item in known)
    return f"unknown {kind} {str(name)!r}; use one of: {listed}."


def first_line(error: Exception) -> str:
    """The first line of another library's error, short enough for a sentence."""
    text = str(error).strip()
    return text.splitlines()[0][:300].rstrip(".") if text else type(error).__name__


# --- what the command line makes of damaged files, full disks and missing libraries --------------


def set_aside(path: Path) -> Path | None:
    """Move a damaged output of the workflow out of the way, so that its rule makes it anew.

    ``None`` if it stays: only what lies in the folder that the workflow names in
    ``DOLLMAKER_RESULTS`` is moved, and no release. In all other places the file is the user's.
    """
    named = os.environ.get(RESULTS)
    if not named:
        return None
    root, place = Path(named).resolve(), path.resolve()
    inner = place.relative_to(root).parts if place.is_relative_to(root) else ()
    if not inner or inner[0] == "release" or any(part.endswith(".work") for part in inner):
        return None
    aside = path.with_name(f"{path.name}.damaged")
    try:
        path.rename(aside)
    except OSError:
        return None
    return aside


def out_of_space(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that nothing more can be written."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in _SPACE:
            return True
        if any(word in str(error) for word in _WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False


def missing(error: ModuleNotFoundError, *, of_workflow: bool = False) -> str | None:
    """What to say of a library that is not installed; ``None`` if it is a module of our own.

    ``of_workflow``: who asked for it needs the workflow's other libraries, too.
    """
    library = (error.name or "").partition(".")[0]
    if not library or library == "dollmaker":
        return None
    torch = library in _TORCH and not of_workflow
    extra = _OTHERS.get(library, "torch" if torch else "workflow")
    return f'this needs {library}, which is not installed; pip install "dollmaker[{extra}]".'
