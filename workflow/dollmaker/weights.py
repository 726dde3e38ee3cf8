"""Local weights: safetensors files, and how they fit networks of other shapes."""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from dollmaker.errors import ModelError

State = dict[str, Tensor]


def read_weights(path: Path) -> State:
    """Read a safetensors file.

    Raises:
        ModelError: If the file is missing or is not safetensors (pickles are never loaded).
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise ModelError(
            f"weights file {path} does not exist; correct weights_root or the file's name."
        )
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(
            f"weights file {path} is not a safetensors file ({error}); convert it to safetensors."
        ) from None


def load_weights(
    module: nn.Module, state: Mapping[str, Tensor], *, optional: tuple[str, ...] = (), source: str
) -> None:
    """Load weights of the same architecture, whatever wraps it.

    Names are compared after removal of a wrapper's prefix and of timm's flattening
    (``stem_0`` = ``stem.0``). A first convolution is adapted between 1 and 3 input channels: three
    are summed into one (a grey image fed thrice gives the same output), one is spread over three.

    Args:
        module: The network to fill, in place.
        state: Name -> tensor.
        optional: Prefixes of parameters that may be left as they are (a classification head).
        source: Where the weights come from, for the message.

    Raises:
        ModelError: If a tensor that is needed is missing or has another shape.
    """
    given = {_plain(name): tensor for name, tensor in state.items()}
    own = module.state_dict()
    filled: State = {}
    missing = []
    for name, tensor in own.items():
        found = given.get(_plain(name))
        fitted = None if found is None else _fit_channels(found, tensor)
        if fitted is not None:
            filled[name] = fitted
        elif not name.startswith(optional or ("\0",)) and not name.endswith("num_batches_tracked"):
            missing.append(name)
    if missing:
        raise ModelError(
            f"{source} does not fit the network: {len(missing)} of {len(own)} tensors are missing "
            f"or of another shape, first {missing[0]!r}; name the architecture of the weights."
        )
    module.load_state_dict({**own, **filled})


def _plain(name: str) -> str:
    for prefix in ("model.", "encoder.", "module.", "network."):
        name = name.removeprefix(prefix)
    return re.sub(r"^([a-z]+)_(\d+)\.", r"\1.\2.", name)


def _fit_channels(found: Tensor, wanted: Tensor) -> Tensor | None:
    if found.shape == wanted.shape:
        return found.to(wanted.dtype)
    same = found.ndim == wanted.ndim == 4 and found.shape[2:] == wanted.shape[2:]
    if same and found.shape[0] == wanted.shape[0]:
        if (found.shape[1], wanted.shape[1]) == (3, 1):
            return found.sum(1, keepdim=True).to(wanted.dtype)
        if (found.shape[1], wanted.shape[1]) == (1, 3):
            return (found.repeat(1, 3, 1, 1) / 3).to(wanted.dtype)
    return None


def freeze_batch_norm(module: nn.Module) -> None:
    """Keep running statistics and affine parameters of batch normalisation as they are.

    Must be called after every ``module.train()``.
    """
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.eval()
            for parameter in layer.parameters(recurse=False):
                parameter.requires_grad_(False)
