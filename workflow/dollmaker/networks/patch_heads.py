"""A head on every patch of a transformer: labels of images, learned by the patches that show why.

An image's logit is the soft maximum of its patches' (multiple-instance learning; log-sum-exp
pooling as of Pinheiro & Collobert 2015). A transformer has told every patch what the image holds,
so that all would say the same; what they have in common is subtracted first, and is our choice.
Grad-CAM at :class:`SharedMeanNorm` is then the logits of the patches over their mean.

The soft maximum rewards either side of an axis along which patches differ, and training does not
change sides. So the head begins with an axis and a side that labels say (:func:`begin`): our own.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dollmaker.measures.scores import auroc
from dollmaker.runtime.errors import ModelError

#: How sharp the soft maximum is: 0 would be the mean, infinity the maximum. Our choice.
_SHARPNESS = 8.0

#: Standard deviation of the patches' logits to begin with, and the least that is taken for theirs.
_START, _LEAST = 0.3, 1e-6


class SharedMeanNorm(nn.Module):
    """Tokens (B, prefix + N, D) less the mean over the image's N patches."""

    def __init__(self, prefix: int) -> None:
        super().__init__()
        self.prefix = prefix

    def forward(self, tokens: Tensor) -> Tensor:
        """Centred tokens, the ones before the patches, too."""
        return tokens - tokens[:, self.prefix :].mean(1, keepdim=True)


class PatchHead(nn.Module):
    """Tokens (B, prefix + N, D) to logits (B, outputs): the soft maximum over the patches."""

    def __init__(self, width: int, outputs: int, prefix: int) -> None:
        super().__init__()
        self.centre = SharedMeanNorm(prefix)
        self.linear = nn.Linear(width, outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the images."""
        patches: Tensor = self.linear(self.centre(tokens))[:, self.centre.prefix :]
        total = (_SHARPNESS * patches).logsumexp(1) - math.log(patches.shape[1])
        return total / _SHARPNESS


def put_patch_head(network: nn.Module, outputs: int, title: str) -> None:
    """Give a plain vision transformer of timm without a head one on every patch, in place.

    Raises:
        ModelError: If the network is no such transformer.
    """
    from timm.models.vision_transformer import VisionTransformer

    # Kinds of it may have heads of their own.
    if not isinstance(network, VisionTransformer) or type(network) is not VisionTransformer:
        raise ModelError(
            f"{title} has no head on every patch: it is no plain vision transformer of timm; name "
            "one, such as mil:vit_small_patch14_dinov2."
        )
    network.reset_classifier(0, "")  # the head is given all tokens
    network.head = PatchHead(network.num_features, outputs, network.num_prefix_tokens)


@torch.no_grad()
def begin(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor, Tensor]]) -> None:
    """Give a network's head on every patch, where it has one, the weights to begin with, in place.

    The axis of a finding is the one along which centred patches vary most in images with it, less
    in images without it (the first eigenvector of the difference of second moments). Its side is
    the one whose maxima tell these images apart better (AUROC). No patch has a label. Findings
    that lack images of either kind keep the weights that they have.

    Args:
        network: In evaluation mode, with parameters on the device of the images.
        batches: Images (B, C, H, W) as the network sees them, labels in 0..1 and weights, 0 where
            a label is unknown, (B, K).
    """
    head = getattr(network, "head", None)
    if not isinstance(head, PatchHead):
        return
    caught: list[Tensor] = []
    prefix = head.centre.prefix

    def catch(_: nn.Module, __: object, tokens: Tensor) -> None:
        caught.append(tokens[:, prefix:].half().cpu())

    labels, known = [], []
    with head.centre.register_forward_hook(catch):
        for images, values, weights in batches:
            network(images)
            labels.append(values.cpu() > 0.5)
            known.append(weights.cpu() > 0)
    patches, there, told = torch.cat(caught), torch.cat(labels), torch.cat(known)
    for k in range(there.shape[1]):
        rows = told[:, k]
        positive = there[rows, k]
        if positive.all() or not positive.any():
            continue
        some = patches[rows].float()
        axis = torch.linalg.eigh(_moment(some[positive]) - _moment(some[~positive])).eigenvectors
        said = some @ axis[:, -1].float()
        up, down = (auroc(positive.numpy(), (side * said).amax(1).numpy()) for side in (1, -1))
        weight = axis[:, -1] * (_START / max(float(said.std()), _LEAST) * (1 if up >= down else -1))
        head.linear.weight[k] = weight.to(head.linear.weight)
        head.linear.bias[k] = 0


def _moment(patches: Tensor) -> Tensor:
    """Second moment float64 (D, D) of patches (B, N, D)."""
    rows = patches.flatten(0, 1).double()
    return rows.T @ rows / len(rows)
