"""Methods that need nothing but the gradient by the pixels."""

from torch import Tensor, nn

from dollmaker.attribute.passes import Pairs, input_gradients


def saliency(network: nn.Module, images: Tensor, pairs: Pairs, *, chunk: int) -> Tensor:
    """Gradient of the logit by the pixels, signed (Simonyan et al. 2014, who take its magnitude).

    Args:
        network: float (R, C, H, W) to logits (R, K); evaluation mode, parameters frozen.
        images: float (B, C, H, W), prepared for the network.
        pairs: (image, output) numbers, any order.
        chunk: Rows of a forward pass.

    Returns:
        float32 (P, C, H, W), in logits per unit of input, in the order of ``pairs``.
    """
    return input_gradients(network, images, pairs, chunk=chunk)


def input_x_gradient(network: nn.Module, images: Tensor, pairs: Pairs, *, chunk: int) -> Tensor:
    """Gradient times input (Shrikumar et al. 2016).

    The contribution of each pixel were the network linear around the image, against an input of
    zeros: what counts as zero is up to the network's normalisation.

    Args:
        network: float (R, C, H, W) to logits (R, K); evaluation mode, parameters frozen.
        images: float (B, C, H, W), prepared for the network.
        pairs: (image, output) numbers, any order.
        chunk: Rows of a forward pass.

    Returns:
        float32 (P, C, H, W), in logits, in the order of ``pairs``.
    """
    gradients = input_gradients(network, images, pairs, chunk=chunk)
    return gradients * images[[image for image, _ in pairs]].float()
