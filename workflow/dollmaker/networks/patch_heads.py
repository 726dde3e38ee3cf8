"""A head on every patch of a transformer: labels of images, learned by the patches that show why.

An image's logit is the soft maximum of its patches' (multiple-instance learning; log-sum-exp
pooling as of Pinheiro & Collobert 2015). A transformer has told every patch what the image holds,
so that all would say the same; what they have in common is subtracted first, and is our choice.
Grad-CAM at :class:`SharedMeanNorm` is then the logits of the patches over their mean.
"""

import math

from torch import Tensor, nn

from dollmaker.runtime.errors import ModelError


class SharedMeanNorm(nn.Module):
    """Tokens (B, prefix + N, D) less the mean over the image's N patches."""

    def __init__(self, prefix: int) -> None:
        super().__init__()
        self.prefix = prefix

    def forward(self, tokens: Tensor) -> Tensor:
        """Centred tokens, the ones before the patches, too."""
        return tokens - tokens[:, self.prefix :].mean(1, keepdim=True)


class PatchHead(nn.Module):
    """Tokens (B, prefix + N, D) to logits (B, outputs): log of the mean of exp over the patches."""

    def __init__(self, width: int, outputs: int, prefix: int) -> None:
        super().__init__()
        self.centre = SharedMeanNorm(prefix)
        self.linear = nn.Linear(width, outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the images."""
        patches: Tensor = self.linear(self.centre(tokens))[:, self.centre.prefix :]
        return patches.logsumexp(1) - math.log(patches.shape[1])


def put_patch_head(network: nn.Module, outputs: int, title: str) -> None:
    """Give a plain vision transformer of timm without a head one on every patch, in place.

    Raises:
        ModelError: If the network is no such transformer.
    """
    from timm.models.vision_transformer import VisionTransformer

    if not isinstance(network, VisionTransformer):
        raise ModelError(
            f"{title} has no head on every patch: it is no plain vision transformer of timm; name "
            "one, such as mil:vit_small_patch14_dinov2."
        )
    network.head = PatchHead(network.num_features, outputs, network.num_prefix_tokens)
