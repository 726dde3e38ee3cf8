"""dollmaker: pixel-level pseudo-masks from image-level labels."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from dollmaker.release.load import PseudoLabels

__all__ = ["PseudoLabels", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the data set of a release (and torch) only when it is asked for."""
    if name == "PseudoLabels":
        from dollmaker.release.load import PseudoLabels

        return PseudoLabels
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
