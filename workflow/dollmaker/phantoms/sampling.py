"""Which findings a study has, and what a report would say of them.

Findings come in stories (heart failure, infection, trauma, ...), so that they occur together as
in a hospital. Rare findings are more frequent than in life: a small training set must hold enough
of each.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dollmaker.phantoms.pathology import OPACITIES, ORDER, Sign
from dollmaker.store.findings import CHEXPERT, NO_FINDING

STORIES: Mapping[str, tuple[float, float, Mapping[str, float]]] = {
    # name: (share of studies, share of them lying in bed (AP), probability of each finding)
    "healthy": (0.10, 0.15, {"Support Devices": 0.15}),
    "heart failure": (
        0.18,
        0.6,
        {
            "Cardiomegaly": 0.8,
            "Edema": 0.7,
            "Pleural Effusion": 0.6,
            "Support Devices": 0.5,
            "Atelectasis": 0.12,
            "Pneumonia": 0.06,
        },
    ),
    "infection": (
        0.19,
        0.45,
        {
            "Pneumonia": 0.62,
            "Consolidation": 0.55,
            "Pleural Effusion": 0.25,
            "Support Devices": 0.25,
            "Pleural Other": 0.06,
        },
    ),
    "trauma": (
        0.16,
        0.7,
        {
            "Fracture": 0.72,
            "Pneumothorax": 0.62,
            "Pleural Effusion": 0.2,
            "Support Devices": 0.35,
            "Enlarged Cardiomediastinum": 0.12,
            "Atelectasis": 0.12,
        },
    ),
    "tumour": (
        0.16,
        0.2,
        {
            "Lung Lesion": 0.8,
            "Enlarged Cardiomediastinum": 0.25,
            "Pleural Effusion": 0.2,
            "Pleural Other": 0.15,
            "Support Devices": 0.25,
            "Atelectasis": 0.1,
        },
    ),
    "intensive care": (
        0.13,
        0.97,
        {
            "Support Devices": 0.92,
            "Atelectasis": 0.55,
            "Pleural Effusion": 0.4,
            "Edema": 0.25,
            "Pneumothorax": 0.3,
            "Consolidation": 0.2,
            "Cardiomegaly": 0.2,
        },
    ),
    "old scars": (
        0.13,
        0.2,
        {
            "Pleural Other": 0.8,
            "Fracture": 0.22,
            "Cardiomegaly": 0.15,
            "Atelectasis": 0.15,
            "Enlarged Cardiomediastinum": 0.12,
            "Support Devices": 0.15,
        },
    ),
}

_SUBTLE = 0.22  # below this severity the labeller may hedge


def draw_story(rng: np.random.Generator) -> tuple[str, bool]:
    """Draw what a patient suffers from, and whether the picture is taken in bed (AP)."""
    names = list(STORIES)
    shares = np.array([STORIES[name][0] for name in names])
    name = names[int(rng.choice(len(names), p=shares / shares.sum()))]
    return name, bool(rng.random() < STORIES[name][1])


def draw_sign(rng: np.random.Generator, severity: float | None = None) -> Sign:
    """Draw side and shape of a finding; most are clearly visible, some subtle."""
    drawn = float(rng.beta(1.7, 1.5))
    return Sign(
        severity=drawn if severity is None else severity,
        seed=int(rng.integers(2**62)),
        side=-1 if rng.random() < 0.5 else 1,
    )


def draw_signs(story: str, rng: np.random.Generator) -> dict[str, Sign]:
    """Draw the findings of one study of a patient with this story."""
    chances = STORIES[story][2]
    signs = {}
    for name in ORDER:
        present = rng.random() < chances.get(name, 0.0)
        sign = draw_sign(rng)
        if present:
            signs[name] = sign
    return signs


def present_findings(signs: Mapping[str, Sign]) -> set[str]:
    """All findings present, parents included; No Finding when only devices or nothing are."""
    present = set(signs)
    if present & set(OPACITIES):
        present.add("Lung Opacity")
    if "Cardiomegaly" in present:
        present.add("Enlarged Cardiomediastinum")
    if not present - {"Support Devices"}:
        present.add(NO_FINDING)
    return present


def certain_labels(signs: Mapping[str, Sign]) -> dict[str, int | None]:
    """Labels as radiologists give them on CheXpert's validation set: 1 or 0 for every finding."""
    present = present_findings(signs)
    return {name: int(name in present) for name in CHEXPERT}


def labeller_labels(signs: Mapping[str, Sign], rng: np.random.Generator) -> dict[str, int | None]:
    """Labels as CheXpert's labeller reads them from reports: 1, 0, -1 or None (not mentioned)."""
    present = present_findings(signs)
    labels: dict[str, int | None] = {}
    for name in CHEXPERT:
        chance = rng.random()
        if name == NO_FINDING:
            labels[name] = 1 if name in present else None
        elif name in present:
            subtle = name in signs and signs[name].severity < _SUBTLE
            hedged = chance < (0.45 if subtle else 0.03) and name != "Support Devices"
            labels[name] = -1 if hedged else 1
        else:
            mentioned = chance < 0.12
            doubted = chance > 0.985 and name != "Support Devices" and NO_FINDING not in present
            labels[name] = 0 if mentioned else -1 if doubted else None
    return labels
