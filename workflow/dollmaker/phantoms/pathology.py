"""The findings as physical changes of a chest, each with its truth mask.

A finding acts in one of two ways. `DEFORM` changes the patient before the chest is built (a
larger heart, a raised dome, a broken rib); `APPLY` changes the material of the built chest (lung
becomes fluid, lung becomes free air, metal is added) and returns the region it changed. Severity
runs from 0, barely visible, to 1.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from dollmaker.phantoms.anatomy import HILUM, Chest
from dollmaker.phantoms.grid import Canvas, Map, Mask, ball, step
from dollmaker.phantoms.patient import OPACITIES, ORDER, SIDES, Break, Patient, Side, Sign
from dollmaker.phantoms.support_devices import support_devices

# --- changes of the patient ---------------------------------------------------------------------


def _widen_mediastinum(patient: Patient, sign: Sign) -> Patient:
    return replace(patient, mediastinum=patient.mediastinum + 1.3 + 2.0 * sign.severity)


def _enlarge_heart(patient: Patient, sign: Sign) -> Patient:
    return replace(patient, heart=patient.heart * (1.17 + 0.33 * sign.severity))


def _raise_dome(patient: Patient, sign: Sign) -> Patient:
    """A collapsed lung takes less room: its dome rises, the mediastinum follows."""
    lift = 0.4 + 2.0 * sign.severity
    right, left = patient.domes
    domes = (right - lift, left) if sign.side < 0 else (right, left - lift)
    return replace(patient, domes=domes, drift=patient.drift + sign.side * 0.9 * sign.severity)


def _push_mediastinum(patient: Patient, sign: Sign) -> Patient:
    """A large effusion or free air under tension pushes the mediastinum away."""
    push = 0.9 * max(0.0, sign.severity - 0.5)
    return replace(patient, drift=patient.drift - sign.side * push)


def _break_ribs(patient: Patient, sign: Sign) -> Patient:
    rng = sign.rng()
    count = 1 + int(rng.random() < 0.5 + sign.severity) + int(rng.random() < sign.severity)
    count += int(rng.random() < sign.severity)
    first = int(rng.integers(3, 9 - count))
    healed = bool(rng.random() < 0.5)
    x = float(rng.uniform(6.0, 10.5))
    breaks = []
    for number in range(count):
        offset = float(rng.choice([-1, 1]) * (0.75 + 0.55 * sign.severity))
        breaks.append(
            Break(
                rib=first + number,
                side=sign.side,
                x=x + float(rng.normal(0, 0.5)),
                offset=offset * (0.6 if healed else 1.0),
                gap=0.15 if healed else 0.55 + 0.4 * sign.severity,
                callus=1.05 + 0.4 * sign.severity if healed else 0.0,
            )
        )
    return replace(patient, breaks=tuple(breaks))


DEFORM: Mapping[str, Callable[[Patient, Sign], Patient]] = {
    "Enlarged Cardiomediastinum": _widen_mediastinum,
    "Cardiomegaly": _enlarge_heart,
    "Atelectasis": _raise_dome,
    "Pneumothorax": _push_mediastinum,
    "Pleural Effusion": _push_mediastinum,
    "Fracture": _break_ribs,
}


# --- changes of the chest -----------------------------------------------------------------------


def _break_sites(chest: Chest, sign: Sign) -> Mask:
    """A patch about two ribs' height around each break."""
    grid, patient = chest.grid, chest.patient
    mask = np.zeros(grid.shape, bool)
    for item in patient.breaks:
        off = (chest.rib[item.side] - item.rib) * patient.rib_pitch
        beside = np.abs(grid.x) - item.x - 0.3
        mask |= ((beside / 1.7) ** 2 + (off / 1.15) ** 2 < 1) & (grid.x * item.side > 0)
    # a fresh break bleeds into the chest wall, a healed one is surrounded by scar
    chest.soft = chest.soft + chest.grid.blur(mask.astype(np.float32), 0.6) * 1.5
    return mask


