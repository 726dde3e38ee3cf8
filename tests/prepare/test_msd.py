"""Volumes of the Decathlon and of nnU-Net, made here: slices, storage, window, labels, damage."""

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import polars as pl
import pytest
from PIL import Image

from dollmaker.config import settings as configuration
from dollmaker.launch.preflight import preflight
from dollmaker.pixels.pictures import read_channels
from dollmaker.prepare.convert import convert, list_items
from dollmaker.prepare.msd import DEFAULT_FINDINGS
from dollmaker.runtime.errors import ConfigError, DataError

SHAPE = (5, 7, 6)


FOUR = ("FLAIR", "T1w", "T1gd", "T2w")


def resolved(prepare: dict[str, Any] | None = None, **msd: Any) -> Any:
    source = {"kind": "msd", "msd": {"folder": "task", **msd}}
    return configuration.resolved({"dataset": "x", "source": source, "prepare": prepare or {}})


def save(path: Path, values: Any, affine: Any = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine), path)


def tree(root: Path, names: tuple[str, ...] = ("BRATS_001",)) -> tuple[Any, Any]:
    """Brain in slices 1 to 4; label 1 in slice 2 (one voxel), 3 in slice 3 (ten voxels)."""
    volume = np.zeros((*SHAPE, 2), np.float32)
    volume[1:4, 1:6, 1:5, 0] = np.arange(3 * 5 * 4).reshape(3, 5, 4) + 1
    volume[1:4, 1:6, 1:5, 1] = 100
    labels = np.zeros(SHAPE, np.uint8)
    labels[1, 5, 2] = 1
    labels[1:3, 1:6, 3] = 3
    training = []
    for name in names:
        save(root / f"task/imagesTr/{name}.nii.gz", volume)
        save(root / f"task/labelsTr/{name}.nii.gz", labels)
        entry = {kind: f"./{kind}sTr/{name}.nii.gz" for kind in ("image", "label")}
        training.append(entry)
    content = {"modality": {"0": "FLAIR", "1": "T1w"}, "training": training}
    (root / "task/dataset.json").write_text(json.dumps(content))
    return volume, labels


def run(config: Any, root: Path) -> pl.DataFrame:
    convert(config, root, root / "out", 2)
    return pl.read_csv(root / "out/labels.csv")


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


def describe(root: Path, **content: Any) -> None:
    (root / "task/dataset.json").write_text(json.dumps(content))


def pair(root: Path, image: Any, label: Any, affine: Any = None, **content: Any) -> None:
    """One volume and its label as the Decathlon lists them."""
    save(root / "task/imagesTr/P1.nii.gz", image, affine)
    save(root / "task/labelsTr/P1.nii.gz", label, affine)
    entry = {kind: f"./{kind}sTr/P1.nii.gz" for kind in ("image", "label")}
    describe(root, modality={"0": "MR"}, training=[entry], **content)


def head() -> tuple[Any, Any]:
    """A volume without symmetry in a black surround, and a label of two values in it."""
    image = np.zeros((4, 5, 3), np.float32)
    image[1:, 1:4, :2] = np.arange(18).reshape(3, 3, 2) + 1
    return image, (image > 12).astype(np.uint8) + (image > 15)


def pictures(root: Path) -> list[list[Any]]:
    """Name, picture and mask of each slice that was written."""
    paths = sorted((root / "out/images").iterdir())
    both = ("images", "masks")
    return [
        [path.name, *(np.asarray(Image.open(root / "out" / f / path.name)).tolist() for f in both)]
        for path in paths
    ]


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


SECOND = {"channel_names": {"0": "T1", "1": "FLAIR"}, "labels": {"background": 0, "tumour": 1}}


