"""The mean field of DenseCRF (Kraehenbuehl & Koltun 2011), in two approximations."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dollmaker.runtime.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

Array = npt.NDArray[np.float32]
Filter = Callable[["Tensor"], "Tensor"]


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """The two kernels of the pairwise energy; defaults are IRNet's."""

    gaussian_sxy: float = 3.0  #: Reach of the smoothness kernel in pixels.
    gaussian_compat: float = 3.0  #: Its strength.
    bilateral_sxy: float = 50.0  #: Reach of the appearance kernel in pixels.
    bilateral_srgb: float = 5.0  #: Its reach in grey levels.
    bilateral_compat: float = 10.0  #: Its strength.

    def enlarged(self, factor: float) -> "Kernels":
        """The same kernels for an image that is larger by a factor."""
        near, far = factor * self.gaussian_sxy, factor * self.bilateral_sxy
        return replace(self, gaussian_sxy=near, bilateral_sxy=far)


_IRNET = Kernels()


def lattice_field(
    foreground: Array, image: npt.NDArray[np.uint8], kernels: Kernels, iterations: int
) -> Array:
    """Mean field on the permutohedral lattice (pydensecrf): fast on a CPU, approximate.

    It goes from probabilities (H, W), 0 to 1 exclusive, and an image (C, H, W) to the probability
    of the foreground, float32 (H, W).

    Raises:
        ModelError: As :func:`require_lattice`.
    """
    require_lattice()
    from pydensecrf import densecrf

    height, width = foreground.shape
    energy = -np.log(np.stack([1 - foreground, foreground])).reshape(2, -1).astype(np.float32)
    crf = densecrf.DenseCRF2D(width, height, 2)
    crf.setUnaryEnergy(np.ascontiguousarray(energy))
    crf.addPairwiseGaussian(sxy=kernels.gaussian_sxy, compat=kernels.gaussian_compat)
    if len(image) in (1, 3):
        colour = np.moveaxis(np.broadcast_to(image, (3, height, width)), 0, -1)
        crf.addPairwiseBilateral(
            sxy=kernels.bilateral_sxy,
            srgb=kernels.bilateral_srgb,
            rgbim=np.ascontiguousarray(colour, dtype=np.uint8),
            compat=kernels.bilateral_compat,
        )
    else:
        features = np.ascontiguousarray(appearance(image, kernels).reshape(-1, height * width))
        crf.addPairwiseEnergy(features, compat=kernels.bilateral_compat)
    field = np.asarray(crf.inference(iterations), np.float32)[1]
    return np.asarray(field.reshape(height, width))


def require_lattice() -> None:
    """Refuse the lattice where there is none.

    Raises:
        ModelError: If pydensecrf is not installed.
    """
    if find_spec("pydensecrf") is None:
        raise ModelError(
            "dense_crf with solver: lattice needs pydensecrf2, which is not installed (it does not "
            "build on Python 3.13); give the step solver: sampled, or install it."
        )


def appearance(image: npt.NDArray[np.uint8], kernels: Kernels) -> Array:
    """What the appearance kernel compares: place and channels of each pixel, (2 + C, H, W).

    The squared distance of colours is three times the mean over channels, so that any number of
    channels counts as three.
    """
    places = np.indices(image.shape[1:], dtype=np.float32)[::-1] / kernels.bilateral_sxy
    weight = (3 / len(image)) ** 0.5 / kernels.bilateral_srgb
    return np.concatenate([places, image.astype(np.float32) * weight]).astype(np.float32)


def device_field(
    foreground: Array, image: npt.NDArray[np.uint8], kernels: Kernels, iterations: int
) -> Array:
    """Mean field by :func:`mean_field`, on the GPU if there is one; see :func:`lattice_field`."""
    import torch

    from dollmaker.runtime import devices

    place = devices.choose("auto")
    start, picture = (torch.from_numpy(a[None]).to(place) for a in (foreground, image))
    return np.asarray(mean_field(start, picture, kernels, iterations=iterations)[0].cpu().numpy())


