"""dollmaker: pixel-level pseudo-masks from image-level labels.

For users of Python: :class:`PseudoLabels`, :func:`load_adapter` and :func:`export_encoder`, which
are imported when they are asked for (torch takes seconds).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from dollmaker.adapt.saved import load_adapter
    from dollmaker.release.load import PseudoLabels
    from dollmaker.segment.export import export_encoder

__all__ = ["PseudoLabels", "__version__", "export_encoder", "load_adapter"]

_MODULES = {
    "PseudoLabels": "dollmaker.release.load",
    "export_encoder": "dollmaker.segment.export",
    "load_adapter": "dollmaker.adapt.saved",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dollmaker.runtime.errors import missing

    try:
        module = import_module(_MODULES[name])
    except ModuleNotFoundError as error:
        raise ImportError(missing(error) or str(error), name=error.name) from None
    return getattr(module, name)
