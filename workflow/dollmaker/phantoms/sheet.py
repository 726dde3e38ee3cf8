"""A contact sheet: normal chests and every finding from subtle to obvious, the truth outlined."""

from __future__ import annotations

import numpy as np
from PIL import Image

from dollmaker.phantoms.pathology import OPACITIES
from dollmaker.phantoms.patient import sample_patient
from dollmaker.phantoms.sampling import draw_sign
from dollmaker.phantoms.study import FINDINGS, Picture, render_frontal, render_lateral
from dollmaker.pictures.overlay import MASK, Rgb, outline
from dollmaker.pictures.sheet import sheet

_SEVERITIES = (0.15, 0.5, 0.9)


def contact_sheet(seed: int = 0, size: int = 192) -> Image.Image:
    """Draw a labelled grid of phantoms.

    Each finding fills half a row: at three severities the plain picture, and beside it the same
    with the truth outlined. The first row shows normal chests, the last column pair laterals.

    Args:
        seed: Patients and shapes.
        size: Side of one picture in pixels.
    """
    rows: list[tuple[str, list[Rgb]]] = []
    normals = []
    for number in range(6):
        rng = np.random.default_rng([seed, 0, number])
        patient = sample_patient(rng)
        view = render_frontal if number < 4 else render_lateral
        normals.append(_tile(view(patient, {}, (size, size), int(rng.integers(2**62))), None))
    rows.append(("No Finding (four frontal, two lateral views)", normals))
    for index, name in enumerate(FINDINGS):
        tiles = []
        for number, severity in enumerate(_SEVERITIES):
            rng = np.random.default_rng([seed, 1 + index, number])
            drawn = OPACITIES[number] if name == "Lung Opacity" else name
            patient = sample_patient(rng)
            signs = {drawn: draw_sign(rng, severity)}
            picture = render_frontal(patient, signs, (size, size), int(rng.integers(2**62)))
            tiles += [_tile(picture, None), _tile(picture, name)]
        rows.append((name, tiles))

    halves = [sheet(rows[::2]), sheet(rows[1::2])]
    return Image.fromarray(sheet([("", halves)]))


def _tile(picture: Picture, name: str | None) -> Rgb:
    """The picture, with the outline of one finding's mask if named."""
    colour: Rgb = np.repeat(picture.image[:, :, None], 3, axis=2)
    return colour if name is None else outline(colour, picture.masks[name], MASK)
