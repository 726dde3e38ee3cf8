"""Opacities by a linear layer on every patch token, trained on labels alone by a soft maximum.

python docs/lab/2026-12-01-opacities-heads.py DATA WEIGHTS CACHE

Images, tokens and scores are those of 2026-11-30-tokens.py; five folds by patient. Tokens are taken
as they are or less the mean of the image's patches.
"""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

Pool = Callable[[torch.Tensor], torch.Tensor]

tokens = runpy.run_path(str(Path(__file__).with_name("2026-11-30-tokens.py")))


def main(data: Path, weights: Path, cache: Path) -> None:
    """Print the scores of every way and seed."""
    bag = tokens["nih"](data)
    if not cache.exists():
        np.savez(cache, tokens=tokens["tokens"](bag, weights).half().numpy())
    x = torch.from_numpy(np.load(cache)["tokens"]).float()
    x = (x - x.mean((0, 1))) / x.std((0, 1))
    across, labels = int(x.shape[1] ** 0.5), torch.from_numpy(bag.labels).float()
    for name, some in (("plain", x), ("centred", x - x.mean(1, keepdim=True))):
        for sharpness in (2.0, 8.0):

            def pool(said: torch.Tensor, r: float = sharpness) -> torch.Tensor:
                return ((r * said).logsumexp(1) - np.log(said.shape[1])) / r

            for seed in (0, 1):
                maps, scores = torch.zeros(len(x), across, across), np.zeros(len(x))
                for fold in range(1, 6):
                    here = bag.folds == fold
                    said = learn(some[~here], labels[~here], pool, seed)(some[here])[..., 0]
                    maps[here], scores[here] = said.reshape(-1, across, across), pool(said).numpy()
                told = tokens["auroc"](bag.labels, scores)
                way = f"{name}, sharpness {sharpness:g}, seed {seed}, AUROC {told:.2f}"
                tokens["tell"](way, maps, bag)


def learn(x: torch.Tensor, labels: torch.Tensor, pool: Pool, seed: int) -> torch.nn.Linear:
    """A linear layer on patches, trained on labels of images."""
    torch.manual_seed(seed)
    layer = torch.nn.Linear(x.shape[-1], 1)
    optimizer = torch.optim.AdamW(layer.parameters(), 0.003, weight_decay=0.05)
    balance = (labels == 0).sum() / (labels == 1).sum()
    for _ in range(20):
        for rows in torch.randperm(len(x)).split(32):
            logits = pool(layer(x[rows])[..., 0])
            loss = F.binary_cross_entropy_with_logits(logits, labels[rows], pos_weight=balance)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return layer.requires_grad_(False)


if __name__ == "__main__":
    main(*(Path(word) for word in sys.argv[1:4]))
