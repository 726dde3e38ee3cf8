"""Dry runs: does a network take such an input, before there are images?

On torch's device ``meta`` tensors have shapes but no numbers, so that a forward pass needs no
memory and hardly any time.
"""

import copy
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

#: The largest dry run with numbers, for networks that need them: input values, parameters.
_MOST_VALUES, _MOST_PARAMETERS = 2 * 3 * 512 * 512, 100_000_000

_TOO_FEW = "more than 1 value per channel when training"


def forward(network: nn.Module, shape: tuple[int, ...]) -> Any:
    """The output of a network, in its current mode, for a batch of zeros (B, C, H, W).

    A copy is run: neither the network nor the random numbers change.

    Returns:
        What the network returns, without numbers if possible; ``None`` if it cannot be tried.

    Raises:
        Exception: Whatever the network raises for such an input.
    """
    try:
        return _forward(network, shape, "meta")
    except Exception as error:
        if too_few(error) or next(network.parameters()).is_meta:
            raise
        parameters = sum(parameter.numel() for parameter in network.parameters())
        if torch.Size(shape).numel() > _MOST_VALUES or parameters > _MOST_PARAMETERS:
            if "meta" in str(error):  # the device is at fault, not the shape
                return None
            raise
    return _forward(network, shape, "cpu")


def _forward(network: nn.Module, shape: tuple[int, ...], device: str) -> Any:
    """A pass of a copy, which on ``meta`` takes no memory for its parameters."""
    tensors = chain(network.parameters(), network.buffers())
    twin = copy.deepcopy(network, {id(tensor): _tensor(tensor, device) for tensor in tensors})
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        return twin(torch.zeros(shape, device=device))


def _tensor(tensor: Tensor, device: str) -> Tensor:
    new = tensor.detach().to(device, copy=True)
    return nn.Parameter(new, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else new


def too_few(error: Exception) -> bool:
    """Whether batch normalisation raised this error because a channel had a single value."""
    return isinstance(error, ValueError) and _TOO_FEW in str(error)


def needs_two(network: str, remedy: str) -> str:
    """The sentence for a network of which :func:`fails_on_one` is true."""
    return (
        f"{network} cannot be trained on batches of one image, as its batch normalisation needs "
        f"two; {remedy}."
    )


def fails_on_one(network: nn.Module, shape: tuple[int, ...]) -> bool:
    """Whether the batch normalisation of a network, in its mode, refuses a batch of one."""
    try:
        forward(network, shape)
    except Exception as error:
        return too_few(error)
    return False
