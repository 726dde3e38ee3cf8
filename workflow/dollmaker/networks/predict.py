"""Predictions of segmenters, batch by batch."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from dollmaker.networks.inputs import Input

#: Images of a pass.
BATCH = 32


@torch.no_grad()
def predict(model: nn.Module, images: Tensor, spec: Input, device: torch.device) -> Tensor:
    """Predicted masks, bool (B, K, H, W), of images (B, C, H, W) in levels.

    The network's mode (training or evaluation) is the caller's choice.
    """
    parts = [logits > 0 for logits in predict_logits(model, images, spec, device)]
    return torch.cat(parts)


@torch.no_grad()
def predict_logits(
    model: nn.Module, images: Tensor, spec: Input, device: torch.device
) -> Iterator[Tensor]:
    """Logits float32 (b, K, H, W) of stored images, batch by batch. As :func:`predict`."""
    for batch in torch.split(images, BATCH):
        yield model(spec.prepare(batch.to(device))).float().cpu()
