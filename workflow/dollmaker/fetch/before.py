"""Before the first job: named weights are there, as the lock has them, or can be fetched."""

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from dollmaker.config import weight_names
from dollmaker.fetch import lock
from dollmaker.fetch.needed import Need
from dollmaker.runtime.errors import ModelError
from dollmaker.store import contents

_LIBRARIES = ("torch", "torchvision", "timm", "segmentation_models_pytorch", "huggingface_hub")


def require_available(needs: Iterable[Need], root: Path) -> None:
    """Refuse named weights that are not those of the lock, or cannot be had.

    The libraries are loaded for those that are not there yet only. Where they are not installed,
    jobs bring an environment of their own, and it is the rule that says what it cannot have.

    Args:
        needs: The weights; files of the user's are left out.
        root: ``weights_root``.

    Raises:
        ModelError: With the first reason, in one sentence.
    """
    for need in needs:
        if not need.name:
            continue
        try:
            if need.file.is_file():
                lock.check(root, need.name, contents.sha256(need.file))
            else:
                _require(need.name, root)
        except ModelError as error:
            raise ModelError(f"{need.place}: {error}") from None


def _require(name: str, root: Path) -> None:
    if not all(find_spec(module) for module in _LIBRARIES):
        return
    from dollmaker.fetch.libraries import locked
    from dollmaker.fetch.originals import require_reachable

    require_reachable(locked(name, root), root / weight_names.stem(name))
