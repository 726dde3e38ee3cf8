"""NIfTI made here: every storage of one volume, channels, labels, grids and hostile headers."""

import gzip
from collections.abc import Iterator
from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
import pytest

from dollmaker.pixels.volumes import Volume, read_volume, require_same_grid, whole_numbers
from dollmaker.runtime.errors import DataError

Values = npt.NDArray[Any]

MANY = 10**6
#: Voxels of 2 x 3 x 5 mm, somewhere in the world; axes as RAS+.
PLACE = np.array([[2.0, 0, 0, -30], [0, 3, 0, 12], [0, 0, 5, 7], [0, 0, 0, 1]])


def blob(*shape: int) -> Values:
    """A different value in each voxel."""
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape) + 1


def save(path: Path, values: Values, affine: Values = PLACE, kind: Any = None) -> Path:
    nibabel.save((kind or nibabel.Nifti1Image)(values, affine), path)
    return path


def read(path: Path, channel: int | None = 0, most: int = MANY) -> Volume:
    return read_volume(path, channel=channel, max_voxels=most)


def storages(values: Values, affine: Values) -> Iterator[tuple[Values, Values]]:
    """The 48 ways to store a volume (X, Y, Z): axes in any order and direction."""
    for order, flips in product(permutations(range(3)), product((False, True), repeat=3)):
        stored, place = values.transpose(order), affine[:, [*order, 3]]
        for axis in np.flatnonzero(flips):
            stored = np.flip(stored, axis)
            end = stored.shape[axis] - 1
            place[:, 3] += place[:, axis] * end
            place[:, axis] *= -1
        yield stored, place


def test_every_storage_of_a_volume_reads_the_same(tmp_path: Path) -> None:
    values = blob(3, 4, 2)
    count = 0
    for stored, place in storages(values, PLACE):
        found = read(save(tmp_path / "v.nii", stored, place))
        assert found.values.dtype == np.float32
        assert np.array_equal(found.values, values)
        np.testing.assert_allclose(found.affine, PLACE, atol=1e-5)
        count += 1
    assert count == 48


def test_oblique_volumes_take_the_closest_axes_and_stay_in_place(tmp_path: Path) -> None:
    angle = np.deg2rad(30)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    values = blob(3, 4, 5)
    stored, place = np.flip(values, 1), turn @ PLACE
    place[:, 3] += place[:, 1] * 3
    place[:, 1] *= -1
    found = read(save(tmp_path / "v.nii.gz", stored, place))
    assert np.array_equal(found.values, values)
    np.testing.assert_allclose(found.affine, turn @ PLACE, atol=1e-5)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_scale_factors_byte_order_and_versions(tmp_path: Path, kind: Any) -> None:
    header = kind.header_class(endianness=">")
    header.set_data_dtype(np.int16)
    image = kind(blob(2, 3, 4) * 0.5 - 3, PLACE, header)
    nibabel.save(image, tmp_path / "v.nii")
    found = read(tmp_path / "v.nii")
    np.testing.assert_allclose(found.values, blob(2, 3, 4) * 0.5 - 3, atol=1e-3)
    assert found.name == f"{tmp_path.name}/v.nii"


def test_one_channel_is_read_and_no_other(tmp_path: Path) -> None:
    values = blob(3, 4, 2, 3)
    path = save(tmp_path / "v.nii", values)
    for channel in range(3):
        assert np.array_equal(read(path, channel).values, values[..., channel])
    for channel, said in ((3, "holds no channel 3"), (None, "3 channels where one was expected")):
        with pytest.raises(DataError, match=rf"v\.nii has the shape \(3, 4, 2, 3\).* {said}"):
            read(path, channel)
    with path.open("r+b") as file:
        file.truncate(352 + 2 * 24 * 4)  # the third channel is lost
    assert np.array_equal(read(path, 1).values, values[..., 1])
    with pytest.raises(DataError, match=r"v\.nii is damaged"):
        read(path, 2)


@pytest.mark.parametrize("more", [(), (1,), (1, 1)])
def test_axes_of_one_do_not_count(tmp_path: Path, more: tuple[int, ...]) -> None:
    path = save(tmp_path / "v.nii", blob(3, 4, 2).reshape(3, 4, 2, *more))
    for channel in (0, None):
        assert np.array_equal(read(path, channel).values, blob(3, 4, 2))
    vectors = save(tmp_path / "w.nii", blob(3, 4, 2, 5).reshape(3, 4, 2, 1, 5))
    assert np.array_equal(read(vectors, 4).values, blob(3, 4, 2, 5)[..., 4])


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 2, 2, 2)])
def test_other_shapes_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"has the shape .*; volumes have three axes"):
        read(save(tmp_path / "v.nii", blob(*shape)))


def test_the_size_is_checked_before_any_voxel_is_read(tmp_path: Path) -> None:
    path = save(tmp_path / "v.nii", blob(4, 5, 6))
    with path.open("r+b") as file:
        file.truncate(352)
    with pytest.raises(DataError, match=r"v\.nii has the shape \(4, 5, 6\), over 119 voxels"):
        read(path, most=119)
    with pytest.raises(DataError, match="is damaged"):
        read(path, most=120)


