"""Occlusion (Zeiler & Fergus 2014): how much a logit falls when a window is covered."""

import math

import torch
from torch import Tensor

from dollmaker.attribute.passes import Question
from dollmaker.runtime.errors import ConfigError


def occlusion(
    asked: Question, baseline: Tensor, *, window: float = 0.2, stride: float = 0.1
) -> Tensor:
    """Logit of the image minus logit with a window covered, averaged over the windows of a pixel.

    Windows start at the upper left corner and are cut off at the other sides. It takes forward
    passes only, shared by all findings of an image. Maps are float32 (P, 1, H, W), in logits.

    Args:
        asked: The question.
        baseline: What covers the images, float (B or 1, C, H, W).
        window: Side of the square window: pixels if 1 or more, else a share of the image's side.
        stride: Distance between windows, likewise; not more than the window.

    Raises:
        ConfigError: If the windows leave gaps or are larger than the image.
    """
    device, size = asked.images.device, asked.images.shape[2:]
    rows, columns = (_cover(side, window, stride).to(device) for side in size)
    drops = _drops(asked, baseline, rows, columns)
    times = rows.sum(0)[:, None] * columns.sum(0)
    maps = asked.blank(1)
    for number, (image, output) in enumerate(asked.pairs):
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


def _drops(asked: Question, baseline: Tensor, rows: Tensor, columns: Tensor) -> dict[int, Tensor]:
    """For each image, how much each window lowers the logits: float64 (windows, windows, K)."""
    images, chunk = asked.images, asked.chunk
    baselines = baseline.expand_as(images)
    shown = sorted(set(asked.rows))
    if not shown:
        return {}
    down, across = len(rows), len(columns)
    count = 1 + down * across  # place 0 of each image is the image itself
    total = len(shown) * count
    logits = []
    with torch.no_grad():
        for start in range(0, total, chunk):
            # The last place fills up the last pass.
            places = torch.arange(start, start + chunk).clamp(max=total - 1)
            numbers = torch.tensor(shown)[places // count]
            first = (places % count - 1).to(images.device)
            window = first.clamp(min=0)
            mask = rows[window // across][:, :, None] * columns[window % across][:, None, :]
            mask = (mask * (first >= 0)[:, None, None])[:, None].bool()
            covered = torch.where(mask, baselines[numbers], images[numbers])
            logits.append(asked.network(covered).double())
    said = torch.cat(logits)[:total].view(len(shown), count, -1)
    drops = (said[:, :1] - said[:, 1:]).view(len(shown), down, across, -1)
    return dict(zip(shown, drops, strict=True))
