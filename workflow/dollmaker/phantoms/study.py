"""One picture of one patient: sampling, anatomy, findings and rendering put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dollmaker.phantoms.anatomy import Chest, build_chest, place_grid
from dollmaker.phantoms.grid import Grid, Map, Mask, shrink
from dollmaker.phantoms.lateral import build_lateral
from dollmaker.phantoms.pathology import Sign, apply, deform
from dollmaker.phantoms.patient import Patient
from dollmaker.phantoms.render import Materials, develop, expose, finish, transmit
from dollmaker.store.findings import CHEXPERT, NO_FINDING

FINDINGS = tuple(name for name in CHEXPERT if name != NO_FINDING)
"""The 13 findings that have a place in the picture."""

_LEAST = 96  # smaller pictures are drawn finer and averaged, or the ribs would alias


@dataclass(frozen=True)
class Picture:
    """A rendered view with its truth.

    Attributes:
        image: Grey values, uint8 (H, W).
        masks: Region of each of the 13 findings, bool (H, W), empty where absent; {} for laterals.
        organs: Lungs, heart and clavicles, bool (H, W); {} for laterals.
    """

    image: npt.NDArray[np.uint8]
    masks: dict[str, Mask]
    organs: dict[str, Mask]


def render_frontal(
    patient: Patient, signs: Mapping[str, Sign], shape: tuple[int, int], seed: int
) -> Picture:
    """Render a frontal view.

    Args:
        patient: The patient without findings.
        signs: What the patient has.
        shape: Height and width in pixels.
        seed: Everything by chance in this view: vessels, texture, noise, marker.
    """
    factor = _oversampling(shape)
    patient = deform(patient, signs)
    grid = place_grid(patient, (shape[0] * factor, shape[1] * factor))
    anatomy, texture, detector = np.random.default_rng(seed).spawn(3)
    chest = build_chest(patient, grid, anatomy)
    chest.soft = chest.soft * _texture(grid, texture)
    masks = apply(chest, signs)
    film = _film(chest, patient, grid, factor, shape, detector)
    absent = np.zeros(shape, bool)
    return Picture(
        image=film,
        masks={
            name: _reduce(masks[name], factor) if name in masks else absent for name in FINDINGS
        },
        organs={
            "lungs": _reduce(chest.lungs(), factor),
            "heart": _reduce(chest.heart, factor),
            "clavicles": _reduce(chest.clavicles, factor),
        },
    )


def render_lateral(
    patient: Patient, signs: Mapping[str, Sign], shape: tuple[int, int], seed: int
) -> Picture:
    """Render a lateral view; arguments as for `render_frontal`, no masks."""
    factor = _oversampling(shape)
    patient = deform(patient, signs)
    grid = place_grid(patient, (shape[0] * factor, shape[1] * factor))
    anatomy, texture, detector = np.random.default_rng(seed).spawn(3)
    chest = build_lateral(patient, signs, grid, anatomy)
    chest.soft = chest.soft * _texture(grid, texture)
    return Picture(_film(chest, patient, grid, factor, shape, detector), {}, {})


def _oversampling(shape: tuple[int, int]) -> int:
    return max(1, -(-_LEAST // max(shape)))


def _texture(grid: Grid, rng: np.random.Generator) -> Map:
    """Muscles and fat are not even: a few percent of the tissue's thickness, in several grains."""
    return 1 + 0.028 * grid.noise(rng, (6.0, 3.0, 1.5, 0.75, 0.4), fall=0.75)


def _film(
    chest: Materials,
    patient: Patient,
    grid: Grid,
    factor: int,
    shape: tuple[int, int],
    rng: np.random.Generator,
) -> npt.NDArray[np.uint8]:
    """Transmit, expose, bring to the picture's size, develop."""
    beam = shrink(expose(transmit(chest, patient), patient, grid, rng), factor)
    plain = Grid.place(shape, field=grid.pitch * max(grid.shape), roll=grid.roll, shift=grid.shift)
    reach = 15.0 if isinstance(chest, Chest) else 0.9 * patient.depth
    return finish(develop(beam, patient, plain, reach), plain, rng)


def _reduce(mask: Mask, factor: int) -> Mask:
    """A mask at the picture's size: covered by half, or by anything if it would vanish."""
    if factor == 1:
        return mask
    share = shrink(mask.astype(np.float32), factor)
    half = share >= 0.5
    return half if half.any() else share > 0
