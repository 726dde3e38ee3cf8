"""LoRA in an encoder, by the library peft.

Low-rank updates of the convolutions and linear layers of a frozen encoder (Hu et al.,
arXiv 2106.09685). Convolutions with groups or dilation are left out: peft cannot merge the first
and computes the second without their dilation.
"""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dollmaker.runtime.errors import ModelError


def find_layers(encoder: nn.Module, x: Tensor) -> list[str]:
    """Names of the layers of an encoder that can carry LoRA, by a pass of ``x`` (1, C, H, W).

    Subclasses are left out, which compute something else than their base (standardised weights,
    padding), and layers whose weights are read without a call (within attention of torch).

    Raises:
        ModelError: If there is none.
    """
    names = [name for name, module in encoder.named_modules() if _fits(module)]
    called: set[str] = set()
    hooks = [
        encoder.get_submodule(name).register_forward_hook(
            lambda _, __, ___, name=name: called.add(name)
        )
        for name in names
    ]
    was_training = encoder.training
    encoder.eval()
    with torch.no_grad():
        encoder(x)
    encoder.train(was_training)
    for hook in hooks:
        hook.remove()
    found = [name for name in names if name in called]
    if not found:
        raise ModelError(
            "this encoder has no layer that LoRA fits; use the tuning adapter, or another encoder."
        )
    return found


def _fits(module: nn.Module) -> bool:
    if type(module) is nn.Conv2d:
        plain = module.groups == 1 and set(module.dilation) == {1}
        return plain and module.padding_mode == "zeros"
    return type(module) is nn.Linear


def add_lora(encoder: nn.Module, layers: Sequence[str], rank: int, seed: int) -> None:
    """Put LoRA into layers of an encoder, in place; at first nothing changes.

    The encoder's own parameters are frozen, and the updates are scaled by 2 (``lora_alpha`` is
    twice the rank).
    """
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    # A pattern: names in a list would also match the ends of other names.
    pattern = "|".join(re.escape(name) for name in layers)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=pattern)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        LoraModel(encoder, config, "default")


def remove_lora(encoder: nn.Module, layers: Sequence[str], *, merge: bool) -> None:
    """Take LoRA out of those layers of an encoder that have it, in place.

    peft's own ``unload`` takes every module with a child ``base_layer`` for its own (DLA has one).
    ``merge`` adds the updates to the weights: to copies, as others may share them.
    """
    for name in layers:
        wrapped: Any = encoder.get_submodule(name)
        if merge:
            wrapped.merge(safe_merge=True)
        parent, _, last = name.rpartition(".")
        encoder.get_submodule(parent).register_module(last, wrapped.get_base_layer())
    if hasattr(encoder, "peft_config"):
        del encoder.peft_config
