"""Structure of the images themselves: clusters of what the starting encoder sees, without labels.

Pseudo-masks say where a finding is, and nothing of the rest of the image. Clusters of dense
features over the whole data set are classes of pixels that mean the same in every image (in chest
radiographs: lung fields, heart, diaphragm, spine, frame). A segmenter that learns them beside the
findings gets a decoder that follows the borders of organs. Features of several stages are joined
as hypercolumns (Hariharan et al. 2015) and clustered as in PiCIE (Cho et al. 2021), with a frozen
teacher: the encoder as it is when training starts.
"""

import copy
from collections.abc import Sequence
from itertools import count

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate, normalize

from dollmaker.networks.frames import Frames
from dollmaker.networks.inputs import Input
from dollmaker.pixels.geometry import Box

#: Strides of the feature maps that are joined: parts of organs, not edges and not whole images.
_STRIDES = (4, 8, 16)

#: Principal components that are clustered, and pixels they are found from.
_COMPONENTS, _PIXELS = 24, 40_000


class Structure(nn.Module):
    """Assigns every pixel to a cluster of the data set; keeps a frozen copy of the encoder."""

    mean: Tensor
    components: Tensor
    centres: Tensor

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder).eval().requires_grad_(False)
        for name in ("mean", "components", "centres"):
            self.register_buffer(name, torch.empty(0))

    def train(self, mode: bool = True) -> "Structure":
        """Stays in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """Hypercolumns (B, D, H / 4, W / 4) of prepared images (B, C, H, W).

        Each stage's vectors have length 1, so that no stage outweighs another; the brightness is
        one more feature.
        """
        side = x.shape[-1] // _STRIDES[0]
        found = self.encoder(x)
        maps = found[0] if isinstance(found, tuple) else found  # vision transformers add tokens
        chosen = [m for m in maps[1:] if x.shape[-1] // m.shape[-1] in _STRIDES] or maps[-1:]
        columns = [_resize(normalize(m.float(), dim=1), side) for m in chosen]
        brightness = adaptive_avg_pool2d(x.float().mean(1, keepdim=True), side) / 2
        return torch.cat([*columns, brightness], 1)

    @torch.no_grad()
    def fit(self, batches: list[Tensor], boxes: Sequence[Box], clusters: int, seed: int) -> None:
        """Find so many clusters by k-means, of what is picture in prepared images (B, C, H, W).

        The box of an image says where its picture lies in its square. The seed chooses pixels and
        first centres.
        """
        rng = np.random.default_rng(seed)
        share = -(-_PIXELS // len(boxes))
        pixels = []
        frames, number = Frames(tuple(boxes), batches[0].shape[-1]), count()
        for batch in batches:
            found = self.features(batch).permute(0, 2, 3, 1).cpu().double().numpy()
            for each in found:
                left, top, right, bottom = frames.cells(next(number), each.shape[:2])
                columns = each[top:bottom, left:right].reshape(-1, each.shape[-1])
                rows = rng.permutation(len(columns))[:share]
                pixels.append(columns[np.sort(rows)])
        columns = np.concatenate(pixels)
        mean = columns.mean(0)
        _, vectors = np.linalg.eigh(np.cov(columns - mean, rowvar=False))
        components = vectors[:, ::-1][:, :_COMPONENTS]
        # The sign of an eigenvector is arbitrary.
        largest = np.abs(components).argmax(0)
        components = components * np.sign(components[largest, np.arange(components.shape[1])])
        centres, _ = kmeans2((columns - mean) @ components, clusters, iter=30, minit="++", rng=rng)
        device = batches[0].device
        self.mean = torch.from_numpy(mean).float().to(device)
        self.components = torch.from_numpy(components.copy()).float().to(device)
        self.centres = torch.from_numpy(centres).float().to(device)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Cluster of each pixel, int64 (B, H, W), of prepared images (B, C, H, W)."""
        columns = self.features(x).permute(0, 2, 3, 1)
        places = (columns - self.mean) @ self.components
        # Nearest centre: the squared length of the place itself is the same for all.
        near = 2 * places @ self.centres.T - (self.centres**2).sum(1)
        return _resize(near.permute(0, 3, 1, 2), x.shape[-1]).argmax(1)


def _resize(maps: Tensor, side: int) -> Tensor:
    return interpolate(maps, size=(side, side), mode="bilinear", align_corners=False)


def make_structure(
    encoder: nn.Module, images: Tensor, boxes: Sequence[Box], spec: Input, clusters: int, seed: int
) -> Structure:
    """The structure of a data set, as :meth:`Structure.fit` finds it.

    The encoder has its starting weights. Images (N, C, H, W) in levels are on its device.
    """
    structure = Structure(encoder)
    batches = [spec.prepare(part) for part in torch.split(images, 32)]
    structure.fit(batches, boxes, clusters, seed)
    return structure
