"""One patient's chest as thickness maps of its materials along the beam (frontal view).

The thorax is a stack of ellipses. Heart and mediastinum displace lung, which is why their edges
look round. The ribs are planes tilted through the elliptic shell of the cage: one periodic function
draws all of them, once on the rear half of the shell and once on the front half.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from dollmaker.phantoms.grid import Canvas, Grid, Map, Mask, Materials, ball, step
from dollmaker.phantoms.patient import SIDES, Patient, Side

APEX = -13.2  # y of the lungs' tops
BASE = 8.0  # y from which the cage no longer widens
HILUM = (4.1, -0.4)  # |x|, y where vessels and bronchi enter the lung


@dataclass
class Chest(Materials):
    """Thickness maps of a frontal chest, and the outlines findings refer to; all (H, W)."""

    grid: Grid
    patient: Patient
    vessels: Map  # the part of `soft` that is lung vessels
    fields: dict[Side, Mask]  # lung fields as a reader would outline them
    halves: dict[Side, Mask]  # lung fields with the heart's share of each side
    heart: Mask
    mediastinum: Mask
    clavicles: Mask
    wall: Map  # distance inwards from the cage's side wall, cm
    below_dome: Map  # y below the diaphragm's dome, cm
    below_apex: Map  # y below the top of the lung, cm
    rib: dict[Side, Map] = field(default_factory=dict)  # rib number on the rear arc, fractional

    def lungs(self) -> Mask:
        """Both lung fields."""
        return self.fields[-1] | self.fields[1]

    def dome(self, side: Side) -> float:
        """Y of the dome of one side."""
        return self.patient.domes[SIDES.index(side)]

    def fill(self, share: Map) -> None:
        """Replace a share of the air-filled lung, 0..1, by soft tissue or fluid."""
        taken = self.lung * np.clip(share, 0, 1)
        self.lung = self.lung - taken
        self.soft = self.soft + taken


def place_grid(patient: Patient, shape: tuple[int, int]) -> Grid:
    """The grid of a patient's frontal picture."""
    return Grid.place(
        shape, field=patient.field / patient.scale, roll=patient.roll, shift=patient.shift
    )


def build_chest(patient: Patient, grid: Grid, rng: np.random.Generator) -> Chest:
    """Stack the structures of a frontal chest into thickness maps."""
    x, y = grid.x, grid.y
    across = np.abs(x)
    rise = np.clip((y - APEX) / (BASE - APEX), 1e-3, 1)
    width = patient.width * (1 - (1 - rise) ** 2.1) ** 0.52
    depth = patient.depth * (0.55 + 0.45 * np.sqrt(rise))
    shell = ball((x / width) ** 2)

    below_apex = y - (APEX + 1.7 * ((across - 4.7) / 3.0) ** 2)
    side_way = (across - 6.3) / (patient.width - 6.3)
    drop = np.where(side_way > 0, 4.3 * side_way * side_way, 1.3 * side_way * side_way)
    leftness = step(x - 0.8, 2.5)  # the heart sits on the step between the two domes
    dome = patient.domes[0] * (1 - leftness) + patient.domes[1] * leftness
    below_dome = y - dome - drop

    heart, heart_core = _heart(patient, grid)
    middle, middle_core = _mediastinum(patient, grid)
    open_lung = np.sqrt(np.clip(below_apex / 4, 0, 1))
    open_lung *= 1 - np.sqrt(np.clip(below_dome / 1.2, 0, 1))
    cavity = 2 * depth * shell
    lung = np.clip(cavity - np.maximum(heart, middle), 0, None) * open_lung
    thorax = (shell > 0) & (below_apex > 0) & (below_dome < 0) & ~middle_core
    inside = thorax & ~heart_core

    body, fat = _body(patient, grid)
    vessels = np.minimum(_vessels(patient, grid, rng), 0.6 * lung)
    trachea = _airways(patient, grid)
    lung = lung - vessels
    hila = _hila(patient, grid)
    hila = np.minimum(hila, 0.7 * lung)
    lung = lung - hila
    stomach = (
        4.5
        * ball(((x - 5.6) / 2.6) ** 2 + ((y - patient.domes[1] - 2.3) / 1.5) ** 2)
        * float(rng.random() < 0.75)
        * float(rng.uniform(0.5, 1.1))
    )
    soft = np.clip(body - fat - lung - trachea - stomach, 0, None)

    rear, front, rib = _ribs(patient, grid, width, depth, shell)
    clavicle, clavicle_outline = _clavicles(patient, grid)
    bone = rear + front + clavicle + _spine(patient, grid) + _shoulder_bones(patient, grid)
    return Chest(
        grid=grid,
        patient=patient,
        soft=soft.astype(np.float32),
        fat=fat,
        lung=lung.astype(np.float32),
        bone=(bone * patient.bone).astype(np.float32),
        metal=np.zeros(grid.shape, np.float32),
        vessels=vessels.astype(np.float32),
        fields={-1: inside & (x < 0), 1: inside & (x >= 0)},
        halves={-1: thorax & (x < 0), 1: thorax & (x >= 0)},
        heart=heart_core & (below_dome < 1.5),
        mediastinum=(middle_core | heart_core) & (y > -11.5) & (below_dome < 1.5),
        clavicles=clavicle_outline,
        wall=width - across,
        below_dome=below_dome,
        below_apex=below_apex,
        rib=rib,
    )