def _pneumothorax(chest: Chest, sign: Sign) -> Mask:
    """Air between lung and chest wall: no vessels, darker, bounded by a thin pleural line."""
    grid, rng = chest.grid, sign.rng()
    depth = 1.5 + 4.3 * sign.severity
    reach = -2.0 + 10.0 * sign.severity  # how far down the side it extends
    taper = step(reach - grid.y, 4.0)
    wave = 0.25 * grid.noise(rng, (4.0, 2.0))
    rim = np.minimum(chest.wall / np.maximum(taper, 0.05), 0.62 * chest.below_apex) + wave
    beyond = (rim - depth) * np.maximum(taper, 0.2)  # negative in the free air
    here = chest.fields[sign.side]
    free = step(-beyond, 0.12) * here
    chest.soft = chest.soft - chest.vessels * free
    # free air attenuates nothing, so lung simply goes; the collapsed lung becomes denser
    chest.lung = chest.lung * (1 - 0.93 * free)
    collapsed = here * (1 - free)
    chest.fill(collapsed * (0.04 + 0.14 * sign.severity))
    line = np.exp(-((beyond / 0.16) ** 2)) * here * (chest.wall > 0.4)
    chest.soft = chest.soft + 0.7 * line
    chest.bone = chest.bone + 0.05 * line
    return (free > 0.5) & here


def _edema(chest: Chest, sign: Sign) -> Mask:
    """Bat-wing haze around both hila, congested vessels, Kerley lines at the bases."""
    grid, rng = chest.grid, sign.rng()
    across = np.abs(grid.x - chest.patient.drift) - 6.0
    wing = np.exp(-((across / (2.9 + 1.3 * sign.severity)) ** 2))
    wing *= np.exp(-(((grid.y - 1.8) / (5.0 + 1.8 * sign.severity)) ** 2))
    fluffy = 1 + 0.32 * grid.noise(rng, (3.0, 1.5, 0.8))
    share = np.clip((0.20 + 0.34 * sign.severity) * wing * fluffy, 0, 0.75)
    canvas = Canvas(grid)
    for side in SIDES:
        for _ in range(14):
            x = side * rng.uniform(9.8, 12.2)
            y = rng.uniform(2.0, 8.0)
            canvas.line([(x, y), (x + side * 1.6, y + rng.normal(0.1, 0.1))], 0.14, 0.5)
    haze = grid.blur(share, 0.9)
    mask = (haze > 0.42 * (0.20 + 0.34 * sign.severity)) & chest.lungs()
    congested = chest.vessels * (0.6 + 0.7 * sign.severity)
    chest.lung = np.clip(chest.lung - congested, 0, None)
    chest.soft = chest.soft + congested + canvas.thickness() * chest.lungs()
    chest.fill(share)
    return mask


_LOBES: Mapping[Side, Sequence[tuple[float, float, float, float]]] = {
    # from upper to lower: centre |x|, y and half-axes of the zone a lobe shows in the frontal view
    -1: ((6.0, -6.3, 5.2, 4.8), (6.8, 3.0, 5.0, 3.4), (8.6, 6.0, 4.8, 4.8)),
    1: ((6.4, -5.4, 4.8, 5.4), (9.0, 5.6, 4.6, 5.4)),
}


