"""Segment: a segmentation network is pre-trained end to end on the released masks.

For its users: :func:`load_adapter` and :func:`export_encoder`, imported when they are asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dollmaker.adapt.saved import load_adapter
    from dollmaker.segment.export import export_encoder

__all__ = ["export_encoder", "load_adapter"]

_HOMES = {
    "export_encoder": "dollmaker.segment.export",
    "load_adapter": "dollmaker.adapt.saved",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for: torch takes seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
