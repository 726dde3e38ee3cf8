"""Who is pictured: body, pose and exposure of one patient, drawn before any finding."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

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
