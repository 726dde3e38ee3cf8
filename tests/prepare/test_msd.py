"""Volumes of the Decathlon: slices, storage, window, labels, damage."""

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dollmaker.launch.preflight import preflight
from dollmaker.prepare.msd import DEFAULT_FINDINGS
from dollmaker.runtime.errors import ConfigError, DataError
from prepare.volumes import (
    decoded,
    head,
    pair,
    pictures,
    resolved,
    run,
    save,
    tree,
)


def test_slices_with_brain_are_labelled_by_their_voxels(tmp_path: Path) -> None:
    volume, labels = tree(tmp_path, ("BRATS_001", "BRATS_002"))
    table = run(resolved(window=[0, 100], findings={"tumour": [1, 2, 3], "core": [3]}), tmp_path)
    assert table["image"].to_list()[:4] == [f"BRATS_001_z00{z}.png" for z in (1, 2, 3, 4)]
    assert table["patient"].to_list() == ["BRATS_001"] * 4 + ["BRATS_002"] * 4
    assert table["tumour"].to_list()[:4] == [0, 1, 1, 0]
    assert table["core"].to_list()[:4] == [0, 0, 1, 0]
    image = np.asarray(Image.open(tmp_path / "out/images/BRATS_001_z002.png"))
    mask = np.asarray(Image.open(tmp_path / "out/masks/BRATS_001_z002.png"))
    # The first axis runs to the right, the second upwards: voxel (1, 5) is column 1, row 7 - 1 - 5.
    assert image.shape == mask.shape == (7, 5)
    assert np.argwhere(mask).tolist() == [[1, 1]]
    assert image[1, 1] == round((volume[1, 5, 2, 0] - 1) * 255 / 59)
    assert image[0, 0] == 0
    assert Image.open(tmp_path / "out/masks/BRATS_001_z003.png").getextrema() == (0, 3)
    assert (labels[:, :, 3] == 3).sum() == 10


