"""Medical Segmentation Decathlon, Task01_BrainTumour: volumes become slices.

The study of Nikulins et al. 2025: a classifier learns whether a slice holds a tumour, and
attribution methods are compared as segmenters.
"""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from dollmaker.errors import ConfigError, DataError, unknown
from dollmaker.files import inside
from dollmaker.prepare.convert import Item, Piece

Volume = npt.NDArray[np.float32]


def list_items(options: Mapping[str, Any], data_root: Path, max_pixels: int) -> list[Item]:
    """One item per volume of ``dataset.json``.

    Args:
        options: Section ``source.msd``.
        data_root: Folder of the source data.
        max_pixels: Volumes with more voxels (all channels) are left out.

    Raises:
        ConfigError: If the channel does not exist.
        DataError: If the folder or its description is missing or is not of that form.
    """
    folder = inside(data_root, options["folder"])
    file = folder / "dataset.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        modality = {int(number): str(name) for number, name in content["modality"].items()}
        pairs = [(entry["image"], entry["label"]) for entry in content["training"]]
    except FileNotFoundError:
        raise DataError(
            f"{file} does not exist; unpack Task01_BrainTumour there or correct source.msd.folder."
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{file} lacks modality or training as the Decathlon writes them "
            f"({type(error).__name__}: {error}); unpack the task again."
        ) from None
    channel = _channel(options["channel"], modality)
    make = partial(_slices, folder, channel, options=options, max_pixels=max_pixels)
    items = []
    for image, label in pairs:
        name = PurePosixPath(image).name.removesuffix(".gz").removesuffix(".nii")
        items.append(Item(source=image, patient=name, make=partial(make, name, image, label)))
    if not items:
        raise DataError(f"{file} lists no training volumes; unpack the task again.")
    return items


def _channel(wanted: int | str, modality: Mapping[int, str]) -> int:
    """The number of a channel that is given by number or by name."""
    for number, name in modality.items():
        if wanted == number or str(wanted).lower() == name.lower():
            return number
    known = [*modality, *modality.values()]
    raise ConfigError(f"source.msd.channel: {unknown('channel', wanted, known)}")


def _slices(
    folder: Path,
    channel: int,
    name: str,
    image: str,
    label: str,
    *,
    options: Mapping[str, Any],
    max_pixels: int,
) -> list[Piece]:
    """The slices of a volume that show any brain, along the last axis, the second axis upwards."""
    truth = _read(inside(folder, label), None, max_pixels)
    volume = _read(inside(folder, image), channel, max_pixels)
    if truth.shape != volume.shape:
        raise DataError(f"labels have the shape {truth.shape}, the volume {volume.shape}")
    brain = volume != 0
    if not brain.any():
        raise DataError("the volume holds zeros only")
    low, high = np.percentile(volume[brain], options["window"])
    grey = np.clip((volume - low) * (255 / max(high - low, 1e-6)), 0, 255).round().astype(np.uint8)
    if truth.min() < 0 or truth.max() > 255:
        raise DataError("labels hold numbers out of 0..255")
    areas = truth.round().astype(np.uint8)
    pieces = []
    for place in range(0, volume.shape[2], options["every"]):
        if not brain[:, :, place].any():
            continue
        mask = np.ascontiguousarray(np.rot90(areas[:, :, place]))
        shares = {f: float(np.isin(mask, v).mean()) for f, v in options["findings"].items()}
        pieces.append(
            Piece(
                name=f"{name}_z{place:03d}",
                image=np.ascontiguousarray(np.rot90(grey[:, :, place])),
                mask=mask,
                labels={f: int(s > 0 and s >= options["min_share"]) for f, s in shares.items()},
            )
        )
    return pieces


def _read(path: Path, channel: int | None, max_pixels: int) -> Volume:
    """One channel (H, W, D) of a NIfTI file; the whole of a file with three axes."""
    import nibabel

    if not path.is_file():
        raise DataError(f"{path.name} is missing")
    try:
        loaded: Any = nibabel.load(path)
        shape = tuple(loaded.shape)
    except Exception as error:  # hostile bytes raise anything
        raise DataError(f"{path.name} is not NIfTI ({type(error).__name__}: {error})") from None
    if np.prod(shape, dtype=float) > max_pixels:
        raise DataError(f"{path.name} has the shape {shape}, over {max_pixels} voxels")
    if len(shape) == 3 and not channel:
        wanted: Any = (slice(None),) * 3
    elif len(shape) == 4 and channel is not None and channel < shape[3]:
        wanted = (slice(None), slice(None), slice(None), channel)
    else:
        raise DataError(
            f"{path.name} has the shape {shape}; images are (H, W, D, channels), labels (H, W, D)"
        )
    try:
        values = np.asarray(loaded.dataobj[wanted], dtype=np.float32)
    except Exception as error:
        raise DataError(f"{path.name} is damaged ({type(error).__name__}: {error})") from None
    if not np.isfinite(values).all():
        raise DataError(f"{path.name} holds values that are not finite")
    return values
