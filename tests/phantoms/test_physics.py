"""Anatomy, findings and film obey the physics they claim."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from dollmaker.phantoms.anatomy import Chest, build_chest, place_grid
from dollmaker.phantoms.grid import Canvas, Grid, Mask, ball
from dollmaker.phantoms.pathology import APPLY, apply, deform
from dollmaker.phantoms.patient import ORDER, SIDES, Patient, Sign, sample_patient
from dollmaker.phantoms.study import (
    ATTENUATION,
    FINDINGS,
    render_frontal,
    render_lateral,
    transmit,
)


@pytest.fixture
def patient() -> Patient:
    return replace(sample_patient(np.random.default_rng(5)), roll=0.0, shift=(0.0, 0.0))


def chest_of(patient: Patient, size: int = 160) -> Chest:
    return build_chest(patient, place_grid(patient, (size, size)), np.random.default_rng(0))


def widest(mask: Mask) -> int:
    columns = np.flatnonzero(mask.any(axis=0))
    return int(columns[-1] - columns[0] + 1)


def test_beer_lambert_through_the_centre_of_an_ellipsoid(patient: Patient) -> None:
    grid = Grid.place((65, 65), field=20.0)
    thickness = 2 * 6.0 * ball((grid.x / 5.0) ** 2 + (grid.y / 8.0) ** 2)
    nothing = np.zeros(grid.shape, np.float32)
    block = SimpleNamespace(soft=thickness, fat=nothing, lung=nothing, bone=nothing, metal=nothing)
    beam = transmit(block, replace(patient, scale=1.0))
    assert beam[32, 32] == pytest.approx(np.exp(-ATTENUATION["soft"] * 12.0), rel=1e-5)
    assert beam[0, 0] == 1.0


def test_fluid_darkens_the_beam_in_its_mask_and_nowhere_else(patient: Patient) -> None:
    chest = chest_of(patient)
    before = transmit(chest, patient)
    mask = APPLY["Pleural Effusion"](chest, Sign(0.6, 3, -1))
    change = transmit(chest, patient) / before
    assert mask.any()
    assert (change <= 1 + 1e-6).all()
    assert change[mask].max() < 1.0
    assert change[mask].mean() < 0.6
    assert change[chest.grid.x > 0].min() == pytest.approx(1.0)  # the other lung
    near = ndimage.binary_dilation(mask, iterations=round(1.5 / chest.grid.pitch))
    assert change[chest.lungs() & ~near].min() == pytest.approx(1.0)  # above the fluid


def test_free_air_brightens_the_beam(patient: Patient) -> None:
    chest = chest_of(patient)
    before = transmit(chest, patient)
    mask = APPLY["Pneumothorax"](chest, Sign(0.7, 3, 1))
    change = transmit(chest, patient) / before
    inner = mask & (chest.wall > 1)
    assert np.median(change[inner]) > 1.1


@pytest.mark.parametrize("name", ["Consolidation", "Pneumonia", "Lung Lesion", "Pleural Other"])
def test_opacities_change_their_mask_more_than_the_rest(patient: Patient, name: str) -> None:
    chest = chest_of(patient)
    before = transmit(chest, patient)
    mask = APPLY[name](chest, Sign(0.6, 8, 1))
    loss = 1 - transmit(chest, patient) / before
    assert loss[mask].mean() > 0.1
    assert loss[mask].mean() > 10 * np.abs(loss[~mask]).mean()


def test_cardiothoracic_ratio(patient: Patient) -> None:
    ill = deform(patient, {"Cardiomegaly": Sign(0.5, 0, 1)})
    ratios = []
    for case in (patient, ill):
        chest = chest_of(case)
        ratios.append(widest(chest.heart) / widest(chest.lungs()))
    assert ratios[0] < 0.53
    assert ratios[1] > ratios[0] + 0.05


def test_organs_lie_where_they_should(patient: Patient) -> None:
    chest = chest_of(patient)
    right, left = chest.fields[-1], chest.fields[1]
    heart = np.nonzero(chest.heart)[1].mean()
    assert np.nonzero(right)[1].mean() < heart < np.nonzero(left)[1].mean()
    assert right.sum() > left.sum()  # the heart takes its room from the left lung
    assert not (chest.heart & chest.lungs()).any()
    assert (chest.clavicles & chest.lungs()).any()
    assert 0.12 < chest.lungs().mean() < 0.5


def test_every_finding_leaves_a_mask() -> None:
    rng = np.random.default_rng(1)
    for number in range(6):
        person = sample_patient(rng)
        for name in ORDER:
            severity = 0.05 + 0.18 * number
            signs = {name: Sign(severity, int(rng.integers(1000)), SIDES[number % 2])}
            masks = apply(chest_of(deform(person, signs), 96), signs)
            assert masks[name].any(), (name, number)


def test_parents_cover_their_children(patient: Patient) -> None:
    signs = {name: Sign(0.5, 4, 1) for name in ("Pneumonia", "Lung Lesion", "Cardiomegaly")}
    masks = apply(chest_of(deform(patient, signs)), signs)
    assert not (masks["Pneumonia"] & ~masks["Lung Opacity"]).any()
    assert not (masks["Lung Lesion"] & ~masks["Lung Opacity"]).any()
    assert masks["Enlarged Cardiomediastinum"].sum() > masks["Cardiomegaly"].sum()


def test_a_patient_looks_the_same_at_every_size(patient: Patient) -> None:
    signs = {"Pleural Effusion": Sign(0.6, 1, 1)}
    fine = render_frontal(patient, signs, (256, 256), 9)
    coarse = render_frontal(patient, signs, (32, 32), 9)
    assert set(coarse.masks) == set(FINDINGS)
    averaged = fine.image.reshape(32, 8, 32, 8).mean(axis=(1, 3))
    assert np.corrcoef(averaged.ravel(), coarse.image.ravel())[0, 1] > 0.95
    share = [picture.masks["Pleural Effusion"].mean() for picture in (fine, coarse)]
    assert share[1] == pytest.approx(share[0], rel=0.25)


def test_bone_is_bright_lung_dark_air_black(patient: Patient) -> None:
    picture = render_frontal(patient, {}, (128, 128), 2)
    image, organs = picture.image.astype(float), picture.organs
    assert image[organs["heart"]].mean() > image[organs["lungs"]].mean() + 40
    lateral = render_lateral(patient, {"Support Devices": Sign(0.5, 1, 1)}, (64, 80), 2)
    assert lateral.image.shape == (64, 80)
    assert lateral.masks == {}
    assert lateral.image.std() > 20


def test_canvas_keeps_the_amount_of_a_thin_wire() -> None:
    for size in (64, 256):
        grid = Grid.place((size, size), field=32.0)
        canvas = Canvas(grid)
        canvas.line([(0.1, -10.0), (0.1, 10.0)], 0.3, 2.0)
        volume = float(canvas.thickness().sum()) * grid.pitch**2
        assert volume == pytest.approx(20 * 0.3 * 2.0, rel=0.35)
