"""What labels alone can find with frozen patch tokens: opacities of NIH, polyps of Kvasir-SEG.

python docs/lab/2026-11-30-tokens.py nih DATA WEIGHTS CACHE
python docs/lab/2026-11-30-tokens.py kvasir SOURCE WEIGHTS CACHE

DATA has nih/; SOURCE is what convert_source of workflow/configs/kvasir.yaml made
(results/kvasir/source), beside its index.parquet; WEIGHTS is dinov2_vits14.safetensors. Tokens are
kept in CACHE (an .npz). A linear layer scores each token of the last block, a pooling of the scores
is trained on image-level labels (multiple-instance learning), and the scores are the map. Beside
it a ridge regression on the true masks: what such a layer reaches if it is told where.
"""

import csv
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from scipy.stats import rankdata
from skimage.filters import threshold_otsu
from torch import Tensor

#: Side of scored maps.
SIDE = 160

POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda s: s.mean(1),
    "top quarter": lambda s: s.topk(s.shape[1] // 4, 1).values.mean(1),
    "top tenth": lambda s: s.topk(s.shape[1] // 10, 1).values.mean(1),
}


@dataclass
class Bag:
    """Images with labels: files, label (1, 0, -1 unknown), true masks, fold (0: only tested)."""

    files: list[Path]
    labels: np.ndarray
    masks: Tensor
    folds: np.ndarray
    groups: list[str]
    side: int


def nih(data: Path) -> Bag:
    """Opacities where the RSNA readers looked; five folds by patient."""
    rows = [r for r in csv.DictReader((data / "nih/labels.csv").open()) if r["Lung_Opacity"]]
    boxes = [data / "nih/opacity_boxes" / f"{Path(r['image']).stem}.png" for r in rows]
    return Bag(
        files=[data / "nih/images" / r["image"] for r in rows],
        labels=np.array([int(r["Lung_Opacity"]) for r in rows]),
        masks=torch.stack([read_mask(file) for file in boxes]),
        folds=np.array([1 + zlib.crc32(r["patient"].encode()) % 5 for r in rows]),
        groups=[r["patient"] for r in rows],
        side=322,
    )


def kvasir(source: Path) -> Bag:
    """Patches, trained on the train split, tested on the test split."""
    rows = (
        pl.read_parquet(source.parent / "index.parquet")
        .filter(pl.col("split") != "valid")
        .to_dicts()
    )
    return Bag(
        files=[source / r["path"] for r in rows],
        labels=np.array([r["polyp"] for r in rows]),
        masks=torch.stack([read_mask(source / "masks" / r["mask"]) for r in rows]),
        folds=np.array([int(r["split"] == "test") for r in rows]),
        groups=[r["patient_id"] for r in rows],
        side=168,
    )


def read_mask(file: Path) -> Tensor:
    """A true mask at the side of scored maps; empty without a file."""
    if not file.exists():
        return torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask = Image.open(file).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    return torch.from_numpy(np.asarray(mask) > 0)


def tokens(bag: Bag, weights: Path) -> Tensor:
    """Patch tokens of the last block, (B, N, 384); positions by DINOv2's rule."""
    across = bag.side // 14
    network = timm.create_model("vit_small_patch14_dinov2", img_size=bag.side, num_classes=0)
    state = {name: tensor.float() for name, tensor in load_file(weights).items()}
    table = state["pos_embed"][:, 1:].reshape(1, 37, 37, -1).permute(0, 3, 1, 2)
    scale = (across + 0.1) / 37
    table = F.interpolate(table, scale_factor=(scale, scale), mode="bicubic")
    places = table.permute(0, 2, 3, 1).reshape(1, across**2, -1)
    state["pos_embed"] = torch.cat([state["pos_embed"][:, :1], places], 1)
    network.load_state_dict(state)
    network.eval()
    mean, std = (
        torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    found = []
    for file in bag.files:
        image = (
            Image.open(file).convert("RGB").resize((bag.side, bag.side), Image.Resampling.BICUBIC)
        )
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
        with torch.no_grad():
            found.append(network.forward_features(((pixels - mean) / std)[None])[0, 1:])
    return torch.stack(found)


def learn(x: Tensor, labels: Tensor, pool: Callable[[Tensor], Tensor]) -> torch.nn.Linear:
    """A linear layer on tokens whose pooled scores are trained on labels."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(x.shape[-1], 1)
    optimizer = torch.optim.AdamW(layer.parameters(), 0.003, weight_decay=0.05)
    weight = (labels == 0).sum() / (labels == 1).sum()
    for _ in range(40):
        for rows in torch.randperm(len(x)).split(32):
            scores = pool(layer(x[rows])[..., 0])
            loss = F.binary_cross_entropy_with_logits(scores, labels[rows], pos_weight=weight)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return layer.requires_grad_(False)


def ridge(x: Tensor, masks: Tensor) -> Callable[[Tensor], Tensor]:
    """A ridge regression of each token's share of the true mask."""
    across = int(x.shape[1] ** 0.5)
    shares = F.interpolate(masks.float()[:, None], (across, across), mode="area")[:, 0].flatten(1)
    a = torch.cat([torch.ones(*x.shape[:2], 1), x], -1).flatten(0, 1)
    solution = torch.linalg.solve(a.T @ a + 2000 * torch.eye(a.shape[1]), a.T @ shares.flatten())
    return lambda new: new @ solution[1:] + solution[0]


def auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve."""
    ranks, positive = rankdata(scores), labels == 1
    p, n = positive.sum(), (~positive).sum()
    return float((ranks[positive].sum() - p * (p + 1) / 2) / (p * n))


def tell(name: str, maps: Tensor, bag: Bag) -> None:
    """Print scores of maps on the positives that are tested."""
    chosen = (bag.labels == 1) & (bag.folds > 0)
    large = F.interpolate(maps[chosen][:, None], (SIDE, SIDE), mode="bilinear")[:, 0]
    truth = bag.masks[chosen]
    hit = truth.flatten(1).gather(1, large.flatten(1).argmax(1, keepdim=True)).float()[:, 0].numpy()
    groups = np.array(bag.groups)[chosen]
    overlap, precision = [], []
    for map_, mask in zip(large.numpy(), truth.numpy(), strict=True):
        drawn = map_ > threshold_otsu(map_)
        overlap.append((drawn & mask).sum() / max((drawn | mask).sum(), 1))
        order = mask[::2, ::2].ravel()[np.argsort(-map_[::2, ::2].ravel(), kind="stable")]
        hits = np.cumsum(order) / np.arange(1, order.size + 1)
        precision.append((hits * order).sum() / max(order.sum(), 1))
    low, high = interval(hit, groups)
    print(
        f"{name:32} hit rate {hit.mean():.3f} [{low:.3f}, {high:.3f}] "
        f"AUPRC {np.mean(precision):.3f} IoU of Otsu's mask {np.mean(overlap):.3f}",
        flush=True,
    )


def interval(values: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """A 95 % bootstrap interval of a mean, over groups."""
    random = np.random.default_rng(0)
    names, place = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(place, values), np.bincount(place)
    rows = random.integers(0, len(names), (2000, len(names)))
    means = sums[rows].sum(1) / counts[rows].sum(1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def main(what: str, data: Path, weights: Path, cache: Path) -> None:
    """Score maps of every pooling, of true masks, and of what needs no network."""
    bag = {"nih": nih, "kvasir": kvasir}[what](data)
    if not cache.exists():
        np.savez(cache, tokens=tokens(bag, weights).half().numpy())
    x = torch.from_numpy(np.load(cache)["tokens"]).float()
    x = (x - x.mean((0, 1))) / x.std((0, 1))
    across, labels = int(x.shape[1] ** 0.5), torch.from_numpy(bag.labels).float()
    grid = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, SIDE)] * 2, indexing="ij"))
    disk = -(grid**2).sum(0)
    tell("centre", disk.expand(len(x), -1, -1), bag)
    tested = [fold for fold in np.unique(bag.folds) if fold > 0]
    prior, told = torch.zeros(len(x), SIDE, SIDE), torch.zeros(len(x), across, across)
    for fold in tested:
        here, rest = bag.folds == fold, bag.folds != fold
        prior[here] = bag.masks[rest & (bag.labels == 1)].float().mean(0) + 1e-6 * disk
        told[here] = ridge(x[rest], bag.masks[rest])(x[here]).reshape(-1, across, across)
    tell("mean true mask of the others", prior, bag)
    for name, pool in POOLS.items():
        maps, scores = torch.zeros(len(x), across, across), torch.zeros(len(x))
        for fold in tested:
            here, rest = bag.folds == fold, bag.folds != fold
            layer = learn(x[rest], labels[rest], pool)
            found = layer(x[here])[..., 0]
            maps[here], scores[here] = found.reshape(-1, across, across), pool(found)
        seen = bag.folds > 0
        tell(f"{name}, AUROC {auroc(bag.labels[seen], scores[seen].numpy()):.3f}", maps, bag)
    tell("ridge regression on true masks", told, bag)


if __name__ == "__main__":
    main(sys.argv[1], *(Path(word) for word in sys.argv[2:5]))
