"""The mean field of DenseCRF (Kraehenbuehl & Koltun 2011), in two approximations."""

from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dollmaker.runtime.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """The two kernels of the pairwise energy; defaults are IRNet's.

    Attributes:
        gaussian_sxy: Reach of the smoothness kernel in pixels.
        gaussian_compat: Its strength.
        bilateral_sxy: Reach of the appearance kernel in pixels.
        bilateral_srgb: Its reach in grey levels.
        bilateral_compat: Its strength.
    """

    gaussian_sxy: float = 3.0
    gaussian_compat: float = 3.0
    bilateral_sxy: float = 50.0
    bilateral_srgb: float = 5.0
    bilateral_compat: float = 10.0

    def enlarged(self, factor: float) -> "Kernels":
        """The same kernels for an image that is larger by a factor."""
        return replace(
            self,
            gaussian_sxy=factor * self.gaussian_sxy,
            bilateral_sxy=factor * self.bilateral_sxy,
        )


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
    kernels: Kernels | None = None,
    *,
    iterations: int = 10,
    stride: int = 4,
) -> "Tensor":
    """Mean field for GPUs, batched: another approximation than :func:`lattice_field`.

    The smoothness kernel is a convolution, cut at four times its reach. The appearance kernel
    reaches every pixel from every ``stride``-th pixel in each direction, whose message counts
    stride^2 times; stride 1 is exact. Its matrix, (H W) x (H W / stride^2), is kept over the
    iterations, in half precision on a GPU.

    Args:
        foreground: Probability to start from, float32 (B, H, W), 0 to 1 exclusive.
        images: uint8 or float (B, C, H, W) in 0..255; any number of channels counts as three.
        kernels: Of the pairwise energy; ``None`` is IRNet's.
        iterations: Of the mean field.
        stride: See above.

    Returns:
        Probability of the foreground, float32 (B, H, W), on the device of ``foreground``.
    """
    import torch

    kernels = kernels or Kernels()
    logit = torch.logit(foreground.float())
    appearance = _Appearance(images.to(foreground.device).float(), kernels, stride)
    blur = _Blur(foreground, kernels.gaussian_sxy)
    field = foreground.float()
    for _ in range(iterations):
        # Two labels that sum to one: the difference of their messages is that of 2 q - 1.
        spin = 2 * field - 1
        message = kernels.gaussian_compat * blur(spin)
        message += kernels.bilateral_compat * appearance(spin)
        field = torch.sigmoid(logit + message)
    return field


class _Blur:
    """The symmetrically normalised Gaussian, by convolution."""

    def __init__(self, like: "Tensor", reach: float) -> None:
        import torch

        steps = torch.arange(-int(4 * reach), int(4 * reach) + 1, device=like.device)
        self._line = torch.exp(-(steps.float() / reach).square() / 2)
        self._norm = self._sum(torch.ones_like(like[:1], dtype=torch.float32)).rsqrt()

    def __call__(self, values: "Tensor") -> "Tensor":
        return self._norm * self._sum(self._norm * values)

    def _sum(self, values: "Tensor") -> "Tensor":
        from torch.nn.functional import conv2d

        half = len(self._line) // 2
        rows = conv2d(values[:, None], self._line[None, None, :, None], padding=(half, 0))
        return conv2d(rows, self._line[None, None, None, :], padding=(0, half))[:, 0]


class _Appearance:
    """The symmetrically normalised bilateral kernel, summed over a grid of pixels."""

    def __init__(self, images: "Tensor", kernels: Kernels, stride: int) -> None:
        import torch

        batch, channels, height, width = images.shape
        places = torch.meshgrid(
            torch.arange(height, device=images.device),
            torch.arange(width, device=images.device),
            indexing="ij",
        )
        place = torch.stack(places).float() / kernels.bilateral_sxy
        colour = images * (3 / channels) ** 0.5 / kernels.bilateral_srgb
        features = torch.cat([place.expand(batch, -1, -1, -1), colour], 1)
        start = (min(stride, height) // 2, min(stride, width) // 2)
        self._grid = (slice(None), slice(start[0], None, stride), slice(start[1], None, stride))
        some = features.movedim(1, -1)[self._grid].flatten(1, 2)
        all_ = features.flatten(2).mT
        self._share = float(height * width) / some.shape[1]
        half = torch.float16 if images.is_cuda else torch.float32
        self._matrix = torch.empty(batch, height * width, some.shape[1], dtype=half).to(
            images.device
        )
        for first in range(0, height * width, 8192):  # no second matrix at the same time
            part = torch.cdist(all_[:, first : first + 8192], some)
            self._matrix[:, first : first + 8192] = torch.exp(part.square() / -2)
        # A pixel reaches itself with weight 1, not with the weight of its sample.
        numbers = torch.arange(height * width, device=images.device).reshape(1, height, width)
        chosen = numbers[self._grid].flatten()
        self._matrix[:, chosen, torch.arange(len(chosen), device=images.device)] = 0
        self._norm = torch.ones(batch, height, width, device=images.device)
        self._norm = self._sum(self._norm).clamp(min=1e-20).rsqrt()

    def __call__(self, values: "Tensor") -> "Tensor":
        return self._norm * self._sum(self._norm * values)

    def _sum(self, values: "Tensor") -> "Tensor":
        some = values[self._grid].flatten(1)[..., None].to(self._matrix.dtype)
        summed = (self._matrix @ some)[..., 0].float() * self._share
        return values + summed.reshape(values.shape)