def _heart(patient: Patient, grid: Grid) -> tuple[Map, Mask]:
    """Chord of the heart, an ellipsoid tilted towards the patient's left, and its outline."""
    size = patient.heart
    x = grid.x - (1.7 + 1.6 * (size - 1) + patient.drift + 0.4 * patient.yaw)
    y = grid.y - (5.6 - 2.0 * (size - 1) + 0.6 * (patient.domes[1] - 9.7))
    cosine, sine = math.cos(patient.heart_tilt), math.sin(patient.heart_tilt)
    along, beside = x * cosine + y * sine, y * cosine - x * sine
    radius = (along / (6.9 * size)) ** 2 + (beside / (5.2 * (0.35 + 0.65 * size))) ** 2
    return 2 * 5.6 * ball(radius), radius < 1


def _mediastinum(patient: Patient, grid: Grid) -> tuple[Map, Mask]:
    """Chord of the mediastinum with aortic knob and pulmonary trunk, and its outline."""
    y = grid.y
    centre = patient.drift + 0.25 * patient.yaw
    wide = patient.mediastinum
    bulge = np.exp(-(((y + 5.0) / 5.0) ** 2)) * wide
    right = 2.5 + 0.6 * np.exp(-(((y + 3.0) / 3.0) ** 2)) + 0.9 * bulge + 0.25 * wide
    knob = patient.knob * np.exp(-(((y + 5.6) / 1.5) ** 2))
    trunk = 0.8 * np.exp(-(((y + 2.2) / 1.6) ** 2))
    left = 2.4 + knob + trunk + 1.1 * bulge + 0.25 * wide
    x = grid.x - centre
    reach = np.where(x < 0, right, left)
    radius = (x / reach) ** 2
    return 2 * 7.6 * ball(radius), radius < 1


def _hila(patient: Patient, grid: Grid) -> Map:
    """Chord of the great vessels at both lung roots."""
    total = np.zeros(grid.shape, np.float32)
    for side in SIDES:
        x = grid.x - side * 3.6 - patient.drift
        y = grid.y - (HILUM[1] + (0.5 if side < 0 else -0.5))
        tilted = x + side * 0.35 * y
        total += 2.6 * ball((tilted / 1.5) ** 2 + (y / 2.6) ** 2) ** 1.5
    return total


