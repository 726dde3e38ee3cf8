"""What the command line makes of damaged files, full disks and libraries that are missing."""

import errno
import os
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


def set_aside(path: Path) -> Path | None:
    """Move a damaged output of the workflow out of the way, so that its rule makes it anew.

    Only within the folder that the workflow names in ``DOLLMAKER_RESULTS``, and never of a
    release: in all other places the file is the user's.

    Returns:
        Where it is now; ``None`` if it was left in its place.
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

    Args:
        error: What names the library.
        of_workflow: Whether who asked for it needs the workflow's other libraries, too.
    """
    library = (error.name or "").partition(".")[0]
    if not library or library == "dollmaker":
        return None
    torch = library in _TORCH and not of_workflow
    extra = _OTHERS.get(library, "torch" if torch else "workflow")
    return f'this needs {library}, which is not installed; pip install "dollmaker[{extra}]".'
