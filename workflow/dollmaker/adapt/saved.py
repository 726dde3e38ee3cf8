"""What a task costs beside a shared base: one small file, and how it is put on the base again."""

import copy
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dollmaker.adapt.adapters import has_adapters
from dollmaker.adapt.tuning import FROZEN, Small, Tuned
from dollmaker.networks.inputs import Input
from dollmaker.networks.segmenters import read_segmenter
from dollmaker.networks.weights import read_weights
from dollmaker.release.models import find_model
from dollmaker.runtime.errors import ArtifactError, ModelError
from dollmaker.store.files import atomic_path, read_json, sha256_file, write_json

WEIGHTS, DESCRIPTION = "adapter.safetensors", "adapter.json"


def pack(tuned: Tuned) -> bytes:
    """The content of ``adapter.safetensors``: :meth:`Tuned.own_state`, on the CPU."""
    from safetensors.torch import save

    own = {
        # A clone each: safetensors refuses tensors that share memory.
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tuned.own_state().items()
    }
    return bytes(save(own, metadata={"format": "pt"}))


def save_adapter(
    tuned: Tuned, folder: Path, *, classes: Sequence[str], spec: Input, **more: Any
) -> None:
    """Write what the task changed of the shared base, and what it needs to be loaded.

    ``adapter.safetensors`` holds adapters, LoRA or biases, the head, the decoder where it is
    trained, and whatever does not come from the base (of ``full``: everything); ``more`` are
    further keys of ``adapter.json``. The folder is made whole or not at all.
    """
    with atomic_path(folder) as part:
        part.mkdir()
        (part / WEIGHTS).write_bytes(pack(tuned))
        base = tuned.base_state()
        write_json(
            part / DESCRIPTION,
            {
                "mode": tuned.tuning,
                "classes": list(classes),
                "input": vars(spec),
                **tuned.inserted,
                "base": {"parts": list(tuned.base), "sha256": _digest(base) if base else None},
                **more,
                "sha256": sha256_file(part / WEIGHTS),
            },
        )


def load_adapter(base: Path | str | nn.Module, folder: Path | str) -> Tuned:
    """Put an adapter on its base.

    A base that is given as a network stays as it is, and shares the memory of its frozen
    parameters with the result: many tasks cost one base.

    Args:
        base: Folder of the segmenter, or a release that carries it, or a network of
            segmentation-models-pytorch with the starting weights.
        folder: What :func:`save_adapter` wrote, or the name of an adapter that the release carries.

    Returns:
        The tuned network in evaluation mode; it gives logits (B, K, H, W).

    Raises:
        ModelError: If the base is another one than the adapter was trained on, or carries adapters
            or LoRA already.
        ArtifactError: If the adapter is damaged.
    """
    base, folder = base if isinstance(base, nn.Module) else Path(base), Path(folder)
    if isinstance(base, Path) and (base / "models").is_dir() and not folder.is_dir():
        folder = find_model(base, str(folder))
    description = read_json(folder / DESCRIPTION)
    state = read_weights(folder / WEIGHTS)
    try:
        mode, parts = description["mode"], description["base"]["parts"]
        wanted, intact = description["base"]["sha256"], description["sha256"]
        inserted = {key: description[key] for key in ("adapters", "lora") if key in description}
        FROZEN[mode]
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"{folder / DESCRIPTION} lacks {error}; save it again.") from None
    if intact != sha256_file(folder / WEIGHTS):
        raise ArtifactError(f"{folder / WEIGHTS} is not what was written; save it again.")
    if isinstance(base, nn.Module):
        _require_plain(base)
        model = _share(base)
    else:  # laid out in memory as networks are trained
        model = read_segmenter(base).to(memory_format=torch.channels_last)
    plain = {name for name in state if not name.startswith("adapters.") and ".lora_" not in name}
    _resize_head(model, state)
    expected = {k: v for k, v in model.state_dict().items() if k not in plain}
    if (_digest(expected) if expected else None) != wanted:
        named = "the given network" if isinstance(base, nn.Module) else str(base)
        raise ModelError(
            f"{named} is not the base that the adapter {folder} was trained on (sha256); give the "
            f"network whose {' and '.join(parts)} it started from."
        )
    reference = next(model.parameters())
    state = {name: tensor.to(reference.device) for name, tensor in state.items()}
    try:
        _fill(model, {name: state[name] for name in plain})
        small = Small(inserted=inserted)
        tuned = Tuned(model, mode, small, freeze_norm=True, base=parts)
        rest = {name: tensor for name, tensor in state.items() if name not in plain}
        _fill(tuned, {n if n.startswith("adapters.") else f"model.{n}": rest[n] for n in rest})
    except (RuntimeError, AttributeError, ValueError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise ModelError(
            f"the adapter {folder} does not fit the base ({first}); give a network of the "
            "architecture it was trained with."
        ) from None
    return tuned.eval()


def _require_plain(base: nn.Module) -> None:
    """Refuse a base that a task has changed already: a second adapter would work on the first."""
    lora = any(".lora_A." in name for name in base.state_dict())
    if isinstance(base, Tuned) or lora or has_adapters(base):
        raise ModelError(
            "the given network carries adapters or LoRA, or is the result of load_adapter; load "
            "every adapter onto the plain base, or call unload() of that result first and give "
            "what it returns."
        )


def _digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _share(model: nn.Module) -> nn.Module:
    """A copy of a network with the memory of its parameters; buffers are copied."""
    memo: dict[int, Any] = {
        id(p): nn.Parameter(p.detach(), requires_grad=p.requires_grad) for p in model.parameters()
    }
    return copy.deepcopy(model, memo)


def _resize_head(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give the head's last convolution as many channels as there are classes."""
    head = model.get_submodule("segmentation_head")
    for name, layer in list(head.named_modules()):
        found = state.get(f"segmentation_head.{name}.weight")
        if not isinstance(layer, nn.Conv2d) or found is None or len(found) == len(layer.weight):
            continue
        # No random numbers: it is filled from the file.
        new = nn.utils.skip_init(  # type: ignore[no-untyped-call]
            nn.Conv2d,
            layer.in_channels,
            len(found),
            layer.kernel_size,
            layer.stride,
            layer.padding,
            bias=layer.bias is not None,
        )
        if layer.weight.is_contiguous(memory_format=torch.channels_last):
            new = new.to(memory_format=torch.channels_last)
        head.set_submodule(name, new.to(layer.weight.device))


def _fill(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Replace tensors of a module, never writing into those it has (they may be shared)."""
    if not state:
        return
    own = module.state_dict()
    laid_out = {name: _lay_out(tensor, own.get(name)) for name, tensor in state.items()}
    unexpected = module.load_state_dict(laid_out, strict=False, assign=True).unexpected_keys
    if unexpected:
        raise ValueError(f"no place for {unexpected[0]}")


def _lay_out(tensor: Tensor, as_in: Tensor | None) -> Tensor:
    """A tensor with the strides of another: they decide in which order a convolution sums."""
    if as_in is None or as_in.shape != tensor.shape:
        return tensor
    return torch.empty_strided(
        tensor.shape, as_in.stride(), dtype=tensor.dtype, device=tensor.device
    ).copy_(tensor)
