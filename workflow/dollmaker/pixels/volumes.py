"""Volumes: NIfTI files of untrusted origin, turned so that all have the same axes.

Only the header and the voxels are read. Extensions, whose sizes the file claims, are passed over.
"""

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dollmaker.runtime.errors import DataError

SUFFIXES = (".nii", ".nii.gz")

#: Bytes that may lie before the voxels: header and extensions.
_MOST_BEFORE = 1 << 26

#: How far apart the corners of the grids of a volume and its label may lie, in voxels.
_TOLERANCE = 0.1

#: How far from a whole number a label may lie: what a scale factor in the header rounds away.
_ROUNDING = 1e-3


@dataclass(frozen=True, kw_only=True)
class Volume:
    """One channel of a file."""

    name: str  #: The file, with its folder.
    #: float32 (X, Y, Z); the axes run to the right, to the front and upwards, or as close to that
    #: as whole axes can (nibabel's closest canonical orientation, RAS+).
    values: npt.NDArray[np.float32]
    affine: npt.NDArray[np.float64]  #: float64 (4, 4), from voxels to millimetres in the world.


def read_volume(path: Path, *, channel: int | None, max_voxels: int) -> Volume:
    """Read one channel of a file ``.nii`` or ``.nii.gz``; a fourth axis is that of channels.

    Channels count from 0; ``None`` means that the file must have one only. Files with more voxels,
    of all channels, are refused before any is read.

    Raises:
        DataError: With the reason why the file cannot be used; it begins with the file's name.
    """
    from nibabel.arrayproxy import ArrayProxy

    name = "/".join(path.parts[-2:])
    if not path.is_file():
        raise DataError(f"{name} is missing")
    if not path.name.lower().endswith(SUFFIXES):
        raise DataError(f"{name} is not NIfTI; volumes are named .nii or .nii.gz")
    try:
        header = _read_header(path)
        shape = tuple(int(length) for length in header.get_data_shape())
        affine = np.asarray(header.get_best_affine(), dtype=np.float64)
        header.get_slope_inter()
    except Exception as error:  # hostile bytes raise anything
        raise DataError(f"{name} is not NIfTI ({type(error).__name__}: {error})") from None
    if np.prod(shape, dtype=float) > max_voxels:
        raise DataError(f"{name} has the shape {shape}, over {max_voxels} voxels")
    if header.get_data_offset() > _MOST_BEFORE:
        raise DataError(f"{name} has over {_MOST_BEFORE} bytes before its voxels")
    if header.get_data_dtype().kind not in "iuf":
        raise DataError(f"{name} holds values of the type {header.get_data_dtype()}, not numbers")
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine[:3, :3]) < 3:
        raise DataError(f"{name} has an affine that gives its voxels no place in the world")
    place = _place(name, shape, channel)
    try:  # scaled as the header says; the other channels stay in the file
        values = np.asarray(ArrayProxy(str(path), header, mmap=False)[place], dtype=np.float32)
    except Exception as error:
        raise DataError(f"{name} is damaged ({type(error).__name__}: {error})") from None
    if not np.isfinite(values).all():
        raise DataError(f"{name} holds values that are not finite")
    return _turned(name, values, affine)


def require_same_grid(volume: Volume, label: Volume) -> None:
    """Refuse a label whose voxels are not those of its volume."""
    if volume.values.shape != label.values.shape:
        raise DataError(
            f"{label.name} has the shape {label.values.shape}, {volume.name} "
            f"{volume.values.shape}; resample the label to its volume"
        )
    ends = ((0, length - 1) for length in label.values.shape)
    corners = np.array([(*corner, 1) for corner in product(*ends)], np.float64).T
    moved = np.linalg.solve(volume.affine, label.affine @ corners) - corners
    distance = np.abs(moved).max()
    if distance > _TOLERANCE:
        raise DataError(
            f"{label.name} lies {distance:.3g} voxels beside {volume.name} in the world; correct "
            "the affine of one, or resample the label to its volume"
        )


def whole_numbers(label: Volume) -> npt.NDArray[np.uint8]:
    """The values of a label, uint8 (X, Y, Z).

    Raises:
        DataError: If a value is no whole number, or is out of 0..255.
    """
    rounded = np.rint(label.values)
    broken = np.abs(label.values - rounded) > _ROUNDING
    if broken.any():
        raise DataError(
            f"{label.name} holds the value {label.values[broken][0]:g}, which is no whole number; "
            "resample labels by their nearest neighbour"
        )
    if rounded.min() < 0 or rounded.max() > 255:
        raise DataError(f"{label.name} holds numbers out of 0..255")
    return rounded.astype(np.uint8)


def _read_header(path: Path) -> Any:
    """The header of a file that holds its voxels, too; its extensions stay unread."""
    from nibabel import Nifti1Header, Nifti2Header
    from nibabel.openers import ImageOpener

    with ImageOpener(str(path)) as file:
        start = file.read(Nifti2Header.template_dtype.itemsize)
    if start[4:7] == Nifti2Header.single_magic[:3]:
        return Nifti2Header(start)
    if start[344:347] == Nifti1Header.single_magic:
        return Nifti1Header(start[: Nifti1Header.template_dtype.itemsize])
    raise ValueError("it does not begin as a single file of NIfTI does")


def _place(name: str, shape: tuple[int, ...], channel: int | None) -> tuple[slice | int, ...]:
    several = [length for length in shape[3:] if length > 1]
    if len(shape) < 3 or min(shape) < 1 or len(several) > 1:
        raise DataError(
            f"{name} has the shape {shape}; volumes have three axes, and a fourth one of channels"
        )
    count = several[0] if several else 1
    if channel is None and count > 1:
        raise DataError(f"{name} has the shape {shape}, {count} channels where one was expected")
    if channel is not None and channel >= count:
        raise DataError(f"{name} has the shape {shape}, which holds no channel {channel}")
    chosen = ((channel or 0) if length > 1 else 0 for length in shape[3:])
    return (*(slice(None),) * 3, *chosen)


def _turned(name: str, values: npt.NDArray[np.float32], affine: npt.NDArray[np.float64]) -> Volume:
    """A volume with its axes in canonical order and direction, each voxel where it was."""
    from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

    turn = io_orientation(affine)
    moved = np.ascontiguousarray(apply_orientation(values, turn))
    return Volume(name=name, values=moved, affine=affine @ inv_ornt_aff(turn, values.shape))