@pytest.mark.parametrize("form", ["second", "own paths", "own file", "first", "together"])
def test_forms_of_nnu_net(tmp_path: Path, form: str) -> None:
    """The channel FLAIR, number 1, is the head, whatever file holds it."""
    image, label = head()
    task = tmp_path / "task"
    both = np.stack([image * 0 + 3, image], axis=-1)
    save(task / "labelsTr/P1.nii", (label > 0).astype(np.uint8))
    if form in ("second", "first"):
        save(task / "imagesTr/P1_0000.nii", both[..., 0])
        save(task / "imagesTr/P1_0001.nii", both[..., 1])
    elif form == "own paths":
        save(task / "scans/one.nii", both[..., 0])
        save(task / "scans/two.nii", both[..., 1])
    else:
        save(task / "imagesTr/P1.nii", both)
    own = {
        "own paths": ["scans/one.nii", "scans/two.nii"],
        "own file": ["imagesTr/P1.nii"],
    }
    if form in own:
        content = {"dataset": {"P1": {"images": own[form], "label": "labelsTr/P1.nii"}}}
    elif form == "first":
        content = {"training": [{"image": "imagesTr/P1.nii", "label": "labelsTr/P1.nii"}]}
    else:
        content = {"numTraining": 1, "file_ending": ".nii"}
        save(task / "labelsTr/._P1.nii", label)
    describe(tmp_path, **SECOND, **content)
    table = run(resolved(channel="flair"), tmp_path)
    assert table["image"].to_list() == ["P1_z000.png", "P1_z001.png"]
    assert table["tumour"].to_list() == [1, 1]
    (_, low, mask), _ = pictures(tmp_path)
    assert len({*np.ravel(low)}) > 5
    assert np.array_equal(mask, np.rot90(label[:, :, 0] > 0))


def test_junk_is_no_case(tmp_path: Path) -> None:
    tree(tmp_path, ("BRATS_001", "._BRATS_001"))
    assert [item.patient for item in list_items(resolved(), tmp_path)] == ["BRATS_001"]


@pytest.mark.parametrize(
    "content",
    [
        {"training": [{"image": "imagesTr/x.nii", "label": 3}]},
        {"training": [{"image": "x\0.nii", "label": "y"}]},
        {"training": [{"image": "\ud800.nii", "label": "y"}]},
        {"training": [{"image": "x" * 300, "label": "y"}]},
        {"training": [{"image": "imagesTr/ x.nii", "label": "labelsTr/ x.nii"}]},
        {"training": ["x.nii"]},
        {"dataset": {"../x": {"images": ["a.nii"], "label": "b.nii"}}},
        {"dataset": {"x": {"images": [], "label": "b.nii"}}},
        {"dataset": {"x": {"images": [3], "label": "b.nii"}}},
        {"labels": {"9" * 5000: "x"}, "training": [{"image": "x.nii", "label": "y"}]},
        {"file_ending": 3},
        {},
    ],
)
def test_hostile_descriptions_are_refused(tmp_path: Path, content: Any) -> None:
    (tmp_path / "task").mkdir()
    describe(tmp_path, channel_names={"0": "CT"}, **content)
    with pytest.raises(DataError, match="lacks the channels or cases as the Decathlon or nnU-Net"):
        run(resolved(), tmp_path)


def test_links_out_of_the_root_are_followed_where_they_are_trusted(tmp_path: Path) -> None:
    tree(tmp_path / "elsewhere")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/task").symlink_to(tmp_path / "elsewhere/task")
    config = resolved()
    with pytest.raises(DataError, match="leaves the data root"):
        list_items(config, tmp_path / "data")
    items = list_items(config.model_copy(update={"allow_links": True}), tmp_path / "data")
    assert len(items[0].make()) == 4


def test_a_finding_in_no_volume_is_refused(tmp_path: Path) -> None:
    tree(tmp_path)
    with pytest.raises(DataError, match=r"none of 4 slices holds cyst; correct its values in"):
        run(resolved(findings={"tumour": [1, 2, 3], "cyst": [7]}), tmp_path)


def test_descriptions_of_windows(tmp_path: Path) -> None:
    tree(tmp_path)
    file = tmp_path / "task/dataset.json"
    file.write_bytes(file.read_text().replace("/", "\\\\").encode("utf-8-sig"))
    assert ".\\\\imagesTr" in file.read_text()
    assert len(run(resolved(), tmp_path)) == 4


@pytest.mark.parametrize("ending", ["nii.gz", ".png", ".mha"])
def test_the_ending_of_files_is_one_of_volumes(tmp_path: Path, ending: str) -> None:
    volume, _ = tree(tmp_path)
    save(tmp_path / "task/imagesTr/BRATS_001_0000.nii.gz", volume[..., 0])
    describe(tmp_path, channel_names={"0": "MR"}, labels={"tumour": 1}, file_ending=ending)
    if ending == "nii.gz":
        assert len(run(resolved(), tmp_path)) == 4
        return
    with pytest.raises(DataError, match=f"has the file_ending '{ending}'; volumes are read as"):
        run(resolved(), tmp_path)