def mean_field(
    foreground: "Tensor",
    images: "Tensor",
    kernels: Kernels = _IRNET,
    *,
    iterations: int = 10,
    stride: int = 4,
) -> "Tensor":
    """Mean field for GPUs, batched: another approximation than :func:`lattice_field`.

    The smoothness kernel is a convolution, cut at four times its reach. The appearance kernel
    reaches every pixel from every ``stride``-th pixel in each direction, whose message counts
    stride^2 times; stride 1 is exact. Its matrix, (H W) x (H W / stride^2), is kept over the
    iterations, in half precision on a GPU.

    Images are uint8 or float (B, C, H, W) in 0..255; any number of channels counts as three.
    ``foreground`` is the probability to start from, float32 (B, H, W), 0 to 1 exclusive, and so is
    the result, on its device.
    """
    import torch

    logit = torch.logit(foreground.float())
    appearance = _appearance(images.to(foreground.device).float(), kernels, stride)
    blur = _blur(foreground, kernels.gaussian_sxy)
    field = foreground.float()
    for _ in range(iterations):
        # Two labels that sum to one: the difference of their messages is that of 2 q - 1.
        spin = 2 * field - 1
        message = kernels.gaussian_compat * blur(spin)
        message += kernels.bilateral_compat * appearance(spin)
        field = torch.sigmoid(logit + message)
    return field


def _normalised(summed: Filter, ones: "Tensor") -> Filter:
    """A kernel's sum, symmetrically normalised; ``ones`` are (1 or B, H, W)."""
    norm = summed(ones).clamp(min=1e-20).rsqrt()
    return lambda values: norm * summed(norm * values)


def _blur(like: "Tensor", reach: float) -> Filter:
    """The Gaussian, by convolution."""
    import torch
    from torch.nn.functional import conv2d

    half = int(4 * reach)
    steps = torch.arange(-half, half + 1, device=like.device)
    line = torch.exp(-(steps.float() / reach).square() / 2)

    def summed(values: "Tensor") -> "Tensor":
        rows = conv2d(values[:, None], line[None, None, :, None], padding=(half, 0))
        return conv2d(rows, line[None, None, None, :], padding=(0, half))[:, 0]

    return _normalised(summed, torch.ones_like(like[:1], dtype=torch.float32))


def _appearance(images: "Tensor", kernels: Kernels, stride: int) -> Filter:
    """The bilateral kernel, summed over a grid of pixels."""
    import torch

    batch, channels, height, width = images.shape
    device, pixels = images.device, height * width
    places = torch.meshgrid(
        *(torch.arange(side, device=device) for side in (height, width)), indexing="ij"
    )
    place = torch.stack(places).float() / kernels.bilateral_sxy
    colour = images * (3 / channels) ** 0.5 / kernels.bilateral_srgb
    features = torch.cat([place.expand(batch, -1, -1, -1), colour], 1)
    starts = (min(stride, height) // 2, min(stride, width) // 2)
    grid = (slice(None), *(slice(start, None, stride) for start in starts))
    some = features.movedim(1, -1)[grid].flatten(1, 2)
    every = features.flatten(2).mT
    share = float(pixels) / some.shape[1]
    half = torch.float16 if images.is_cuda else torch.float32
    matrix = torch.empty(batch, pixels, some.shape[1], dtype=half).to(device)
    for first in range(0, pixels, 8192):  # no second matrix at the same time
        part = torch.cdist(every[:, first : first + 8192], some)
        matrix[:, first : first + 8192] = torch.exp(part.square() / -2)
    # A pixel reaches itself with weight 1, not with the weight of its sample.
    chosen = torch.arange(pixels, device=device).reshape(1, height, width)[grid].flatten()
    matrix[:, chosen, torch.arange(len(chosen), device=device)] = 0

    def summed(values: "Tensor") -> "Tensor":
        near = values[grid].flatten(1)[..., None].to(matrix.dtype)
        message = (matrix @ near)[..., 0].float() * share
        return values + message.reshape(values.shape)

    return _normalised(summed, torch.ones(batch, height, width, device=device))
