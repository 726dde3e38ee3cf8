"""MICRA-Net's network (Bilodeau et al. 2022), written from its description."""

from collections import OrderedDict

from torch import Tensor, nn

_CHANNELS = (32, 64, 128, 256)


class MicraNet(nn.Module):
    """Four blocks of two 3x3 convolutions, then the maximum of each channel, then a linear layer.

    Args:
        outputs: Number of logits.
        channels: Input channels.
        dropout: Probability of dropout before the last layer.
    """

    def __init__(self, *, outputs: int, channels: int, dropout: float = 0.5) -> None:
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        inputs = channels
        for number, width in enumerate(_CHANNELS, start=1):
            if number > 1:
                layers[f"pool{number}"] = nn.MaxPool2d(2)
            for place in (1, 2):
                layers[f"conv{number}_{place}"] = nn.Conv2d(inputs, width, 3, padding=1)
                layers[f"norm{number}_{place}"] = nn.BatchNorm2d(width)
                layers[f"relu{number}_{place}"] = nn.ReLU()
                inputs = width
        self.features = nn.Sequential(layers)
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W), sides at least 8, to logits (B, outputs)."""
        logits: Tensor = self.head(self.dropout(self.pool(self.features(x)).flatten(1)))
        return logits
