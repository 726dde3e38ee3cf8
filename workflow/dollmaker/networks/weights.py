"""Weights in safetensors files, and how they are fitted to networks of other shapes."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from dollmaker.networks import positions
from dollmaker.runtime.errors import ModelError

State = dict[str, Tensor]


def read_weights(path: Path, *, without: tuple[str, ...] = ()) -> State:
    """Read a safetensors file, without the tensors of some names.

    Raises:
        ModelError: If the file is missing, is not safetensors (pickles are never loaded), or holds
            values that are not finite.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise ModelError(
            f"weights file {path} does not exist; correct weights_root or the file's name."
        )
    try:
        state = dict(load_file(path))
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        detail = " ".join(str(error).split())[:200]
        raise ModelError(
            f"weights file {path} is not a safetensors file ({detail}); convert it to safetensors."
        ) from None
    state = {name: tensor for name, tensor in state.items() if name not in without}
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(tensor.float().isfinite().all()):
            raise ModelError(
                f"weights file {path} holds values in {name[:100]!r} that are not finite; train "
                "again with a smaller learning rate, or get the file again."
            )
    return state


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """How images were made numbers where weights were trained: ``(x / 255 - mean) / std``.

    One number for each channel of the weights.
    """

    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)

    def metadata(self) -> dict[str, str]:
        """What a safetensors file says of it."""
        return {"mean": json.dumps(self.mean), "std": json.dumps(self.std)}


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file; empty if it has none or cannot be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as content:
            return dict(content.metadata() or {})
    except (SafetensorError, OSError, ValueError, TypeError, KeyError):
        return {}


def read_normalisation(path: Path) -> Normalisation | None:
    """The mean and deviation that a weights file names; ``None`` if it names none.

    They are JSON in its metadata, ``mean`` and ``std``: what ``dollmaker fetch`` and the export of
    an encoder write.

    Raises:
        ModelError: If they are no numbers, or no deviation can be.
    """
    described = read_metadata(path)
    if "mean" not in described and "std" not in described:
        return None
    try:
        mean, std = (tuple(map(float, json.loads(described[key]))) for key in ("mean", "std"))
        sound = len(mean) == len(std) > 0 and all(map(math.isfinite, mean))
        if not sound or not all(0 < one < math.inf for one in std):
            raise ValueError(f"{mean} and {std}")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        detail = " ".join(str(error).split())[:100]
        raise ModelError(
            f"weights file {path} names a mean and a deviation that are none ({detail}); write "
            "them as lists of numbers, one for each channel, or get the file again."
        ) from None
    return Normalisation(mean=mean, std=std)


def to_bytes(state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The content of a safetensors file: the same tensors and metadata give the same bytes.

    The library itself writes the metadata in an order that changes from process to process.
    """
    from safetensors.torch import save

    data = save({name: tensor.contiguous() for name, tensor in state.items()}, dict(metadata))
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def load_weights(
    module: nn.Module, state: Mapping[str, Tensor], *, optional: tuple[str, ...] = (), source: str
) -> None:
    """Load weights into a network of the same architecture.

    Prefixes of wrappers and timm's flattened names are matched (``features_conv0`` is
    ``features.conv0``). First convolutions and patch embeddings are brought to other input channels
    by :func:`inflate`, positions of a transformer to other grids
    (:mod:`dollmaker.networks.positions`). Parameters with ``optional`` prefixes may be left as they
    are (a classification head); ``source`` says in messages where the weights come from.

    Raises:
        ModelError: If a tensor that is needed is missing or has another shape.
    """
    given = {_plain(name): tensor for name, tensor in state.items()}
    own, rule = module.state_dict(), positions.rule_of(module)
    filled: State = {}
    missing = []
    known: State = {}
    for name in own:
        plain = _plain(name)
        bare = plain.removeprefix("body_")  # timm puts some networks into a module called body
        if (key := plain if plain in given else bare) in given:
            known[name] = given[key]
    seen = _input_channels(known, own)
    for name, tensor in own.items():
        fitted = _fit(name, known[name], tensor, seen, rule) if name in known else None
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
    for prefix in ("model.", "module.", "backbone.", "encoder.", "network."):
        name = name.removeprefix(prefix)
    return unify(name)


def unify(name: str) -> str:
    """A name without the difference between a network and its feature extractor in timm."""
    return name.replace(".", "_")


def inflate(filters: Tensor, channels: int) -> Tensor:
    """Filters (outputs, given, h, w) that look at images, for another number of channels.

    Each new channel gets the mean over the old channels, times old / new. So an image that is
    repeated over its channels gives the same activations.
    """
    return (filters.sum(1, keepdim=True) / channels).repeat(1, channels, 1, 1)


def _input_channels(known: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> tuple[int, int]:
    """Channels of the images that weights and a network are for: of their first convolution."""
    for name, wanted in own.items():
        if name.endswith("weight") and name in known and known[name].ndim == wanted.ndim == 4:
            return known[name].shape[1], wanted.shape[1]
    return 0, 0


def _fit(
    name: str, found: Tensor, wanted: Tensor, seen: tuple[int, int], rule: positions.Rule
) -> Tensor | None:
    """A tensor in the form that is wanted; ``None`` if it cannot be brought into it.

    Convolutions with the input channels of the first one look at images, too: networks have
    several side by side.
    """
    if found.shape == wanted.shape:
        return found.to(wanted.dtype)
    if name.endswith(("pos_embed", "pos_embedding")):
        return positions.fit(found, wanted, rule)
    same = found.ndim == wanted.ndim == 4 and found.shape[2:] == wanted.shape[2:]
    if same and found.shape[0] == wanted.shape[0] and (found.shape[1], wanted.shape[1]) == seen:
        return inflate(found, wanted.shape[1]).to(wanted.dtype)
    return None