def volume(values: Values, affine: Values = PLACE, name: str = "labelsTr/p.nii") -> Volume:
    return Volume(name=name, values=values.astype(np.float32), affine=affine)


def test_labels_are_whole_numbers_of_a_byte() -> None:
    values = np.array([[[0, 1, 255, 3.0004]]])  # what a scale factor leaves
    assert whole_numbers(volume(values)).tolist() == [[[0, 1, 255, 3]]]
    assert whole_numbers(volume(values)).dtype == np.uint8
    with pytest.raises(DataError, match=r"labelsTr/p\.nii holds the value 0\.6, which is no whole"):
        whole_numbers(volume(np.array([[[0, 1, 0.6, 0.2]]])))
    for wrong in (-1, 256):
        with pytest.raises(DataError, match=r"labelsTr/p\.nii holds numbers out of 0\.\.255"):
            whole_numbers(volume(np.array([[[0, wrong]]])))


def moved(by: tuple[float, float, float]) -> Values:
    """The place with its origin moved by a part of a voxel along each axis."""
    place = PLACE.copy()
    place[:3, 3] += PLACE[:3, :3] @ by
    return place


def test_a_label_lies_where_its_volume_lies() -> None:
    image = volume(blob(9, 9, 9), name="imagesTr/p.nii")
    require_same_grid(image, volume(blob(9, 9, 9), moved((0.09, -0.09, 0.09))))
    both = r"labelsTr/p\.nii lies {} voxels beside imagesTr/p\.nii"
    with pytest.raises(DataError, match=both.format(r"0\.2")):
        require_same_grid(image, volume(blob(9, 9, 9), moved((0, 0, 0.2))))
    with pytest.raises(DataError, match=both.format("8")):
        require_same_grid(image, volume(blob(9, 9, 9), PLACE @ np.diag([2, 1, 1, 1])))
    shapes = r"labelsTr/p\.nii has the shape \(9, 9, 8\), imagesTr/p\.nii \(9, 9, 9\)"
    with pytest.raises(DataError, match=shapes):
        require_same_grid(image, volume(blob(9, 9, 8)))


def damaged(path: Path, **fields: Any) -> Path:
    """A good file but for fields of its header."""
    save(path, blob(3, 4, 2))
    data = path.read_bytes()
    header = nibabel.Nifti1Header(data[:348], check=False)
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(header.binaryblock + data[348:])
    return path


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"dim": [3, -3, 4, 2, 1, 1, 1, 1]}, "volumes have three axes"),
        ({"dim": [3, 0, 4, 2, 1, 1, 1, 1]}, "volumes have three axes"),
        ({"dim": [3, 32767, 32767, 32767, 1, 1, 1, 1]}, "over 1000000 voxels"),
        ({"dim": [77, 3, 4, 2, 1, 1, 1, 1]}, "is not NIfTI"),
        ({"vox_offset": 2.0**30}, "over 67108864 bytes before its voxels"),
        ({"vox_offset": 800}, "is damaged"),
        ({"scl_slope": 1, "scl_inter": np.inf}, "is not NIfTI"),
        ({"datatype": 32, "bitpix": 64}, "values of the type complex64"),
        ({"datatype": 128, "bitpix": 24}, "values of the type"),
        ({"datatype": 9999}, "is not NIfTI"),
        ({"srow_x": [np.nan, 0, 0, 0]}, "no place in the world"),
        ({"srow_x": [0, 0, 0, 0]}, "no place in the world"),
        ({"srow_x": [0, 1, 0, 0], "srow_y": [0, 1, 0, 0]}, "no place in the world"),
        ({"magic": b"ni1"}, "is not NIfTI"),
        ({"magic": b""}, "is not NIfTI"),
    ],
)
def test_hostile_headers_are_refused(tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=rf"v\.nii .*{said}"):
        read(damaged(tmp_path / "v.nii", **fields))


@pytest.mark.parametrize("size", [2**31 - 16, -(2**30), 0, 8])
def test_extensions_are_passed_over_whatever_they_claim(tmp_path: Path, size: int) -> None:
    data = save(tmp_path / "v.nii", blob(3, 4, 2)).read_bytes()
    header = nibabel.Nifti1Header(data[:348])
    header["vox_offset"] = 400
    extension = b"\1\0\0\0" + np.array([size, 6], np.int32).tobytes() + bytes(40)
    path = tmp_path / "w.nii.gz"
    path.write_bytes(gzip.compress(header.binaryblock + extension + data[352:]))
    assert np.array_equal(read(path).values, blob(3, 4, 2))


def test_other_files_are_refused(tmp_path: Path) -> None:
    for name in ("v.nii", "v.nii.gz"):
        (tmp_path / name).write_bytes(b"no volume")
        with pytest.raises(DataError, match=rf"{name} is not NIfTI \("):
            read(tmp_path / name)
    with pytest.raises(DataError, match=r"w\.nii is missing"):
        read(tmp_path / "w.nii")
    (tmp_path / "v.mgz").write_bytes(b"x")
    with pytest.raises(DataError, match=r"v\.mgz is not NIfTI; volumes are named"):
        read(tmp_path / "v.mgz")
    values = blob(3, 4, 2)
    values[1, 1, 1] = np.inf
    with pytest.raises(DataError, match="holds values that are not finite"):
        read(save(tmp_path / "i.nii", values))
