"""How tasks of the Decathlon and of nnU-Net are described, and which channels are taken."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dollmaker.prepare.convert import list_items
from dollmaker.runtime.errors import ConfigError, DataError
from prepare.volumes import SHAPE, decoded, describe, head, pictures, resolved, run, save, tree

FOUR = ("FLAIR", "T1w", "T1gd", "T2w")

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
