"""Before the first job: weights files are sound, and those that have a name can be fetched."""

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from dollmaker.config import weight_names
from dollmaker.fetch import lock
from dollmaker.fetch.needed import Need
from dollmaker.runtime.errors import ModelError
from dollmaker.store import sums
from dollmaker.store.files import POINTERS, WEB_PAGE

_LIBRARIES = ("torch", "torchvision", "timm", "segmentation_models_pytorch", "huggingface_hub")

#: How weights files begin that are no safetensors, and what they are.
_FOREIGN = {
    b"PK": "a pickle of PyTorch, which is never loaded; convert it to safetensors",
    b"\x80": "a pickle, which is never loaded; convert it to safetensors",
    **POINTERS,
    b"<": WEB_PAGE,
}


def require_weights(needs: Iterable[Need], root: Path) -> None:
    """Refuse weights files that are missing or are none, and names that cannot be had.

    What has a name may be fetched yet; the libraries are loaded for what is not there only. Where
    they are not installed, jobs bring an environment of their own, and it is the rule that says
    what it cannot have.

    Args:
        needs: The weights.
        root: ``weights_root``.

    Raises:
        ModelError: With the first reason, in one sentence.
    """
    needs = sorted(needs, key=lambda need: need.file)
    for need in needs:
        if not need.name or need.file.is_file():
            check_weights(need.file)
    for need in needs:
        try:
            if need.name and need.file.is_file():
                lock.check(root, need.name, sums.sha256(need.file))
            elif need.name:
                _require_reachable(need.name, root)
        except ModelError as error:
            raise ModelError(f"{need.place}: {error}") from None


def check_weights(path: Path) -> None:
    """Refuse a weights file that is missing or is no safetensors, by its header alone.

    Raises:
        ModelError: If it cannot be read as safetensors, or holds nothing.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ModelError(
            f"weights file {path} does not exist; correct weights_root or the file's name."
        )
    try:
        with safe_open(path, framework="np") as content:
            names = list(content.keys())
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"weights file {path} is {_foreign(path, error)}.") from None
    if not names:
        raise ModelError(f"weights file {path} holds no weights; get it again.")


def _foreign(path: Path, error: Exception) -> str:
    """What a file that is no whole safetensors file is, and what to do."""
    with path.open("rb") as handle:
        head = handle.read(32)
    for start, kind in _FOREIGN.items():
        if head.startswith(start):
            return kind
    detail = " ".join(str(error).split())[:200]
    return f"no whole safetensors file ({detail}); get it again, or convert it to safetensors"


def _require_reachable(name: str, root: Path) -> None:
    if not all(find_spec(module) for module in _LIBRARIES):
        return
    from dollmaker.fetch.libraries import locked
    from dollmaker.fetch.originals import require_reachable

    require_reachable(locked(name, root), root / weight_names.stem(name))
