"""Downstream tasks: images with true masks, read whole, split by patient.

Shapes: N images, C channels, K classes, S the side of the square (``prepare.size``).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from dollmaker import geometry, tables
from dollmaker.augment import IGNORE
from dollmaker.errors import ConfigError, DataError, unknown
from dollmaker.files import inside
from dollmaker.prepare.images import FORMATS, decode
from dollmaker.prepare.sources import make_plan
from dollmaker.prepare.splits import assign

Pixels = npt.NDArray[np.uint8]

#: Modes of images whose pixels are numbers: black and white, grey, palette, 16 and 32 bits.
_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L", "I;16N")


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task in memory, sorted by image.

    Attributes:
        name: Its name in the configuration.
        classes: Names of the K classes.
        image_ids: File names without suffix (N).
        patients: Patient of each image (N).
        splits: train, valid or test (N).
        images: uint8 (N, C, S, S).
        masks: uint8 (N, K, S, S): 1 class, 0 not, 255 ignore. The padding of
            a letterbox is background: left out of the loss, it gets painted.
    """

    name: str
    classes: list[str]
    image_ids: list[str]
    patients: list[str]
    splits: list[str]
    images: Pixels
    masks: Pixels

    def rows(self, split: str) -> npt.NDArray[np.int64]:
        """Positions of a split's images, increasing."""
        return np.flatnonzero(np.array(self.splits) == split)

    def choose(self, n: int | str, seed: int) -> npt.NDArray[np.int64]:
        """Positions of ``n`` training images.

        The choice depends on the task and the seed alone, so that all starts and tunings see the
        same images, and a smaller choice is part of a larger one.

        Args:
            n: Their number, or ``all``; more than there are means all.
            seed: Seed of the choice.
        """
        train = self.rows("train")
        number = int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:8], "big")
        order = np.random.default_rng([number, seed]).permutation(train)
        return order if n == "all" else order[: int(n)]

    def sha256(self) -> str:
        """Checksum of all that is in it."""
        digest = hashlib.sha256(self.images.tobytes() + self.masks.tobytes())
        digest.update(repr((self.classes, self.image_ids, self.patients, self.splits)).encode())
        return digest.hexdigest()


def read_task(name: str, config: Mapping[str, Any], data_root: Path) -> Task:
    """Read a task's images and masks.

    Args:
        name: Key of the section ``tasks``.
        config: The resolved configuration (sections source, prepare, tasks).
        data_root: Folder of the source data.

    Raises:
        ConfigError: If there is no such task, or its shares leave nothing to train on.
        DataError: If the table, an image or a mask is missing or not as described.
    """
    if name not in config["tasks"]:
        raise ConfigError(unknown("task", name, config["tasks"]))
    options, prepare = config["tasks"][name], config["prepare"]
    file = inside(data_root, options["table"])
    table = tables.read_source(file)
    keys = ("image_column", "mask_column", "patient_column")
    columns = [options[key] for key in keys if options[key]]
    tables.require_columns(table, columns, file)
    table = table.drop_nulls(columns[:2]).sort(columns[0])
    if table.is_empty():
        raise DataError(f"table {file} names no mask in {columns[1]!r}; correct tasks.{name}.")
    files = table[columns[0]].to_list()
    ids = [str(PurePosixPath(text).with_suffix("")).replace("/", "_") for text in files]
    if len(set(ids)) < len(ids):
        twice = next(text for text in ids if ids.count(text) > 1)
        raise DataError(
            f"table {file} names the image {twice!r} twice; keep one row of each image."
        )
    patients = table[columns[2]].fill_null("").to_list() if options["patient_column"] else ids
    if "" in patients:
        where = files[patients.index("")]
        raise DataError(f"table {file}: {columns[2]!r} of {where!r} is blank; fill it in.")
    splits = _split(name, config, data_root, patients)
    images, masks = [], []
    found: set[int] = set()
    for image_file, mask_file in zip(files, table[columns[1]], strict=True):
        image, mask, values = _read_pair(name, image_file, mask_file, options, prepare, data_root)
        images.append(image)
        masks.append(mask)
        found |= values
    task = Task(
        name=name,
        classes=list(options["classes"]),
        image_ids=ids,
        patients=patients,
        splits=splits,
        images=np.stack(images),
        masks=np.stack(masks),
    )
    _check(task, options, found)
    return task


def _check(task: Task, options: Mapping[str, Any], found: set[int]) -> None:
    for split, key in (("train", "valid and test"), ("valid", "valid"), ("test", "test")):
        if not len(task.rows(split)):
            change = "lower" if split == "train" else "raise"
            raise DataError(
                f"task {task.name} has no {split} image among {len(task.image_ids)} images of "
                f"{len(set(task.patients))} patients; {change} tasks.{task.name}.{key}."
            )
    for k, cls in enumerate(task.classes):
        if not (task.masks[:, k] == 1).any():
            listed = ", ".join(str(value) for value in sorted(found)[:20])
            raise DataError(
                f"task {task.name}: class {cls!r} (values {options['classes'][cls]}) is in no "
                f"mask; values there: {listed}. Correct tasks.{task.name}.classes or encoding."
            )


