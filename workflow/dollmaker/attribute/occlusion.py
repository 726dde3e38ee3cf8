"""Occlusion (Zeiler & Fergus 2014): how much a logit falls when a window is covered."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from dollmaker.attribute.passes import Pairs
from dollmaker.runtime.errors import ConfigError


def occlusion(
    network: nn.Module,
    images: Tensor,
    pairs: Pairs,
    *,
    chunk: int,
    baselines: Tensor,
    window: float = 0.2,
    stride: float = 0.1,
) -> Tensor:
    """Logit of the image minus logit with a window covered, averaged over the windows of a pixel.

    Windows start at the upper left corner and are cut off at the other sides. It takes forward
    passes only, shared by all findings of an image.

    Args:
        network: float (R, C, H, W) to logits (R, K); evaluation mode.
        images: float (B, C, H, W), prepared for the network.
        pairs: (image, output) numbers, any order.
        chunk: Rows of a forward pass.
        baselines: What covers the images, float (B or 1, C, H, W).
        window: Side of the square window: pixels if 1 or more, else a share of the image's side.
        stride: Distance between windows, likewise; not more than the window.

    Returns:
        float32 (P, 1, H, W), in logits, in the order of ``pairs``.

    Raises:
        ConfigError: If the windows leave gaps or are larger than the image.
    """
    rows = _cover(images.shape[2], window, stride).to(images.device)
    columns = _cover(images.shape[3], window, stride).to(images.device)
    shown = sorted({image for image, _ in pairs})
    drops = _drops(network, images, baselines.expand_as(images), shown, rows, columns, chunk)
    times = rows.sum(0)[:, None] * columns.sum(0)
    maps = torch.zeros(
        (len(pairs), 1, *images.shape[2:]), dtype=torch.float32, device=images.device
    )
    for number, (image, output) in enumerate(pairs):
        maps[number, 0] = (rows.T @ drops[image][:, :, output] @ columns) / times
    return maps


def _cover(side: int, window: float, stride: float) -> Tensor:
    """Which pixels of a side each window covers, float64 (windows, side), 0 or 1."""
    width, step = (
        round(length) if length >= 1 else max(1, round(length * side))
        for length in (window, stride)
    )
    if min(window, stride) <= 0 or not step <= width <= side:
        raise ConfigError(
            f"windows of {width} pixels at a distance of {step} do not cover an image of {side}; "
            "choose a window up to the image's side and a stride up to the window."
        )
    starts = torch.arange(1 + math.ceil((side - width) / step))[:, None] * step
    pixels = torch.arange(side)
    return ((pixels >= starts) & (pixels < starts + width)).double()


def _drops(
    network: nn.Module,
    images: Tensor,
    baselines: Tensor,
    shown: list[int],
    rows: Tensor,
    columns: Tensor,
    chunk: int,
) -> dict[int, Tensor]:
    """For each image, how much each window lowers the logits: float64 (windows, windows, K)."""
    down, across = len(rows), len(columns)
    count = 1 + down * across
    logits: list[Tensor] = []
    with torch.no_grad():
        for places in _chunks(len(shown) * count, chunk):
            numbers = torch.tensor([shown[place // count] for place in places])
            # Place 0 of each image is the image itself; the others are its windows.
            first = torch.tensor([place % count - 1 for place in places], device=images.device)
            window = first.clamp(min=0)
            mask = rows[window // across][:, :, None] * columns[window % across][:, None, :]
            mask = (mask * (first >= 0)[:, None, None])[:, None].bool()
            covered = torch.where(mask, baselines[numbers], images[numbers])
            logits.append(network(covered).double())
    if not shown:
        return {}
    said = torch.cat(logits)[: len(shown) * count].view(len(shown), count, -1)
    return {
        image: (said[k][:1] - said[k][1:]).view(down, across, -1) for k, image in enumerate(shown)
    }


def _chunks(count: int, chunk: int) -> Iterator[list[int]]:
    """Numbers up to ``count``, ``chunk`` at a time; the last number fills up the last chunk."""
    for start in range(0, count, chunk):
        yield [min(k, count - 1) for k in range(start, start + chunk)]
