"""What classifiers learn from labels, and of which findings these are too few."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from dollmaker.config.networks import ClassifyConfig
from dollmaker.runtime.errors import ConfigError
from dollmaker.store.findings import ABSENT, BLANK, PRESENT, UNCERTAIN

Floats = npt.NDArray[np.float32]

#: Training images with a finding, or without it, under which it is told (our choice).
FEW = 8


def label_matrix(index: pl.DataFrame, findings: Sequence[str]) -> npt.NDArray[np.int8]:
    """Labels (N, K): 1, 0, -1, and ``BLANK`` where the index has null."""
    return index.select(pl.col(list(findings)).fill_null(BLANK)).to_numpy().astype(np.int8)


def targets(
    labels: npt.NDArray[np.int8], findings: Sequence[str], options: ClassifyConfig, seed: int
) -> tuple[Floats, Floats]:
    """Training targets in 0..1 and loss weights (0 or 1), both (N, K), of labels (N, K).

    Policies as in Irvin et al. 2019 (ignore, zeros, ones) and Pham et al. 2019 (smooth-ones:
    uniform in 0.55..0.85, drawn once per label).
    """
    values = (labels == PRESENT).astype(np.float32)
    weights = np.isin(labels, (PRESENT, ABSENT)).astype(np.float32)
    if options.blank == "zeros":
        weights[labels == BLANK] = 1
    smooth = np.random.default_rng(seed).uniform(0.55, 0.85, labels.shape).astype(np.float32)
    for k, finding in enumerate(findings):
        policy = options.uncertain.get(finding, options.uncertain.get("default", "ignore"))
        rows = labels[:, k] == UNCERTAIN
        if policy != "ignore":
            weights[rows, k] = 1
        if policy == "ones":
            values[rows, k] = 1
        elif policy == "smooth-ones":
            values[rows, k] = smooth[rows, k]
    return values, weights


def learns(options: ClassifyConfig) -> bool:
    """Whether a member is trained here: ready classifiers are not."""
    return any(member.epochs != 0 for member in options.members.values())


def lessons(
    train: pl.DataFrame, findings: Sequence[str], options: ClassifyConfig
) -> dict[str, tuple[int, int]]:
    """Finding -> images that classifiers learn as with it and as without it, by the policies."""
    values, weights = targets(label_matrix(train, findings), findings, options, seed=0)
    positive = ((values > 0.5) & (weights > 0)).sum(0)  # smooth ones are over a half
    negative = weights.sum(0) - positive
    pairs = zip(positive.tolist(), negative.tolist(), strict=True)
    return {name: (int(p), int(n)) for name, (p, n) in zip(findings, pairs, strict=True)}


def few(counts: Mapping[str, tuple[int, int]]) -> str:
    """A sentence on the findings that have few images of a kind; empty if none has."""
    told = [
        f"{name!r} has {count or 'no'} {kind} training image{'' if count == 1 else 's'}"
        for name, pair in counts.items()
        for count, kind in zip(pair, ("positive", "negative"), strict=True)
        if count < FEW
    ]
    if not told:
        return ""
    more = f" and {len(told) - 5} more" if len(told) > 5 else ""
    return (
        f"few labels: {', '.join(told[:5])}{more}; classifiers cannot learn a finding without "
        "positive or without negative images, and learn little from a few."
    )


def require_learnable(counts: Mapping[str, tuple[int, int]]) -> None:
    """Refuse, by a ``ConfigError``, labels of which no finding can be learned."""
    if not any(all(pair) for pair in counts.values()):
        raise ConfigError(
            f"{few(counts)} No finding can be learned; add images with and without it, or correct "
            "the labels."
        )