def test_channel_every_and_share(tmp_path: Path) -> None:
    tree(tmp_path)
    assert run(resolved(every=2), tmp_path)["image"].to_list() == [
        "BRATS_001_z002.png",
        "BRATS_001_z004.png",
    ]
    assert run(resolved(min_share=2 / 35), tmp_path)["tumour"].to_list() == [0, 0, 1, 0]
    run(resolved(channel="t1W"), tmp_path)
    image = np.asarray(Image.open(tmp_path / "out/images/BRATS_001_z002.png"))
    assert set(image.ravel().tolist()) == {0}  # a flat brain has no range to stretch
    with pytest.raises(ConfigError, match="unknown channel 'T2w'; use one of: 0, 1, FLAIR, T1w"):
        run(resolved(channel="T2w"), tmp_path)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("nan", "holds values that are not finite"),
        ("shape", r"labelsTr/\S+ has the shape \(5, 7, 5\), imagesTr/\S+ \(5, 7, 6\)"),
        ("axes", r"has the shape \(5, 7\)"),
        ("missing", r"BRATS_001\.nii\.gz is missing"),
        ("bytes", "is not NIfTI"),
        ("empty", "holds one value only"),
        ("cut", "is damaged"),
    ],
)
def test_damaged_volumes_are_refused_with_the_reason(
    tmp_path: Path, damage: str, said: str
) -> None:
    volume, labels = tree(tmp_path)
    image = tmp_path / "task/imagesTr/BRATS_001.nii.gz"
    if damage == "nan":
        volume[2, 2, 2, 0] = np.nan
        save(image, volume)
    elif damage == "shape":
        save(tmp_path / "task/labelsTr/BRATS_001.nii.gz", labels[:, :, :5])
    elif damage == "axes":
        save(image, volume[:, :, 0, 0])
    elif damage == "missing":
        image.unlink()
    elif damage == "bytes":
        image.write_bytes(b"no volume")
    elif damage == "empty":
        save(image, volume * 0)
    else:
        noise = np.random.default_rng(0).random((20, 20, 20, 2), dtype=np.float32)
        save(image, noise)
        image.write_bytes(image.read_bytes()[:20_000])
    with pytest.raises(DataError, match=f"{said}.*mend them or raise") as caught:
        run(resolved(), tmp_path)
    assert "1 of 1" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_large_volumes_and_wrong_descriptions_are_refused(tmp_path: Path) -> None:
    tree(tmp_path)
    with pytest.raises(DataError, match="over 100 voxels"):
        run(resolved({"max_pixels": 100}), tmp_path)
    config = resolved().replace(data_root=str(tmp_path))
    preflight(config)
    (tmp_path / "task/dataset.json").write_text('{"modality": []}')
    with pytest.raises(DataError, match=r"lacks the channels or cases.*unpack the task again"):
        preflight(config)
    with pytest.raises(DataError, match=r"correct source\.msd\.folder"):
        run(resolved(folder="nowhere"), tmp_path)
    content = {"modality": {"0": "A"}, "training": [{"image": "../../x", "label": "y"}]}
    (tmp_path / "task/dataset.json").write_text(json.dumps(content))
    (tmp_path / "task/y").write_bytes(b"")
    with pytest.raises(DataError, match="1 of 1"):
        run(resolved(), tmp_path)


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("signs", [(1, 1, -1), (-1, 1, 1), (-1, -1, -1)])
def test_all_storages_of_a_volume_make_the_same_slices(
    tmp_path: Path, order: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    """Of the label, too, which need not be stored as its volume is."""
    image, label = head()
    place = np.diag([1.5, 2, 4, 1.0])
    pair(tmp_path, image, label, place)
    run(resolved(), tmp_path)
    wanted = pictures(tmp_path)
    assert [np.asarray(picture).shape for _, picture, _ in wanted] == [(5, 4)] * 2
    stored, turned = image.transpose(order), place[:, [*order, 3]]
    for axis in np.flatnonzero(np.less(signs, 0)):
        stored = np.flip(stored, axis)
        turned[:, 3] += turned[:, axis] * (stored.shape[axis] - 1)
        turned[:, axis] *= -1
    save(tmp_path / "task/imagesTr/P1.nii.gz", stored, turned)
    run(resolved(), tmp_path)
    assert pictures(tmp_path) == wanted


def test_a_label_of_another_place_or_size_is_refused(tmp_path: Path) -> None:
    image, label = head()
    pair(tmp_path, image, label)
    beside = np.eye(4)
    beside[0, 3] = 1
    save(tmp_path / "task/labelsTr/P1.nii.gz", label, beside)
    said = r"labelsTr/P1\.nii\.gz lies 1 voxels beside imagesTr/P1\.nii\.gz"
    with pytest.raises(DataError, match=said):
        run(resolved(), tmp_path)


def test_labels_that_were_resampled_smoothly_are_refused(tmp_path: Path) -> None:
    image, label = head()
    pair(tmp_path, image, label[..., None])
    assert run(resolved(), tmp_path)["tumour"].to_list() == [1, 1]
    save(tmp_path / "task/labelsTr/P1.nii.gz", label * np.float32(0.75))
    with pytest.raises(DataError, match=r"the value 0\.75, which is no whole number"):
        run(resolved(), tmp_path)


@pytest.mark.parametrize(
    ("labels", "findings", "allowed"),
    [
        (None, None, False),
        ({"0": "background", "2": "edema", "7": "core"}, None, False),
        (None, {"edema": [2]}, False),
        ({"2": "edema"}, {"edema": [2]}, False),
        ({"0": "background", "2": "edema", "7": "core"}, {"edema": [2]}, True),
        ({"background": 0, "edema": 2, "core": 7}, {"edema": [2]}, True),
        ({"background": 0, "whole": [2, 7], "core": [7]}, {"edema": [2]}, True),
        (["background", "edema", "core"], {"edema": [2]}, False),
        (None, {"tumour": [2, 7]}, True),
    ],
)
def test_labels_of_no_finding_are_the_choice_of_who_knows_them(
    tmp_path: Path, labels: Any, findings: Any, allowed: bool
) -> None:
    image, label = head()
    content = {} if labels is None else {"labels": labels}
    pair(tmp_path, image, np.array([0, 2, 7], np.uint8)[label], **content)
    config = resolved(**({} if findings is None else {"findings": findings}))
    if allowed:
        assert run(config, tmp_path)[next(iter(findings))].sum() > 0
        return
    said = r"labels hold the values (2, )?7, which are in no finding of source\.msd\.findings"
    with pytest.raises(DataError, match=said):
        run(config, tmp_path)


def test_the_default_findings_are_those_of_the_schema() -> None:
    assert resolved().source.msd.findings == DEFAULT_FINDINGS


def test_air_is_outside_where_the_corners_say_so(tmp_path: Path) -> None:
    image = np.full((6, 6, 3), -1024, np.float32)
    image[1:5, 1:5, :2] = np.linspace(-40, 60, 32).reshape(4, 4, 2)
    image[2, 2, 1] = 0  # water is no outside
    label = (image > 40).astype(np.uint8)
    pair(tmp_path, image, label)
    assert run(resolved(window=[0, 100]), tmp_path).height == 2
    shown = np.asarray(Image.open(tmp_path / "out/images/P1_z001.png"))
    assert shown[0, 0] == 0
    assert shown[6 - 1 - 2, 2] == round(40 * 255 / 100)
    image[0, 0, 0] = -1000  # the corners disagree: zeros are the outside, as in the Decathlon
    pair(tmp_path, image, label)
    assert run(resolved(window=[0, 100]), tmp_path).height == 3


def test_a_finding_in_no_volume_is_refused(tmp_path: Path) -> None:
    tree(tmp_path)
    with pytest.raises(DataError, match=r"none of 4 slices holds cyst; correct its values in"):
        run(resolved(findings={"tumour": [1, 2, 3], "cyst": [7]}), tmp_path)


def test_a_whole_window_of_sixteen_bits_keeps_every_value(tmp_path: Path) -> None:
    ramp = np.arange(65536, dtype=np.float32).reshape(256, 256, 1)
    ramp[0, 0] = 65535  # the corner is outside; the lowest value of the body is 1
    label = (ramp > 60000).astype(np.uint8)
    pair(tmp_path, ramp, label)
    run(resolved({"bits": 16}, window=[0, 100]), tmp_path)
    found = decoded(tmp_path, "P1_z000.tif", 1, 16)[0].astype(int)
    body = np.rot90(ramp[..., 0])
    wanted = np.clip((body - 1) * (65535 / 65534), 0, None)
    assert np.abs(found - wanted).max() <= 0.51 and len(np.unique(found)) >= 65535
