"""One picture of one patient: anatomy and findings, then from thickness to film.

The film follows Beer-Lambert's law, with scatter, quantum noise and the detector's response.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dollmaker.phantoms.anatomy import build_chest, place_grid
from dollmaker.phantoms.grid import Canvas, Grid, Map, Mask, Materials, shrink
from dollmaker.phantoms.lateral import build_lateral
from dollmaker.phantoms.pathology import apply, deform
from dollmaker.phantoms.patient import Patient, Sign
from dollmaker.store.findings import CHEXPERT, NO_FINDING

FINDINGS = tuple(name for name in CHEXPERT if name != NO_FINDING)
"""The 13 findings that have a place in the picture."""

_LEAST = 96  # smaller pictures are drawn finer and averaged, or the ribs would alias

ATTENUATION = {"soft": 0.20, "fat": 0.17, "lung": 0.055, "bone": 0.48, "metal": 6.0}
"""Effective linear attenuation of each material at about 65 keV, per cm."""

_SCATTER = 0.22  # share of scattered to direct beam that passes the grid
_PHOTONS = 4.0e6  # per square cm of open beam; noise falls with the pixel's area, as on a detector


@dataclass(frozen=True)
class Picture:
    """A rendered view with its truth."""

    image: npt.NDArray[np.uint8]  #: Grey values, uint8 (H, W).
    #: Region of each of the 13 findings, bool (H, W), empty where absent; {} for laterals.
    masks: dict[str, Mask]
    organs: dict[str, Mask]  #: Lungs, heart and clavicles, bool (H, W); {} for laterals.


def render_frontal(
    patient: Patient, signs: Mapping[str, Sign], shape: tuple[int, int], seed: int
) -> Picture:
    """Render a frontal view, height and width in pixels, of a patient with the findings of `signs`.

    The seed decides all that is by chance in this view: vessels, texture, noise, marker.
    """
    view = _View(deform(patient, signs), shape, seed)
    chest = build_chest(view.patient, view.grid, view.anatomy)
    chest.soft = chest.soft * view.texture()
    masks = apply(chest, signs)
    film = view.film(chest, 15.0)
    absent = np.zeros(shape, bool)
    organs = {"lungs": chest.lungs(), "heart": chest.heart, "clavicles": chest.clavicles}
    return Picture(
        image=film,
        masks={name: view.reduce(masks[name]) if name in masks else absent for name in FINDINGS},
        organs={name: view.reduce(mask) for name, mask in organs.items()},
    )


def render_lateral(
    patient: Patient, signs: Mapping[str, Sign], shape: tuple[int, int], seed: int
) -> Picture:
    """Render a lateral view; arguments as for `render_frontal`, no masks."""
    view = _View(deform(patient, signs), shape, seed)
    chest = build_lateral(view.patient, signs, view.grid, view.anatomy)
    chest.soft = chest.soft * view.texture()
    return Picture(view.film(chest, 0.9 * patient.depth), {}, {})


class _View:
    """The grid of a picture, finer than its pixels if these are few, and its sources of chance."""

    def __init__(self, patient: Patient, shape: tuple[int, int], seed: int) -> None:
        self.patient, self.shape = patient, shape
        self.factor = max(1, -(-_LEAST // max(shape)))
        self.grid = place_grid(patient, (shape[0] * self.factor, shape[1] * self.factor))
        self.anatomy, self._texture, self._detector = np.random.default_rng(seed).spawn(3)

    def texture(self) -> Map:
        """Muscles and fat are not even: a few percent of their thickness, in several grains."""
        return 1 + 0.028 * self.grid.noise(self._texture, (6.0, 3.0, 1.5, 0.75, 0.4), fall=0.75)

    def film(self, chest: Materials, reach: float) -> npt.NDArray[np.uint8]:
        """Transmit, expose, bring to the picture's size, develop; ``reach`` as in `_develop`."""
        grid = self.grid
        direct = transmit(chest, self.patient)
        beam = shrink(_expose(direct, self.patient, grid, self._detector), self.factor)
        field = grid.pitch * max(grid.shape)
        plain = Grid.place(self.shape, field=field, roll=grid.roll, shift=grid.shift)
        return _finish(_develop(beam, self.patient, plain, reach), plain, self._detector)

    def reduce(self, mask: Mask) -> Mask:
        """A mask at the picture's size: covered by half, or by anything if it would vanish."""
        if self.factor == 1:
            return mask
        share = shrink(mask.astype(np.float32), self.factor)
        half = share >= 0.5
        return half if half.any() else share > 0


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


def _expose(direct: Map, patient: Patient, grid: Grid, rng: np.random.Generator) -> Map:
    """Add scatter, focal blur, quantum and electronic noise to the direct beam.

    Detected intensity is relative to the open beam, above 0, (H, W).
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


def _develop(intensity: Map, patient: Patient, grid: Grid, reach: float) -> npt.NDArray[np.uint8]:
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


def _finish(
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
