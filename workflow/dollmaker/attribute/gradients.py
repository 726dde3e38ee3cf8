"""Methods that need the gradient by the pixels alone."""

from torch import Tensor, nn

from dollmaker.attribute.passes import Pairs, input_gradients


def saliency(network: nn.Module, images: Tensor, pairs: Pairs, *, chunk: int) -> Tensor:
    """The signed gradient of the logit by the pixels (Simonyan et al. 2014 take its magnitude).

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
    """Gradient times input (Shrikumar et al. 2016), in logits; arguments as of :func:`saliency`.

    If the network were linear around the image, this would be the contribution of each pixel
    against an input of zeros, which the normalisation of the network defines.
    """
    gradients = input_gradients(network, images, pairs, chunk=chunk)
    return gradients * images[[image for image, _ in pairs]].float()