def _split(
    name: str, config: Mapping[str, Any], data_root: Path, patients: Sequence[str]
) -> list[str]:
    """Splits by patient; shares that are null are the data set's own, and so are its splits."""
    options, prepare = config["tasks"][name], config["prepare"]
    own = {key: options[key] is None for key in ("valid", "test")}
    valid, test = (prepare[key] if own[key] else options[key] for key in ("valid", "test"))
    if valid + test >= 1:
        raise ConfigError(f"tasks.{name}.valid + test leave no patients to train; lower them.")
    known = _known_splits(config, data_root) if all(own.values()) else {}
    return [known.get(patient) or assign(patient, valid, test) for patient in patients]


def _known_splits(config: Mapping[str, Any], data_root: Path) -> dict[str, str]:
    """Patient -> split, of a data set that does not split all its patients by hash."""
    source = config["source"].get("table") if config["source"]["kind"] == "table" else None
    if source and config["prepare"]["hold_out_truth"]:
        plan, _ = make_plan(dict(config), data_root)
        return dict(plan.select("patient_id", "split").iter_rows())
    if not source or not source["split_column"] or not source["patient_column"]:
        return {}
    file = inside(data_root, source["file"])
    table = tables.read_source(file)
    columns = [source["patient_column"], source["split_column"]]
    tables.require_columns(table, columns, file)
    return dict(table.select(columns).drop_nulls().iter_rows())


def _read_pair(
    name: str,
    image_file: str,
    mask_file: str,
    options: Mapping[str, Any],
    prepare: Mapping[str, Any],
    data_root: Path,
) -> tuple[Pixels, Pixels, set[int]]:
    """Image (C, S, S), mask (K, S, S) and the values that the mask's pixels have."""
    try:
        image = decode(
            inside(data_root, f"{options['images']}/{image_file}"),
            size=prepare["size"],
            channels=prepare["channels"],
            fit=prepare["fit"],
            max_pixels=prepare["max_pixels"],
        )
    except DataError as error:
        raise DataError(
            f"task {name}: image {image_file!r} in {options['images']!r}: {error}; mend or "
            "remove it."
        ) from None
    try:
        path = inside(data_root, f"{options['masks']}/{mask_file}")
        values = _read_mask(path, image.width, image.height)
    except DataError as error:
        raise DataError(
            f"task {name}: mask {mask_file!r} in {options['masks']!r}: {error}; mend or remove it."
        ) from None
    mask = fit_classes(
        encode_classes(values, options["classes"], options["encoding"], options["ignore"]),
        prepare["size"],
        prepare["fit"],
    )
    return image.pixels, mask, set(np.unique(values).tolist())


def _read_mask(path: Path, width: int, height: int) -> npt.NDArray[np.int64]:
    """The numbers in a mask's pixels, (height, width)."""
    if not path.is_file():
        raise DataError("file is missing")
    try:
        with Image.open(path, formats=FORMATS) as image:
            size, mode, frames = image.size, image.mode, getattr(image, "n_frames", 1)
            if size == (width, height) and mode in _MODES and frames == 1:
                return np.asarray(image).astype(np.int64)
    except Exception as error:  # decoders raise anything on hostile bytes
        raise DataError(f"not a readable image ({type(error).__name__}: {error})") from None
    if size != (width, height):
        raise DataError(f"{size[0]}x{size[1]} pixels, its image has {width}x{height}")
    raise DataError(f"mode {mode}; a mask has one number in each pixel (grey or palette PNG)")


def encode_classes(
    values: npt.NDArray[np.int64],
    classes: Mapping[str, Sequence[int]],
    encoding: str,
    ignore: int | None,
) -> Pixels:
    """From numbers in pixels (h, w) to one channel a class, uint8 (K, h, w).

    Args:
        values: Pixel values.
        classes: Class name -> pixel values (``index``) or bit values (``bits``).
        encoding: ``index`` or ``bits``.
        ignore: Value of pixels that are 255 in every channel; ``None`` if there is none.
    """
    channels = []
    for wanted in classes.values():
        if encoding == "bits":
            channels.append((values & int(np.bitwise_or.reduce(wanted))) != 0)
        else:
            channels.append(np.isin(values, wanted))
    result = np.stack(channels).astype(np.uint8)
    if ignore is not None:
        result[:, values == ignore] = IGNORE
    return result


def fit_classes(mask: Pixels, size: int, fit: geometry.Fit) -> Pixels:
    """Scale channels (K, h, w) into the square by nearest neighbour; padding is background."""
    height, width = mask.shape[1:]
    left, top, right, bottom = geometry.box(width, height, size, fit)
    result = np.zeros((len(mask), size, size), np.uint8)
    for channel, into in zip(mask, result, strict=True):
        fitted = geometry.fit_mask(channel, size, fit)
        into[top:bottom, left:right] = fitted[top:bottom, left:right]
    return result