def four(root: Path) -> Any:
    """A volume of four sequences, each with a range of its own, in one file."""
    rng = np.random.default_rng(0)
    volume = np.zeros((*SHAPE, 4), np.float32)
    volume[1:4, 1:6, 1:5] = rng.integers(1, 1000, (3, 5, 4, 4)) * np.array([1, 10, 100, 1000])
    save(root / "task/imagesTr/P1.nii.gz", volume)
    label = np.zeros(SHAPE, np.uint8)
    label[1:3, 1:6, 3] = 3
    save(root / "task/labelsTr/P1.nii.gz", label)
    entry = {kind: f"./{kind}sTr/P1.nii.gz" for kind in ("image", "label")}
    describe(root, modality=dict(enumerate(FOUR)), training=[entry])
    return volume


def decoded(root: Path, name: str, channels: int, bits: Any) -> Any:
    done = read_channels(root / "out/images" / name, channels=channels, bits=bits, max_pixels=10**6)
    return done.pixels


@pytest.mark.parametrize("bits", [8, 16])
def test_all_channels_are_those_that_each_makes_alone(tmp_path: Path, bits: int) -> None:
    four(tmp_path)
    table = run(resolved({"channels": 4, "bits": bits}, channels="all"), tmp_path)
    assert table["image"].to_list() == [f"P1_z00{z}.tif" for z in (1, 2, 3, 4)]
    assert table["mask"].to_list() == [f"P1_z00{z}.png" for z in (1, 2, 3, 4)]
    assert table["tumour"].to_list() == [0, 0, 1, 0]
    together = decoded(tmp_path, "P1_z003.tif", 4, bits)
    suffix = "png" if bits == 8 else "tif"
    for number, name in enumerate(FOUR):
        run(resolved({"bits": bits}, channel=name), tmp_path)
        alone = decoded(tmp_path, f"P1_z003.{suffix}", 1, bits)
        assert np.array_equal(together[number], alone[0])
    run(resolved({"channels": 2, "bits": bits}, channels=["T2w", 0]), tmp_path)
    assert np.array_equal(decoded(tmp_path, "P1_z003.tif", 2, bits), together[[3, 0]])


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


@pytest.mark.parametrize("form", ["second", "own paths"])
def test_all_channels_of_files_beside_each_other(tmp_path: Path, form: str) -> None:
    image, label = head()
    task = tmp_path / "task"
    names = ("imagesTr/P1_0000.nii", "imagesTr/P1_0001.nii")
    save(task / names[0], image)
    save(task / names[1], image.max() + 1 - image)
    save(task / "labelsTr/P1.nii", (label > 0).astype(np.uint8))
    own = {"dataset": {"P1": {"images": list(names), "label": "labelsTr/P1.nii"}}}
    more = own if form == "own paths" else {"numTraining": 1, "file_ending": ".nii"}
    describe(tmp_path, **SECOND, **more)
    run(resolved({"channels": 2}, channels="all", window=[0, 100]), tmp_path)
    shown = decoded(tmp_path, "P1_z001.tif", 2, 8).astype(int)
    one, other = (channel[shown[0] > 0] for channel in shown)
    assert len(np.unique(one)) > 5 and np.corrcoef(one, other)[0, 1] < -0.9


@pytest.mark.parametrize(
    ("asked", "channels", "said"),
    [
        (4, None, "prepare.channels is 4, and source.msd chooses one channel; set"),
        (
            3,
            "all",
            "is 3, and source.msd chooses 4 channels; set prepare.channels to 4",
        ),
        (1, ["FLAIR", "T1w"], "prepare.channels is 1, and source.msd chooses 2 channels"),
        (2, ["FLAIR", 0], "names a channel twice"),
        (
            2,
            ["FLAIR", "PD"],
            "msd.channels: unknown channel 'PD'; use one of: 0, 1, 2, 3, FLAIR",
        ),
    ],
)
def test_channels_must_be_as_many_as_images_have(
    tmp_path: Path, asked: int, channels: Any, said: str
) -> None:
    four(tmp_path)
    with pytest.raises(ConfigError, match=said):
        list_items(resolved({"channels": asked}, channels=channels), tmp_path)
    chosen = 1 if channels is None else 0
    assert not chosen or len(list_items(resolved({"channels": 3}), tmp_path)) == 1


def test_a_channel_of_one_value_is_named(tmp_path: Path) -> None:
    volume = four(tmp_path)
    volume[..., 2] = 7
    save(tmp_path / "task/imagesTr/P1.nii.gz", volume)
    with pytest.raises(DataError, match="holds one value only in its channel 2"):
        run(resolved({"channels": 4}, channels="all"), tmp_path)
