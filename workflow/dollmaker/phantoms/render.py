"""From thickness to film: Beer-Lambert, scatter, quantum noise, detector response."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import numpy.typing as npt

from dollmaker.phantoms.grid import Canvas, Grid, Map
from dollmaker.phantoms.patient import Patient

ATTENUATION = {"soft": 0.20, "fat": 0.17, "lung": 0.055, "bone": 0.48, "metal": 6.0}
"""Effective linear attenuation of each material at about 65 keV, per cm."""

_SCATTER = 0.22  # share of scattered to direct beam that passes the grid
_PHOTONS = 4.0e6  # per square cm of open beam; noise falls with the pixel's area, as on a detector


class Materials(Protocol):
    """Anything with thickness maps in cm (H, W) of the known materials."""

    soft: Map
    fat: Map
    lung: Map
    bone: Map
    metal: Map


def transmit(materials: Materials, patient: Patient) -> Map:
    """Share of the beam that passes unscattered: exp(-sum of attenuation x thickness), 0..1."""
    depth = (
        ATTENUATION["soft"] * materials.soft
        + ATTENUATION["fat"] * materials.fat
        + ATTENUATION["lung"] * patient.air * materials.lung
        + ATTENUATION["bone"] * materials.bone
        + ATTENUATION["metal"] * materials.metal
    )
    beam: Map = np.exp(-patient.scale * depth, dtype=np.float32)
    return beam


def expose(direct: Map, patient: Patient, grid: Grid, rng: np.random.Generator) -> Map:
    """Add scatter, focal blur, quantum and electronic noise to the direct beam.

    Returns:
        Detected intensity relative to the open beam, above 0, (H, W).
    """
    capped = np.minimum(direct, 0.3)  # the beam beside the body would drown its edge in scatter
    share = _SCATTER * (1.35 if patient.ap else 1.0)
    beam = grid.blur(direct, 0.05) + share * grid.blur(capped, 3.2) + 0.002
    photons = _PHOTONS * patient.exposure * grid.pitch**2 * patient.scale**2
    grain = rng.standard_normal(grid.shape, dtype=np.float32)  # Poisson: counts here are large
    noisy = beam + np.sqrt(beam / photons) * grain
    noisy *= 1 + 0.004 * rng.standard_normal(grid.shape, dtype=np.float32)
    detected: Map = np.maximum(noisy, 1e-4)
    return detected


def develop(
    intensity: Map, patient: Patient, grid: Grid, reach: float = 15.0
) -> npt.NDArray[np.uint8]:
    """The detector's logarithm, equalised and windowed as for reading: bone bright, lung dark.

    The window is set on the region within `reach` cm of the body's axis.
    """
    density = -np.log(intensity)
    density = density - 0.38 * grid.blur(density, 4.5)  # as all digital systems do
    central = density[(np.abs(grid.x) < reach) & (np.abs(grid.y) < 14)]
    ordered = np.sort(central[:: max(1, central.size // 4000)])
    low, high = float(ordered[int(0.01 * ordered.size)]), float(ordered[int(0.993 * ordered.size)])
    level = (density - low) / max(high - low, 1e-3)
    curve = 1 / (1 + np.exp(-4.2 * patient.contrast * (level - 0.47)))
    floor, ceiling = 1 / (1 + math.exp(4.2 * 0.52)), 1 / (1 + math.exp(-4.2 * 0.62))
    grey = 255 * (curve - floor) / (ceiling - floor)
    film: npt.NDArray[np.uint8] = np.clip(np.round(grey), 0, 255).astype(np.uint8)
    return film


def finish(
    film: npt.NDArray[np.uint8], grid: Grid, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Collimator borders and the burnt-in side marker, as found on some pictures."""
    height, width = film.shape
    edge = rng.uniform(0, 0.05, 4) * (rng.random(4) < 0.5)
    bordered = bool(rng.random() < 0.18)
    marked = bool(rng.random() < 0.55)
    right = bool(rng.random() < 0.25)
    place = (float(rng.uniform(13.5, 16.0)), float(rng.uniform(-15.0, -11.5)))
    film = film.copy()
    if marked:
        canvas = Canvas(Grid.place(film.shape, field=grid.pitch * max(film.shape)))
        x, y = (-place[0] if right else place[0]), place[1]
        stem = [(x, y), (x, y + 1.8)]
        if right:
            canvas.line(stem, 0.25, 1.0)
            canvas.line([(x, y), (x + 0.9, y + 0.1), (x + 0.9, y + 0.8), (x, y + 0.9)], 0.25, 1.0)
            canvas.line([(x + 0.3, y + 0.9), (x + 1.0, y + 1.8)], 0.25, 1.0)
        else:
            canvas.line([*stem, (x + 1.0, y + 1.8)], 0.25, 1.0)
        ink = np.clip(canvas.thickness(), 0, 1)
        film = (film + ink * (250.0 - film)).astype(np.uint8)
    if bordered:
        top, bottom, left, side = (edge * [height, height, width, width]).astype(int).tolist()
        film[:top] = 4
        film[height - bottom :] = 4
        film[:, :left] = 4
        film[:, width - side :] = 4
    return film
