"""The lateral view of the same patient, in less detail: no truth is written for it.

Here x grows towards the back. Findings are carried over roughly: large heart, fluid in the rear
angle, haze, patches and nodules, wires.
"""

from collections.abc import Mapping

import numpy as np

from dollmaker.phantoms.anatomy import APEX, BASE
from dollmaker.phantoms.grid import Canvas, Grid, Map, Materials, ball, step
from dollmaker.phantoms.patient import Patient, Sign


def build_lateral(
    patient: Patient, signs: Mapping[str, Sign], grid: Grid, rng: np.random.Generator
) -> Materials:
    """Stack the structures of a lateral chest, findings included."""
    x, y = grid.x, grid.y
    rise = np.clip((y - APEX) / (BASE - APEX), 1e-3, 1)
    depth = patient.depth * 1.12 * (0.5 + 0.5 * np.sqrt(rise))
    width = patient.width * (1 - (1 - rise) ** 2.1) ** 0.52
    shell = ball((x / depth) ** 2)
    cavity = 2 * width * shell

    size = patient.heart
    heart = (
        9.0
        * size
        * ball(((x + 3.2) / (5.6 * size)) ** 2 + ((y - 5.6 + 0.35 * x) / (5.2 * size)) ** 2)
    )
    middle = 6.0 * np.exp(-(((x + 0.5) / 3.2) ** 2)) * step(5 - y, 5)
    hila = 3.2 * np.exp(-(((x - 0.8) / 1.7) ** 2) - ((y + 0.3) / 1.9) ** 2)
    open_lung = np.sqrt(np.clip((y - APEX - 0.04 * x * x) / 4, 0, 1))
    for dome in patient.domes:  # each half of the chest ends at its own dome
        drop = np.where(x > -1, 0.045 * (x + 1) ** 2, 0.02 * (x + 1) ** 2)
        below = np.clip((y - dome - drop + 0.6) / 1.2, 0, 1)
        open_lung = open_lung * (1 - 0.5 * np.sqrt(below) * (1 + np.sqrt(below)) / 2)
    deep = np.clip((y - max(patient.domes) - 0.06 * np.clip(x, 0, None) ** 2) / 1.5, 0, 1)
    lung = np.clip(cavity - np.maximum(heart, middle) - hila, 0.0, None)
    lung = lung * open_lung * (1 - deep)
    lung = lung * _opened_by(signs, grid, rng)

    half = depth + 2.6 + patient.fat
    torso = 2 * (patient.width + 2.0 + patient.fat) * ball((x / half) ** 2)
    shoulder = 24.0 * ball(((x - 1.5) / 8.5) ** 2 + ((y + 19) / 7.0) ** 2)
    body = np.maximum(torso * step(y + 14, 3), shoulder)
    fat = np.minimum(2 * patient.fat / np.sqrt(ball((x / half) ** 2) ** 2 + 0.08), 0.7 * body)

    vessels = Canvas(grid)
    for angle in rng.uniform(0, 2 * np.pi, 26):
        start, reach = (0.8, -0.3), rng.uniform(3, 7)
        end = (start[0] + reach * np.cos(angle), start[1] + reach * np.sin(angle))
        vessels.line([start, end], 0.35, 0.8)
    marks = np.minimum(vessels.thickness(), 0.5 * lung)
    trachea = 1.6 * ball(((x - 1.0 - 0.18 * (y + 6)) / 0.85) ** 2) * step(-2 - y, 0.6)
    soft = np.clip(body - fat - lung + marks - trachea, 0, None)

    bone = _spine_and_sternum(patient, grid) + _side_ribs(patient, grid, shell)
    metal = Canvas(grid)
    if "Support Devices" in signs:
        for _ in range(2):
            top, foot = rng.uniform(-6, 4), rng.uniform(-10, 10)
            metal.line([(-8, top), (rng.uniform(-4, 4), top + 4), (foot, 19)], 0.2, 0.12)
    return Materials(
        soft=soft.astype(np.float32),
        fat=fat.astype(np.float32),
        lung=(lung - marks).astype(np.float32),
        bone=(bone * patient.bone).astype(np.float32),
        metal=metal.thickness(),
    )


def _opened_by(signs: Mapping[str, Sign], grid: Grid, rng: np.random.Generator) -> Map:
    """Share of the lung that stays filled with air under the findings."""
    x, y = grid.x, grid.y
    share: Map = np.ones(grid.shape, np.float32)
    if "Pleural Effusion" in signs:
        level = 10.0 - 9.0 * signs["Pleural Effusion"].severity - 0.05 * np.clip(x, 0, None) ** 2
        share = share * (1 - 0.75 * step(y - level, 0.4))
    if "Edema" in signs:
        wing = np.exp(-((x / 5) ** 2) - ((y - 1) / 6) ** 2)
        share = share * (1 - (0.2 + 0.3 * signs["Edema"].severity) * wing)
    for name in ("Consolidation", "Pneumonia", "Atelectasis", "Lung Lesion"):
        if name in signs:
            place = (rng.uniform(-4, 5), rng.uniform(-6, 6))
            size = 1.2 + 2.0 * signs[name].severity
            radius = ((x - place[0]) ** 2 + (y - place[1]) ** 2) / size**2
            share = share * (1 - 0.22 * step(1 - np.sqrt(radius), 0.35))
    return np.clip(share, 0, 1)


def _spine_and_sternum(patient: Patient, grid: Grid) -> Map:
    """Vertebral bodies and arches behind, the breast bone in front."""
    y = grid.y
    x = grid.x - (patient.depth - 1.6 - 0.012 * (y - 1) ** 2 + 0.4)
    height = 2.45 + 0.02 * y
    place = y / height
    phase = place - np.floor(place)
    disc = 1 - 0.75 * np.exp(-(((phase - 0.5) / 0.11) ** 2))
    column = 2.4 * ball((x / 1.6) ** 2) ** 0.5 * disc
    arch = 0.8 * np.exp(-(((x - 3.0) / 0.8) ** 2)) * disc
    front = grid.x + patient.depth * 1.08 - 0.10 * (BASE - y) * 0.8
    sternum = 1.6 * ball((front / 0.6) ** 2) * step(5 - y, 1) * step(y + 9, 1)
    return column + arch + sternum


def _side_ribs(patient: Patient, grid: Grid, shell: Map) -> Map:
    """Ribs of both sides, slanting down to the front."""
    total: Map = np.zeros(grid.shape, np.float32)
    for offset in (0.0, 0.9):
        level = (grid.y + patient.slope * 1.3 * grid.x + offset) / patient.rib_pitch
        off = ((level - np.round(level)) * patient.rib_pitch / 0.6) ** 2
        total += 0.45 * ball(off) - 0.25 * ball(off / 0.6)
    return total * (shell > 0) * step(grid.y + 11, 2) * step(11 - grid.y, 3)
