"""Where networks run."""

import torch

from dollmaker.errors import ModelError


def choose(wanted: str) -> torch.device:
    """The device for a configured ``device``.

    Args:
        wanted: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        ModelError: If a GPU is demanded and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ModelError("device is cuda but no GPU is usable here; set device to auto or cpu.")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def set_precision(precision: str) -> None:
    """Allow the GPU TensorFloat-32 for ``tf32``, and forbid it for anything else."""
    allowed = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed
