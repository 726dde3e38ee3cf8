"""Who is pictured: body, pose, exposure and findings of one patient, and what a report says.

Findings come in stories (heart failure, infection, trauma, ...), so that they occur together as
in a hospital. Rare findings are more frequent than in life: a small training set must hold enough
of each.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dollmaker.store.findings import CHEXPERT, NO_FINDING

Side = Literal[-1, 1]
"""-1: the patient's right (left in the picture), 1: the patient's left."""

SIDES: tuple[Side, Side] = (-1, 1)


@dataclass(frozen=True)
class Break:
    """A broken rib: which one, where along it, and how it healed."""

    rib: int
    side: Side
    x: float  # |x| of the break on the rear arc, cm
    offset: float  # step between the ends, cm
    gap: float  # half-width of the missing bone, cm
    callus: float  # radius of new bone around the break, cm; 0 for a fresh break


@dataclass(frozen=True)
class Patient:
    """Everything that makes one chest and one exposure differ from the next. Lengths in body cm."""

    sex: Literal["Female", "Male"]
    age: int
    ap: bool
    scale: float  # body size relative to a standard adult
    field: float  # long side of the picture, real cm
    roll: float  # tilt in the picture, radians
    yaw: float  # turn about the long axis: shift of front against back, cm
    shift: tuple[float, float]
    width: float  # inner half-width of the cage
    depth: float  # inner half-depth of the cage
    fat: float  # layer under the skin
    domes: tuple[float, float]  # y of the right and left dome
    heart: float  # size of the heart, 1 is normal
    heart_tilt: float  # radians
    mediastinum: float  # extra half-width of the upper mediastinum
    knob: float  # size of the aortic knob
    drift: float  # shift of heart and mediastinum
    curve: float  # sideways bow of the spine
    slope: float  # tilt of the ribs
    rib_pitch: float
    rib_start: float
    clavicle: float  # y of the inner ends
    bone: float  # density of bone, 1 is normal
    air: float  # attenuation of lung relative to normal
    markings: float  # strength of the vessels
    exposure: float  # photons per square cm, relative
    contrast: float
    breaks: tuple[Break, ...] = ()


def sample_patient(rng: np.random.Generator, *, ap: bool | None = None) -> Patient:
    """Draw a patient without findings."""
    sex: Literal["Female", "Male"] = "Female" if rng.random() < 0.42 else "Male"
    age = int(np.clip(rng.normal(60, 17), 18, 90))
    lying = bool(rng.random() < 0.6) if ap is None else ap
    old = (age - 18) / 72
    scale = (0.96 if sex == "Female" else 1.03) * float(np.clip(rng.normal(1, 0.04), 0.88, 1.12))
    deep = 1.3 if lying else 0.0  # bedside pictures: less breath, everything a little higher
    breath = rng.normal(0, 0.6) - deep
    slack = 1.6 if lying else 1.0
    return Patient(
        sex=sex,
        age=age,
        ap=lying,
        scale=scale,
        field=float(rng.uniform(35.0, 39.0)),
        roll=math.radians(float(np.clip(rng.normal(0, 1.6 * slack), -7, 7))),
        yaw=float(np.clip(rng.normal(0, 0.45 * slack), -1.6, 1.6)),
        shift=(
            float(np.clip(rng.normal(0, 0.7 * slack), -2, 2)),
            float(np.clip(rng.normal(0.3, 0.7 * slack), -2, 2)),
        ),
        width=float(rng.normal(13.4, 0.4)),
        depth=float(rng.normal(9.2, 0.6) + 0.8 * old),
        fat=float(np.clip(rng.gamma(3.0, 0.5), 0.4, 4.0)),
        domes=(8.4 + breath + rng.normal(0, 0.25), 9.7 + breath + rng.normal(0, 0.3)),
        heart=float(np.clip(rng.normal(0.98, 0.035), 0.9, 1.05)) * (1.05 if lying else 1.0),
        heart_tilt=math.radians(float(rng.normal(36 - (6 if lying else 0), 4))),
        mediastinum=float(rng.uniform(-0.15, 0.15)) + (0.15 if lying else 0.0),
        knob=float(0.7 + 0.7 * old + rng.normal(0, 0.12)),
        drift=float(rng.normal(0, 0.15)),
        curve=float(rng.normal(0, 0.35 + 0.4 * old)),
        slope=float(rng.normal(0.42, 0.05) - (0.06 if lying else 0.0)),
        rib_pitch=float(rng.normal(2.35, 0.08)),
        rib_start=float(rng.normal(-13.6, 0.35)),
        clavicle=float(rng.normal(-9.6, 0.5) - (0.7 if lying else 0.0)),
        bone=float(np.clip(rng.normal(1.12 - 0.35 * old, 0.08), 0.6, 1.3)),
        air=float(np.clip(rng.normal(1.0, 0.08), 0.8, 1.25)),
        markings=float(np.clip(rng.normal(1.0, 0.15), 0.6, 1.5)),
        exposure=float(np.exp(rng.normal(0, 0.45))),
        contrast=float(rng.normal(1.0, 0.07)),
    )


@dataclass(frozen=True)
class Sign:
    """One finding of one study: how strong, where, and the seed of its shape."""

    severity: float
    seed: int
    side: Side

    def rng(self) -> np.random.Generator:
        """The source of chance for this sign's shape."""
        return np.random.default_rng(self.seed)


ORDER = (
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Fracture",
    "Pneumothorax",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Lung Lesion",
    "Pleural Other",
    "Pleural Effusion",
    "Support Devices",
)
"""The findings that are drawn, in the order they act. Lung Opacity is the union of its children."""

OPACITIES = ("Lung Lesion", "Edema", "Consolidation", "Pneumonia", "Atelectasis")
"""The findings of which Lung Opacity is the parent."""

# fmt: off
STORIES: Mapping[str, tuple[float, float, Mapping[str, float]]] = {
    "healthy": (0.10, 0.15, {"Support Devices": 0.15}),
    "heart failure": (0.18, 0.6, {
        "Cardiomegaly": 0.8, "Edema": 0.7, "Pleural Effusion": 0.6, "Support Devices": 0.5,
        "Atelectasis": 0.12, "Pneumonia": 0.06,
    }),
    "infection": (0.19, 0.45, {
        "Pneumonia": 0.62, "Consolidation": 0.55, "Pleural Effusion": 0.25,
        "Support Devices": 0.25, "Pleural Other": 0.06,
    }),
    "trauma": (0.16, 0.7, {
        "Fracture": 0.72, "Pneumothorax": 0.62, "Pleural Effusion": 0.2,
        "Support Devices": 0.35, "Enlarged Cardiomediastinum": 0.12, "Atelectasis": 0.12,
    }),
    "tumour": (0.16, 0.2, {
        "Lung Lesion": 0.8, "Enlarged Cardiomediastinum": 0.25, "Pleural Effusion": 0.2,
        "Pleural Other": 0.15, "Support Devices": 0.25, "Atelectasis": 0.1,
    }),
    "intensive care": (0.13, 0.97, {
        "Support Devices": 0.92, "Atelectasis": 0.55, "Pleural Effusion": 0.4, "Edema": 0.25,
        "Pneumothorax": 0.3, "Consolidation": 0.2, "Cardiomegaly": 0.2,
    }),
    "old scars": (0.13, 0.2, {
        "Pleural Other": 0.8, "Fracture": 0.22, "Cardiomegaly": 0.15, "Atelectasis": 0.15,
        "Enlarged Cardiomediastinum": 0.12, "Support Devices": 0.15,
    }),
}
# fmt: on
"""Story -> share of studies, share of them lying in bed (AP), chance of each finding."""

_SUBTLE = 0.22  # below this severity the labeller may hedge


def draw_story(rng: np.random.Generator) -> tuple[str, bool]:
    """Draw what a patient suffers from, and whether the picture is taken in bed (AP)."""
    names = list(STORIES)
    shares = np.array([STORIES[name][0] for name in names])
    name = names[int(rng.choice(len(names), p=shares / shares.sum()))]
    return name, bool(rng.random() < STORIES[name][1])


def draw_sign(rng: np.random.Generator) -> Sign:
    """Draw side and shape of a finding; most are clearly visible, some subtle."""
    return Sign(
        severity=float(rng.beta(1.7, 1.5)),
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