def _lobe(side: Side, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Draw one of a lung's zones: centre (signed x, y) and half-axes."""
    x, y, wide, high = _LOBES[side][int(rng.integers(len(_LOBES[side])))]
    return side * x, y, wide, high


def _consolidation(chest: Chest, sign: Sign) -> Mask:
    """A lobe filled with fluid: dense, even, one straight border, dark bronchi inside."""
    grid, rng = chest.grid, sign.rng()
    x, y, wide, high = _lobe(sign.side, rng)
    size = 0.62 + 0.45 * sign.severity
    wave = 0.16 * grid.noise(rng, (3.0, 1.5))
    radius = ((grid.x - x) / (wide * size)) ** 2 + ((grid.y - y) / (high * size)) ** 2
    share = step(1 - np.sqrt(radius) + wave, 0.2) * (0.55 + 0.33 * sign.severity)
    fissure = grid.y - (y + high * size * 0.45) - 0.12 * (np.abs(grid.x) - abs(x))
    share = share * (step(-fissure, 0.15) if y < 0 else 1.0)
    canvas = Canvas(grid)
    start = (sign.side * HILUM[0], HILUM[1])
    for _ in range(7):
        end = (x + rng.normal(0, 0.45) * wide * size, y + rng.normal(0, 0.45) * high * size)
        bend = (0.5 * (start[0] + end[0]) + rng.normal(0, 0.4), 0.5 * (start[1] + end[1]))
        canvas.line([bend, end], 0.26, 1.0)
    bronchi = np.clip(grid.blur(canvas.thickness(), 0.14), 0, 1)
    share = share * (1 - 0.6 * bronchi)
    here = chest.halves[sign.side]
    mask = (chest.grid.blur(share, 0.3) > 0.3) & here
    chest.fill(share)
    return mask


def _pneumonia(chest: Chest, sign: Sign) -> Mask:
    """Several fluffy patches, mostly in one lobe."""
    grid, rng = chest.grid, sign.rng()
    x, y, wide, high = _lobe(sign.side, rng)
    share: Map = np.zeros(grid.shape, np.float32)
    for _ in range(3 + int(rng.integers(0, 2 + round(3 * sign.severity)))):
        patch = (x + rng.normal(0, 0.42) * wide, y + rng.normal(0, 0.42) * high)
        size = rng.uniform(1.1, 2.0) * (0.85 + 0.45 * sign.severity)
        radius = (grid.x - patch[0]) ** 2 + (grid.y - patch[1]) ** 2
        share = np.maximum(share, np.exp(-radius / (size * size)))
    speckle = 1 + 0.36 * grid.noise(rng, (2.2, 1.1, 0.6), fall=0.7)
    share = np.clip(share * (0.42 + 0.32 * sign.severity) * np.clip(speckle, 0.3, 1.8), 0, 0.85)
    here = chest.halves[sign.side]
    mask = (grid.blur(share, 0.45) > 0.13) & here
    chest.fill(share * here)
    return mask


def _atelectasis(chest: Chest, sign: Sign) -> Mask:
    """Plates of collapsed lung above the raised dome or, when severe, a collapsed lower lobe."""
    grid, rng = chest.grid, sign.rng()
    here = chest.halves[sign.side]  # a collapsed lower lobe hides behind the heart
    dome = chest.dome(sign.side)
    share: Map = np.zeros(grid.shape, np.float32)
    if sign.severity > 0.6:  # a triangle behind the heart or beside it
        medial = np.abs(grid.x) - 3.0
        height = 4.5 + 2.5 * sign.severity
        above = dome + 1.5 - grid.y
        edge = medial - (1 - above / height) * (5.0 + 3.0 * sign.severity)
        share = step(-edge, 0.6) * step(above, 0.3) * 0.75 * (grid.x * sign.side > 0)
    for _ in range(1 + int(rng.integers(1, 3))):
        centre = (sign.side * rng.uniform(6.0, 9.0), dome - rng.uniform(1.2, 5.0))
        angle = sign.side * rng.normal(0.12, 0.22)
        along = (grid.x - centre[0]) * math.cos(angle) + (grid.y - centre[1]) * math.sin(angle)
        beside = (grid.y - centre[1]) * math.cos(angle) - (grid.x - centre[0]) * math.sin(angle)
        length = rng.uniform(2.6, 3.8) + 1.0 * sign.severity
        thick = rng.uniform(0.38, 0.5) + 0.3 * sign.severity
        beside = beside + 0.12 * along * along / length + 0.15 * grid.noise(rng, (2.0, 1.0))
        plate = ball((along / length) ** 4 + (beside / thick) ** 2)
        share = np.maximum(share, plate * (0.42 + 0.25 * sign.severity))
    mask = (share > 0.2) & here
    chest.fill(grid.blur(share, 0.16))
    return mask


def _lesion(chest: Chest, sign: Sign) -> Mask:
    """One to three round nodules or a mass."""
    grid, rng = chest.grid, sign.rng()
    mask = np.zeros(grid.shape, bool)
    count = 1 + int(rng.integers(0, 3))
    for number in range(count):
        side = sign.side if number == 0 else SIDES[int(rng.integers(2))]
        y = float(rng.uniform(-9.5, 6.0))
        outer = 12.6 * (1 - (1 - (y + 13.2) / 21.2) ** 2.1) ** 0.52 - 1.8
        x = side * float(rng.uniform(min(5.2, outer), outer))
        diameter = (1.9 + 3.6 * sign.severity) * (1.0 if number == 0 else rng.uniform(0.55, 0.9))
        wave = 1 + 0.10 * grid.noise(rng, (2.0, 1.0))
        radius = ((grid.x - x) ** 2 + (grid.y - y) ** 2) / (0.5 * diameter) ** 2 * wave
        here = chest.halves[side]
        solid = (1.4 + 0.75 * diameter) * ball(radius) ** 0.7 * here
        chest.lung = np.clip(chest.lung - solid, 0, None)
        chest.soft = chest.soft + solid
        mask |= (radius < 1) & here
    return mask


def _pleural_other(chest: Chest, sign: Sign) -> Mask:
    """Thickened pleura along the side wall, with calcified plaques in some."""
    grid, rng = chest.grid, sign.rng()
    here = chest.fields[sign.side]
    middle, half = rng.uniform(-5.5, 2.0), 2.6 + 3.2 * sign.severity
    along = np.clip(1 - ((grid.y - middle) / half) ** 2, 0, 1)
    lumps = 1 + 0.25 * grid.noise(rng, (2.0, 1.0))
    thick = (1.1 + 1.4 * sign.severity) * along**0.5 * lumps
    band = step(thick - chest.wall, 0.2) * here
    chest.fill(0.75 * band)
    chest.soft = chest.soft + 0.8 * band
    mask = (band > 0.5) & here
    if rng.random() < 0.65:
        for _ in range(2 + int(rng.integers(0, 3))):
            y = middle + float(rng.uniform(-1, 1)) * half * 0.8
            off = chest.wall - float(rng.uniform(0.6, 2.2))
            wave = np.clip(1 + 0.3 * grid.noise(rng, (1.0, 0.5)), 0.4, 2)
            radius = (off / 0.7) ** 2 + ((grid.y - y) / rng.uniform(0.9, 1.8)) ** 2
            plaque = ball(radius * wave) ** 0.5 * here
            chest.bone = chest.bone + 0.75 * plaque
            mask |= plaque > 0.3
    return mask


def _effusion(chest: Chest, sign: Sign) -> Mask:
    """Fluid at the base with a meniscus climbing the side wall."""
    grid, rng = chest.grid, sign.rng()
    level = chest.dome(sign.side) + 2.4 - 9.5 * sign.severity**1.2
    climb = (1.6 + 2.6 * sign.severity) * np.exp(-np.clip(chest.wall, 0, None) / 1.3)
    wave = 0.12 * grid.noise(rng, (4.0, 2.0))
    under = grid.y - (level - climb) + wave
    here = chest.halves[sign.side]
    fluid = step(under, 0.25 + 0.35 * sign.severity) * step(grid.x * sign.side - 1.5, 1.0)
    chest.fill(0.96 * fluid)
    return (fluid > 0.5) & here


APPLY: Mapping[str, Callable[[Chest, Sign], Mask]] = {
    # Outlined as CheXlocalize does: mediastinum and heart together.
    "Enlarged Cardiomediastinum": lambda chest, sign: chest.mediastinum,
    "Cardiomegaly": lambda chest, sign: chest.heart,
    "Fracture": _break_sites,
    "Pneumothorax": _pneumothorax,
    "Edema": _edema,
    "Consolidation": _consolidation,
    "Pneumonia": _pneumonia,
    "Atelectasis": _atelectasis,
    "Lung Lesion": _lesion,
    "Pleural Other": _pleural_other,
    "Pleural Effusion": _effusion,
    "Support Devices": lambda chest, sign: support_devices(chest, sign.severity, sign.rng()),
}


def deform(patient: Patient, signs: Mapping[str, Sign]) -> Patient:
    """The patient with all geometric changes of the given findings."""
    for name in ORDER:
        if name in signs and name in DEFORM:
            patient = DEFORM[name](patient, signs[name])
    return patient


def apply(chest: Chest, signs: Mapping[str, Sign]) -> dict[str, Mask]:
    """Change the chest in place by all given findings.

    Returns:
        The mask of every finding that is present, parents included: Cardiomegaly implies an
        enlarged cardiomediastinum, each of `OPACITIES` a Lung Opacity.
    """
    masks: dict[str, Mask] = {}
    for name in ORDER:
        if name in signs:
            masks[name] = APPLY[name](chest, signs[name])
    if "Cardiomegaly" in masks:
        masks["Enlarged Cardiomediastinum"] = chest.mediastinum
    opaque = [masks[name] for name in OPACITIES if name in masks]
    if opaque:
        masks["Lung Opacity"] = np.logical_or.reduce(opaque)
    return masks