def _body(patient: Patient, grid: Grid) -> tuple[Map, Map]:
    """Chord of the whole body and of the fat under its skin."""
    x, y = grid.x, grid.y
    across = np.abs(x)
    half = patient.width + 2.0 + patient.fat
    slope = np.clip(across - 5, 0, None)
    shoulder_line = -16.5 + 0.30 * slope + 0.05 * np.clip(across - 14.5, 0, None) ** 2
    under = np.sqrt(np.clip((y - shoulder_line) / 3, 0, 1))
    torso = 2 * (patient.depth + 2.2 + 0.7 * patient.fat) * ball((x / half) ** 2)
    torso *= 0.72 + 0.28 * step(y + 5, 7)
    arm = across - (17.5 + 0.22 * (y + 8) + 0.4 * patient.fat)
    arms = 9.0 * ball((arm / (3.6 + 0.5 * patient.fat)) ** 2)
    shoulders = 17.0 * np.sqrt(np.clip((21 - across) / 6, 0, 1)) * step(-2 - y, 5)
    body = np.maximum(np.maximum(torso, arms), shoulders) * under
    neck = 15.0 * ball((x / 5.6) ** 2) * (y < -8)
    body = np.maximum(body, neck)
    fat = np.minimum(2 * patient.fat / np.sqrt(ball((x / half) ** 2) ** 2 + 0.08), 0.7 * body)
    fat = fat * (1 - 0.5 * step(-9 - y, 3))
    if patient.sex == "Female":
        size = 4.6 + 0.6 * patient.fat
        for side in SIDES:
            radius = ((x - side * 7.6) / size) ** 2 + ((y - 5.2) / (0.85 * size)) ** 2
            breast = (1.6 + 0.8 * patient.fat) * ball(radius) * (0.55 + 0.45 * step(y - 5, 4))
            body = body + breast
            fat = fat + 0.5 * breast
    return body.astype(np.float32), fat.astype(np.float32)


def _airways(patient: Patient, grid: Grid) -> Map:
    """Chord of the air in the windpipe and the two main bronchi."""
    x = grid.x - patient.drift - 0.5 * patient.yaw
    y = grid.y
    trachea = 1.7 * ball((x / 0.85) ** 2) * step(-3.4 - y, 0.6)
    for side in SIDES:
        along = np.clip((side * x * 0.6 + (y + 3.6) * 0.8) / 4.2, 0, 1)
        away = (x - side * along * 2.6) ** 2 + (y + 3.6 - along * 3.3) ** 2
        trachea = np.maximum(trachea, 1.2 * ball(away / 0.6**2))
    return trachea


def _vessels(patient: Patient, grid: Grid, rng: np.random.Generator) -> Map:
    """Vessels branching from both hila out into the lungs, thickness in cm."""
    canvas = Canvas(grid)
    levels: list[tuple[list[list[tuple[float, float]]], float]] = []
    for side in SIDES:
        fan = np.linspace(-1.35, 1.45, 9) + rng.normal(0, 0.1, 9)  # from up to down
        start = np.tile([side * HILUM[0], HILUM[1]], (9, 1)) + rng.normal(0, 0.5, (9, 2))
        length = 2.5 + 0.9 * np.abs(np.sin(fan)) + rng.normal(0, 0.2, 9)
        calibre = 0.62
        for _ in range(5):
            direction = np.stack([side * np.cos(fan), np.sin(fan)], axis=1)
            bent = start + length[:, None] * 0.5 * direction + rng.normal(0, 0.08, start.shape)
            end = start + length[:, None] * direction + rng.normal(0, 0.15, start.shape)
            lines = [
                [(a[0], a[1]), (b[0], b[1]), (c[0], c[1])]
                for a, b, c in zip(start.tolist(), bent.tolist(), end.tolist(), strict=True)
            ]
            levels.append((lines, calibre))
            spread = rng.normal(0.36, 0.12, len(fan))
            fan = np.concatenate([fan - spread, fan + 0.8 * spread])
            start = np.concatenate([end, end])
            length = np.tile(length, 2) * rng.uniform(0.62, 0.9, len(fan))
            calibre *= 0.72
    for lines, calibre in sorted(levels, key=lambda level: level[1]):
        for points in lines:
            canvas.line(points, calibre, 1.5 * calibre * patient.markings)
    return canvas.thickness()


def _ribs(
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


def _clavicles(patient: Patient, grid: Grid) -> tuple[Map, Mask]:
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


def _spine(patient: Patient, grid: Grid) -> Map:
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


def _shoulder_bones(patient: Patient, grid: Grid) -> Map:
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
