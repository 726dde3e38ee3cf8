"""Batch normalisation: freeze it, or measure its statistics for the final weights (PreciseBN).

During training the statistics are an exponential mean over past steps, and so belong to older
weights. Here images pass once with fixed weights, and all layers are measured at once (Wu and
Johnson 2021, "Rethinking Batch in BatchNorm").
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Self

import torch
from torch import Tensor, nn

Norm = nn.modules.batchnorm._BatchNorm

#: Images that statistics are measured on at most, and those of a pass.
MOST, _BATCH = 128, 32


class _Moments:
    """Count, mean (C) and sum of squared deviations (C) of all values that a layer has seen."""

    def __init__(self, layer: Norm, single: bool) -> None:
        self.layer = layer
        self.count = 0
        self.mean = torch.zeros(layer.num_features, dtype=torch.float64)
        self.squares = self.mean.clone()
        self._single = single
        self._kept = {name: value.clone() for name, value in layer.named_buffers()}
        self._momentum = layer.momentum

    def __enter__(self) -> Self:
        self.layer.momentum = 1.0  # the running statistics are those of the last batch
        self._hook = self.layer.register_forward_hook(self._add)
        return self

    def __exit__(self, *_: object) -> None:
        self._hook.remove()
        self.layer.momentum = self._momentum
        for name, value in self._kept.items():
            self.layer.get_buffer(name).copy_(value)

    def _add(self, layer: nn.Module, inputs: tuple[Tensor, ...], _: object) -> None:
        """Join a batch to those before it (Chan et al. 1979)."""
        x = inputs[0]
        count = x.numel() // x.shape[1]
        if self._single and count == len(x):
            return  # copies of one value have no variance
        total = self.count + count
        mean = layer.get_buffer("running_mean").double().cpu()
        variance = layer.get_buffer("running_var").double().cpu()
        step = mean - self.mean
        self.squares += variance * (count - 1) + step.square() * (self.count * count / total)
        self.mean += step * (count / total)
        self.count = total

    def write(self) -> None:
        """Put them into the layer, which keeps its own if nothing can be said."""
        if self.count > 1:
            self.layer.get_buffer("running_mean").copy_(self.mean)
            self.layer.get_buffer("running_var").copy_(self.squares / (self.count - 1))


def freeze_batch_norm(module: nn.Module) -> None:
    """Keep running statistics and affine parameters of batch normalisation as they are.

    Must be called after every ``module.train()``.
    """
    for layer in module.modules():
        if isinstance(layer, Norm):
            layer.eval()
            for parameter in layer.parameters(recurse=False):
                parameter.requires_grad_(False)


def moving(model: nn.Module, owner: nn.Module | None = None) -> list[Norm]:
    """The layers of a network whose statistics move in training: not those that are frozen.

    Leaves the network in training mode. ``owner`` is the module that it is part of, whose ``train``
    freezes; itself if ``None``.
    """
    (owner or model).train()
    layers = [layer for layer in model.modules() if isinstance(layer, Norm)]
    return [x for x in layers if x.training and x.running_mean is not None]


def recompute(
    model: nn.Module,
    images: Tensor,
    prepare: Callable[[Tensor], Tensor],
    owner: nn.Module | None = None,
) -> None:
    """Measure the statistics of the layers that move in training; no weight changes.

    Each layer gets the mean and the unbiased variance of its inputs, while every such layer
    normalises with its batch and dropout is off. A single image is passed twice, and a layer that
    sees only one value of it keeps its statistics. Leaves the network in evaluation mode.

    ``images`` (N, C, H, W) in levels, at least one, are the same in all processes; ``prepare`` maps
    a batch of them to the network's input. ``owner`` is as for :func:`moving`.
    """
    layers = moving(model, owner)
    model.eval()
    if not layers:
        return
    single = len(images) == 1
    moments = [_Moments(layer, single) for layer in layers]
    for layer in layers:
        layer.train()
    with torch.no_grad(), ExitStack() as stack:
        for each in moments:
            stack.enter_context(each)
        for batch in equal_batches(images.repeat(2, 1, 1, 1) if single else images):
            model(prepare(batch))
    for each in moments:
        each.write()
    model.eval()


def equal_batches(images: Tensor, most: int = _BATCH) -> Iterator[Tensor]:
    """Split images into as few batches of one size as possible; a remainder is left out.

    A small last batch would count by its number of values but normalise with few.
    """
    count = -(-len(images) // most)
    size = len(images) // count
    return (images[start : start + size] for start in range(0, count * size, size))
