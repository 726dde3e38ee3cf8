"""Volumes laid out as the Medical Segmentation Decathlon or nnU-Net has them become slices.

The study of Nikulins et al. 2025 (Task01_BrainTumour): a classifier learns whether a slice holds a
tumour, and attribution methods are compared as segmenters.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from dollmaker.config.checks import require_volumes
from dollmaker.config.sources import MsdConfig, PrepareConfig
from dollmaker.pixels.names import is_junk
from dollmaker.pixels.volumes import SUFFIXES, read_volume, require_same_grid, whole_numbers
from dollmaker.prepare.listing import Find, Item, Piece
from dollmaker.runtime import encoding
from dollmaker.runtime.errors import ConfigError, DataError, unknown
from dollmaker.store.depth import Bits, Stored, type_of

#: The schema's default of ``findings``: who did not choose them is told of labels beyond them.
DEFAULT_FINDINGS = {"tumour": [1, 2, 3]}

Floats = npt.NDArray[np.float32]

#: Bytes of a case's name; the number of a slice is added to it.
_LONGEST = 200


@dataclass(frozen=True, kw_only=True)
class Case:
    """One volume of ``dataset.json``."""

    name: str  #: What its pictures are called.
    #: Of each channel, relative path of the file that holds it -> the channel's number in it,
    #: ``None`` if the file has one only. The first that exists is read.
    images: list[dict[str, int | None]]
    label: str  #: Relative path of the label.


def list_items(options: MsdConfig, prepare: PrepareConfig, find: Find) -> list[Item]:
    """One item per volume of ``dataset.json`` that has a label; ``find`` begins in its folder.

    Volumes with more voxels than ``max_pixels`` (all channels) are left out, ``channels`` must be
    the number of those that are chosen, slices get ``bits``.

    Raises:
        ConfigError: If a channel does not exist, or they are not as many as asked for.
        DataError: If the folder or its description is missing or is not of that form.
    """
    file = find("dataset.json")
    if not file.is_file():
        raise DataError(
            f"{file} does not exist; unpack the task there or correct source.msd.folder."
        )
    try:
        content = json.loads(encoding.decode(file.read_bytes()))
        named = content["modality"] if "modality" in content else content["channel_names"]
        chosen = _chosen(options, {int(n): str(name) for n, name in named.items()})
        cases, declared = _cases(content, chosen, find), _declared(content.get("labels"))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{file} lacks the channels or cases as the Decathlon or nnU-Net write them "
            f"({type(error).__name__}: {error}); unpack the task again."
        ) from None
    if not cases:
        raise DataError(f"{file} lists no training volumes; unpack the task again.")
    require_volumes(len(chosen), prepare.channels)
    cutter = _Cutter(options=options, prepare=prepare, find=find, declared=declared)
    return [
        Item(source=next(iter(case.images[0])), patient=case.name, make=partial(cutter.cut, case))
        for case in cases
    ]


def _chosen(options: MsdConfig, channels: Mapping[int, str]) -> list[int]:
    wanted = options.channels
    if wanted is None:
        return [_channel("channel", options.channel, channels)]
    if wanted == "all":
        return sorted(channels)
    numbers = [_channel("channels", one, channels) for one in wanted]
    if len(set(numbers)) < len(numbers):
        raise ConfigError(f"source.msd.channels names a channel twice: {wanted}; name each once.")
    return numbers


def _channel(key: str, wanted: int | str, channels: Mapping[int, str]) -> int:
    for number, name in channels.items():
        if wanted == number or str(wanted).lower() == name.lower():
            return number
    known = [*channels, *channels.values()]
    raise ConfigError(f"source.msd.{key}: {unknown('channel', wanted, known)}")


def _declared(labels: Any) -> frozenset[int]:
    """The values that ``labels`` names: MSD ``"1": "edema"``, nnU-Net ``"edema": 1`` or a list."""
    found: list[Any] = []
    for key, value in labels.items() if isinstance(labels, dict) else ():
        if key.isdecimal():
            found.append(int(key))
        else:
            found.extend(value if isinstance(value, list) else [value])
    return frozenset(value for value in found if isinstance(value, int))


def _cases(content: Any, chosen: Sequence[int], find: Find) -> list[Case]:
    """The cases, by the first list there is: ``training``, ``dataset``, the files of labels."""
    if content.get("training"):
        entries = content["training"]
        listed = [_listed_case(entry["image"], entry["label"], chosen) for entry in entries]
        return [case for case in listed if not is_junk(Path(case.label))]
    if isinstance(content.get("dataset"), dict):
        own = content["dataset"].items()
        return [_own_case(name, entry["images"], entry["label"], chosen) for name, entry in own]
    ending = f".{_text(content.get('file_ending', '.nii.gz')).lstrip('.')}"
    if ending not in SUFFIXES:
        raise DataError(
            f"dataset.json has the file_ending {ending!r}; volumes are read as NIfTI only, so save "
            "them as .nii.gz, or describe pictures as source.kind patches or table."
        )
    labels = sorted(
        path.name
        for path in find("labelsTr").iterdir()
        if path.name.endswith(ending) and not is_junk(path)
    )
    return [_found_case(label.removesuffix(ending), ending, chosen) for label in labels]


def _listed_case(image: str, label: str, chosen: Sequence[int]) -> Case:
    """A case of MSD: channels in one file; nnU-Net 1 names it so, and has a file per channel."""
    image = _path(image)
    plain = image.removesuffix(".gz").removesuffix(".nii")
    ending, name = image.removeprefix(plain), _name(PurePosixPath(plain).name)
    images = [{image: number, f"{plain}_{number:04d}{ending}": None} for number in chosen]
    return Case(name=name, images=images, label=_path(label))


def _own_case(name: str, images: Sequence[str], label: str, chosen: Sequence[int]) -> Case:
    """A case of nnU-Net with paths of its own: a file per channel, or one with all."""
    listed: list[dict[str, int | None]] = [
        {_path(images[0]): number} if len(images) == 1 else {_path(images[number]): None}
        for number in chosen
    ]
    return Case(name=_name(name), images=listed, label=_path(label))


def _found_case(name: str, ending: str, chosen: Sequence[int]) -> Case:
    """A case of nnU-Net 2, known by its label only."""
    start, label = f"imagesTr/{name}", f"labelsTr/{name}{ending}"
    images = [{f"{start}_{n:04d}{ending}": None, f"{start}{ending}": n} for n in chosen]
    return Case(name=_name(name), images=images, label=label)


def _path(value: Any) -> str:
    """A path; Windows divides its parts by backslashes."""
    return _text(value).replace("\\", "/")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    value.encode()  # raises on halves of characters
    return value


def _name(value: Any) -> str:
    """A text that can be the name of a file, with something added, and the cell of a table."""
    text = _text(value)
    if not re.fullmatch(r"[^/\0\s][^/\0]*", text) or len(text.encode()) > _LONGEST:
        raise ValueError(f"{text[:_LONGEST]!r} is no name")
    return text


@dataclass(frozen=True, kw_only=True)
class _Cutter:
    """Cuts volumes into slices; ``declared`` are the values that ``labels`` names."""

    options: MsdConfig
    prepare: PrepareConfig
    find: Find
    declared: frozenset[int]

    def cut(self, case: Case) -> list[Piece]:
        """The slices that show any of the body, upwards; the front is up, right is right."""
        options, most = self.options, self.prepare.max_pixels
        label = read_volume(self.find(case.label), channel=None, max_voxels=most)
        areas = whole_numbers(label)
        greys: list[Stored] = []
        bodies = []
        for images in case.images:
            path, number = self._image(images)
            volume = read_volume(path, channel=number, max_voxels=most)
            require_same_grid(volume, label)
            if not greys:
                _require_findings(areas, options.findings, self.declared)
            body = volume.values != _outside(volume.values)
            if not body.any():
                inner = "" if number is None else f" in its channel {number}"
                raise DataError(f"{volume.name} holds one value only{inner}")
            greys.append(_grey(volume.values, body, options.window, self.prepare.bits))
            bodies.append(body.any(axis=(0, 1)))
        shows, pixels = np.any(bodies, axis=0), np.stack(greys)
        pieces = []
        for place in range(0, pixels.shape[-1], options.every):
            if not shows[place]:
                continue
            mask = np.ascontiguousarray(np.rot90(areas[:, :, place]))
            shares = {f: float(np.isin(mask, v).mean()) for f, v in options.findings.items()}
            pieces.append(
                Piece(
                    name=f"{case.name}_z{place:03d}",
                    image=np.ascontiguousarray(np.rot90(pixels[..., place], axes=(1, 2))),
                    mask=mask,
                    labels={f: int(s > 0 and s >= options.min_share) for f, s in shares.items()},
                )
            )
        return pieces

    def _image(self, images: Mapping[str, int | None]) -> tuple[Path, int | None]:
        """The first file of a channel that is there, and its number in it; the first if none is."""
        paths = [(self.find(image), channel) for image, channel in images.items()]
        return next(((path, channel) for path, channel in paths if path.is_file()), paths[0])


def _require_findings(
    areas: npt.NDArray[np.uint8], findings: Mapping[str, Sequence[int]], declared: frozenset[int]
) -> None:
    """Refuse labels that belong to no finding, unless the user chose so knowing of them."""
    known = {0, *(value for values in findings.values() for value in values)}
    others = sorted(set(np.unique(areas).tolist()) - known)
    if others and (findings == DEFAULT_FINDINGS or not declared.issuperset(others)):
        values = ", ".join(map(str, others))
        raise DataError(
            f"labels hold the values {values}, which are in no finding of source.msd.findings; add "
            "them there, or choose findings without them and declare them in dataset.json"
        )


def _outside(values: Floats) -> float:
    """The value of what is not the body: that of all eight corners (CT: air), or else 0."""
    corners = values[np.ix_(*((0, length - 1) for length in values.shape))]
    first = float(corners[0, 0, 0])
    return first if (corners == first).all() else 0.0


def _grey(
    values: Floats, body: npt.NDArray[np.bool_], window: Sequence[float], bits: Bits
) -> Stored:
    """Values from the percentiles of those of the body to black and white."""
    low, high = np.percentile(values[body], window)
    kind = type_of(bits)
    white = int(np.iinfo(kind).max)
    scaled = (values - low) * (white / max(high - low, 1e-6))
    return np.asarray(np.clip(scaled, 0, white).round(), kind)
