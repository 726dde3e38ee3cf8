"""What labels of patches find with frozen tokens: pooling, centring, sharpness, beginning.

python docs/lab/2026-12-01-patch-heads.py KVASIR WEIGHTS CACHE SIDE SIZE >> TABLE

KVASIR has labels.csv, images and masks; WEIGHTS is dinov2_vits14.safetensors. Images are cut into
squares of SIDE pixels, each shown to the network by itself at SIZE pixels, and labelled by whether
it holds a polyp. A quarter of the groups, by a hash, is scored with its true masks: Otsu's cut
of the patches' logits. Rows of CSV go to the output; tokens are kept in CACHE (an .npz).
"""

import csv
import sys
import zlib
from itertools import product
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from skimage.filters import threshold_otsu
from torch import Tensor

from dollmaker.measures.scores import auroc, bootstrap_interval, iou
from dollmaker.networks.patch_heads import PatchHead, begin
from dollmaker.networks.weights import load_weights, read_weights

EPOCHS, BATCH, RATE, DECAY = 8, 32, 0.003, 0.05


def main(data: Path, weights: Path, cache: Path, side: int, size: int) -> None:
    """Train and score every combination."""
    tokens, masks, groups = read(data, weights, cache, side, size)
    labels = torch.from_numpy(masks.any((1, 2))).float()
    test = np.array([zlib.crc32(group.encode()) % 4 == 0 for group in groups])
    tokens = (tokens - tokens[~test].mean((0, 1))) / tokens[~test].std((0, 1))
    shown = np.flatnonzero(test & masks.any((1, 2)))
    write = csv.writer(sys.stdout, lineterminator="\n").writerow
    plain = [(False, sharpness, False) for sharpness in (0.0, 1.0, 2.0, 8.0)]
    ways = [*plain, (True, 1.0, False), (True, 8.0, False), (True, 8.0, True)]
    for (centred, sharpness, begun), seed in product(ways, range(6)):
        x = tokens - tokens.mean(1, keepdim=True) if centred else tokens
        layer = learn(x[~test], labels[~test], sharpness, begun=begun, seed=seed)
        with torch.no_grad():
            said = layer(x)[..., 0]
        told = auroc(labels[test].numpy(), pool(said[test], sharpness).numpy())
        scored = score(said[shown], masks[shown], np.array(groups)[shown])
        write([side, size, centred, sharpness, begun, seed, f"{told:.3f}", *scored])
        sys.stdout.flush()


def read(
    data: Path, weights: Path, cache: Path, side: int, size: int
) -> tuple[Tensor, np.ndarray, list[str]]:
    """Patch tokens (B, N, 384), true masks (B, side, side) and groups of all squares."""
    network = timm.create_model("vit_small_patch14_dinov2", img_size=size, num_classes=0)
    load_weights(network, read_weights(weights), source=str(weights))
    network.eval()
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 3, 1, 1)
    tokens, masks, groups = [], [], []
    for row in csv.DictReader((data / "labels.csv").open()):
        image = Image.open(data / "images" / row["image"]).convert("RGB")
        mask = np.asarray(Image.open(data / "masks" / row["mask"]).convert("L")) > 0
        places = product(*(range(0, n - side + 1, side) for n in (image.height, image.width)))
        for y, x in places:
            masks.append(mask[y : y + side, x : x + side])
            groups.append(row["group"])
            if cache.exists():
                continue
            square = image.crop((x, y, x + side, y + side)).resize((size, size), 3)
            pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1) / 255
            with torch.no_grad():
                found = network.forward_features(((pixels - mean) / std)[None])
            tokens.append(found[0, 1:].half())
    if not cache.exists():
        np.savez(cache, tokens=torch.stack(tokens).numpy())
    return torch.from_numpy(np.load(cache)["tokens"]).float(), np.stack(masks), groups


def pool(said: Tensor, sharpness: float) -> Tensor:
    """Logits of patches (B, N) to logits of images (B,): 0 is the mean."""
    if not sharpness:
        return said.mean(1)
    return ((sharpness * said).logsumexp(1) - np.log(said.shape[1])) / sharpness


def learn(
    x: Tensor, labels: Tensor, sharpness: float, *, begun: bool, seed: int
) -> torch.nn.Linear:
    """A linear layer on patches, trained on labels of images."""
    torch.manual_seed(seed)
    head = PatchHead(x.shape[-1], 1, prefix=0)
    if begun:
        network = torch.nn.Sequential()
        network.head = head
        begin(network, [(x, labels[:, None], torch.ones(len(x), 1))])
    optimizer = torch.optim.AdamW(head.linear.parameters(), RATE, weight_decay=DECAY)
    balance = (labels == 0).sum() / (labels == 1).sum()
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x)).split(BATCH):
            logits = pool(head.linear(x[rows])[..., 0], sharpness)
            loss = F.binary_cross_entropy_with_logits(logits, labels[rows], pos_weight=balance)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return head.linear


def score(said: Tensor, masks: np.ndarray, groups: np.ndarray) -> list[str]:
    """Mean IoU of Otsu's masks with its interval, and the hit rate."""
    across, side = round(said.shape[1] ** 0.5), masks.shape[1]
    grids = said.view(-1, 1, across, across)
    maps = F.interpolate(grids, (side, side), mode="bilinear")[:, 0].numpy()
    drawn = np.stack([one > threshold_otsu(one) for one in maps])
    overlaps = np.array([float(iou(a, b)) for a, b in zip(drawn, masks, strict=True)])
    hits = [mask.flat[one.argmax()] for one, mask in zip(maps, masks, strict=True)]
    _, low, high = bootstrap_interval(overlaps, groups)
    return [f"{value:.3f}" for value in (overlaps.mean(), low, high, np.mean(hits))]


if __name__ == "__main__":
    main(*(Path(word) for word in sys.argv[1:4]), *(int(word) for word in sys.argv[4:]))
