"""What a member is worth: its probabilities, their temperature and their AUROC."""

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from dollmaker.classify.labels import label_matrix
from dollmaker.config.networks import ClassifyConfig
from dollmaker.measures import scores
from dollmaker.measures.words import finite
from dollmaker.networks.member import Member
from dollmaker.store.findings import BLANK, PRESENT
from dollmaker.store.shards import ImageShards

Probabilities = npt.NDArray[np.float32]
Booleans = npt.NDArray[np.bool_]

#: Images of a pass.
_BATCH = 64

#: Temperatures that are looked at; beyond them a network says nothing that a number could mend.
_BOUNDS = (0.05, 20.0)

_SMALLEST = 1e-7


def predict(
    member: Member, index: pl.DataFrame, images: ImageShards, device: torch.device
) -> Probabilities:
    """The member's probabilities (N, K) of the images of an index, in its order."""
    places = index.select("shard", "row").rows()
    network = member.network
    was_training = network.training
    network.eval()
    parts = [np.zeros((0, len(member.findings)), np.float32)]
    with torch.inference_mode():
        for start in range(0, len(places), _BATCH):
            batch = np.stack([images.read(*place) for place in places[start : start + _BATCH]])
            logits = network(member.prepare(torch.from_numpy(batch).to(device)))
            parts.append(member.calibration.probabilities(logits.float()).cpu().numpy())
    network.train(was_training)
    return np.concatenate(parts)


def known_labels(index: pl.DataFrame, findings: list[str], blank: str) -> tuple[Booleans, Booleans]:
    """Positive labels and which labels count, both (N, K): -1 never, blank as configured."""
    labels = label_matrix(index, findings)
    counts = labels >= 0
    if blank == "zeros":
        counts |= labels == BLANK
    return labels == PRESENT, counts


def macro_auroc(
    index: pl.DataFrame, findings: list[str], probabilities: Probabilities, blank: str
) -> float:
    """Mean AUROC over the findings that have positives and negatives; NaN if none has."""
    if index.is_empty():
        return float("nan")
    positive, counts = known_labels(index, findings, blank)
    counts &= ~np.isnan(probabilities)
    values = [
        scores.auroc(positive[counts[:, k], k], probabilities[counts[:, k], k])
        for k in range(len(findings))
    ]
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def measure(
    index: pl.DataFrame,
    findings: list[str],
    probabilities: Probabilities,
    options: ClassifyConfig,
    seed: int,
) -> dict[str, Any]:
    """AUROC per finding on test (or valid) images with patient-bootstrap intervals."""
    split = "test" if "test" in index["split"] else "valid"
    rows = (index["split"] == split).to_numpy()
    chosen, probabilities = index.filter(pl.col("split") == split), probabilities[rows]
    positive, counts = known_labels(chosen, findings, options.blank)
    counts &= ~np.isnan(probabilities)
    patients = chosen["patient_id"].to_numpy()
    per_finding: dict[str, Any] = {}
    for k, finding in enumerate(findings):
        use = counts[:, k]
        value, low, high = scores.auroc_interval(
            positive[use, k],
            probabilities[use, k],
            patients[use],
            replicates=options.bootstrap,
            seed=seed,
        )
        per_finding[finding] = {
            "auroc": finite(value),
            "low": finite(low),
            "high": finite(high),
            "positives": int(positive[use, k].sum()),
            "negatives": int((~positive[use, k]).sum()),
        }
    macro = macro_auroc(chosen, findings, probabilities, options.blank)
    return {"split": split, "macro_auroc": finite(macro), "findings": per_finding}


def fit_temperature(probabilities: Probabilities, positive: Booleans, counts: Booleans) -> float:
    """The temperature under which labels are most likely (Guo et al. 2017, temperature scaling).

    Probabilities (N, K) are those at temperature 1; 1 where no label counts.
    """
    from scipy.optimize import minimize_scalar

    if not counts.any():
        return 1.0
    p = np.clip(probabilities[counts].astype(np.float64), _SMALLEST, 1 - _SMALLEST)
    logits, signs = np.log(p / (1 - p)), np.where(positive[counts], 1.0, -1.0)

    def loss(log_temperature: float) -> float:
        margins = signs * logits / np.exp(log_temperature)
        return float(np.logaddexp(0, -margins).mean())

    low, high = np.log(_BOUNDS)
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))
