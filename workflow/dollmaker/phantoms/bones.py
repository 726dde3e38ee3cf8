"""The bones of a frontal chest as thickness maps: ribs with their breaks, collar bones, spine.

The ribs are planes tilted through the elliptic shell of the cage: one periodic function draws all
of them, once on the rear half of the shell and once on the front half.
"""

from __future__ import annotations

import numpy as np

from dollmaker.phantoms.grid import Grid, Map, Mask, ball, step
from dollmaker.phantoms.patient import Patient, Side


def ribs(
    patient: Patient, grid: Grid, width: Map, depth: Map, shell: Map
) -> tuple[Map, Map, dict[Side, Map]]:
    """Rear and front rib arcs as bone thickness, and the rib number along the rear arc per side."""
    x, y = grid.x, grid.y
    across = np.abs(x)
    slant = 1 / np.sqrt(shell * shell + 0.14)  # the beam grazes the shell at the side
    within = shell > 0
    drop = patient.slope * depth
    rear_level = (
        y - drop * (1 - shell) - patient.rib_start + 0.35 * step(across - 3, 3)
    ) / patient.rib_pitch
    front_level = (y - drop * (1 + shell) - patient.rib_start) / patient.rib_pitch
    numbers: dict[Side, Map] = {-1: rear_level, 1: rear_level}

    missing = np.zeros(grid.shape, np.float32)
    callus = np.zeros(grid.shape, np.float32)
    moved = rear_level
    for item in patient.breaks:
        near = (np.abs(rear_level - item.rib) < 0.5) & (x * item.side > 0)
        beyond = across - item.x
        tail = np.where(beyond > 0, np.exp(-np.clip(beyond, 0, None) / 4), 0.0)
        moved = np.where(near, moved - item.offset / patient.rib_pitch * tail, moved)
        missing = np.maximum(missing, near * np.exp(-((beyond / max(item.gap, 1e-3)) ** 4)))
        if item.callus > 0:
            centre = (rear_level - item.rib) * patient.rib_pitch
            lump = (beyond / 1.25) ** 2 + (centre / 0.85) ** 2
            callus += near * 1.0 * ball(lump / item.callus**2) ** 1.5
    rear = _rib_profile(moved, patient.rib_pitch, 0.62, 11) * (across > 1.2) * (1 - missing)
    rear = rear * slant * within + callus
    front = _rib_profile(front_level, patient.rib_pitch, 0.70, 7) * step(across - 5.5, 1.5)
    return rear, 0.75 * front * slant * within, numbers


def _rib_profile(level: Map, pitch: float, half: float, count: int) -> Map:
    """Bone across ribs at whole-number levels: a dense rim around a light core, cm."""
    nearest = np.clip(np.round(level), 0, count)
    off = ((level - nearest) * pitch / half) ** 2
    return 0.62 * ball(off) - 0.34 * ball(off / 0.78**2)


def clavicles(patient: Patient, grid: Grid) -> tuple[Map, Mask]:
    """Bone of both collar bones, and their outline."""
    x = grid.x - 0.8 * patient.yaw
    out = np.abs(x) - 2.0
    tilt = 0.24 if not patient.ap else 0.16
    line = patient.clavicle - tilt * out - 0.55 * np.sin(out * 0.5)
    off = (grid.y - line) * 0.93
    half = 0.62 + 0.35 * np.exp(-out / 1.2)
    radius = (off / half) ** 2
    present = step(out, 0.3) * step(13.5 - out, 0.5)
    bone = (1.5 * ball(radius) - 0.7 * ball(radius / 0.62)) * present
    return bone, (radius < 1) & (out > 0) & (out < 13.5)


def spine(patient: Patient, grid: Grid) -> Map:
    """Bone of the vertebrae with discs, pedicles and spinous processes."""
    y = grid.y
    x = grid.x + 0.5 * patient.yaw - patient.curve * np.cos(y / 9)
    height = 2.45 + 0.02 * y
    place = y / height
    phase = place - np.floor(place)
    body = 1 - 0.55 * np.exp(-(((phase - 0.5) / 0.10) ** 2))
    half = 1.75 + 0.02 * y + 0.18 * np.cos(2 * np.pi * (phase - 0.5))
    column = 0.75 * ball((x / half) ** 2) ** 0.7 * body
    centred = (phase - np.round(phase)) * height
    pedicle = 0.45 * ball(((np.abs(x) - 1.1) / 0.42) ** 2 + (centred / 0.6) ** 2)
    process = 0.4 * ball((x / 0.35) ** 2 + ((centred - 0.3) / 0.7) ** 2)
    spine: Map = column + pedicle + process
    return spine


def shoulder_bones(patient: Patient, grid: Grid) -> Map:
    """Bone of shoulder blades and upper arms."""
    across, y = np.abs(grid.x), grid.y
    turned = 0.0 if not patient.ap else -1.3
    inner = across - (13.6 + turned - 0.10 * (y + 10))
    outer = (17.5 + turned) - across - 0.42 * (y + 9)
    top = y + 11.5
    edge = np.minimum(np.minimum(inner, outer), top)
    blade = np.where(edge > 0, 0.22 + 0.3 * np.exp(-np.clip(edge, 0, None) / 0.35), 0.0)
    head = 1.5 * ball(((across - 18.2) / 2.5) ** 2 + ((y + 10.2) / 2.4) ** 2)
    shaft = 1.3 * ball(((across - 19.3 - 0.2 * (y + 8)) / 1.3) ** 2) * (y > -9)
    bone: Map = blade.astype(np.float32) + np.maximum(head, shaft)
    return bone
