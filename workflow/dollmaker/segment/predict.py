"""The masks that a network draws; without what only training needs."""

import torch
from torch import Tensor, nn

from dollmaker.inputs import Input

#: Images of a pass.
BATCH = 32


@torch.no_grad()
def predict(model: nn.Module, images: Tensor, spec: Input, device: torch.device) -> Tensor:
    """Predicted masks, bool (B, K, H, W), of stored images, uint8 (B, C, H, W).

    The network's mode (training or evaluation) is the caller's choice.
    """
    parts = [
        model(spec.prepare(batch.to(device))).float().cpu() > 0
        for batch in torch.split(images, BATCH)
    ]
    return torch.cat(parts)
