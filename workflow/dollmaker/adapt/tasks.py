"""Downstream tasks: images with true masks, read whole, split by patient.

Shapes: N images, C channels, K classes, S the side of the square (``prepare.size``).
"""

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dollmaker.adapt.listing import list_images
from dollmaker.adapt.masks import Reader, make_reader
from dollmaker.adapt.truth import SourceMasks, pack
from dollmaker.config.settings import resolved
from dollmaker.pixels import geometry, names
from dollmaker.pixels.masks import surround
from dollmaker.pixels.pictures import Decoded, decode
from dollmaker.prepare.listing import assign
from dollmaker.prepare.sources import list_source
from dollmaker.runtime.errors import ConfigError, DataError, unknown
from dollmaker.store import tables
from dollmaker.store.depth import to_levels
from dollmaker.store.files import inside

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task in memory, sorted by image.

    Attributes:
        name: Its name in the configuration.
        classes: Names of the K classes.
        image_ids: File names without suffix (N).
        patients: Patient of each image (N).
        splits: train, valid or test (N).
        images: (N, C, S, S) in levels: uint8, or float32 in 0..255 of 16 bits.
        masks: uint8 (N, K, S, S): 1 class, 0 not, 255 ignore; outside the picture
            :data:`dollmaker.pixels.masks.IGNORE`.
        fit: How the pictures lie in their squares.
        truth: The masks at the size of the source (N); of images that are not tested ``None``.
        boxes: Where each picture lies in its square (N).
        files: SHA-256 of each image's file (N); empty if there are no files.
        hashes: The perceptual hash of each image (N); empty if unknown.
        train_empty: Whether images that hold no class may be trained on.
    """

    name: str
    classes: list[str]
    image_ids: list[str]
    patients: list[str]
    splits: list[str]
    images: npt.NDArray[Any]
    masks: Pixels
    fit: geometry.Fit
    truth: Sequence[SourceMasks | None]
    boxes: Sequence[geometry.Box]
    files: Sequence[str] = ()
    hashes: Sequence[str] = ()
    train_empty: bool = True

    def rows(self, split: str) -> npt.NDArray[np.int64]:
        """Positions of a split's images, increasing."""
        return np.flatnonzero(np.array(self.splits) == split)

    def true(self, row: int) -> SourceMasks:
        """The true masks of a test image, at the size of its source."""
        masks = self.truth[row]
        if masks is None:
            raise ValueError(f"image {self.image_ids[row]} is not of the test images")
        return masks

    def present(self) -> npt.NDArray[np.bool_]:
        """Whether each test image holds each class, (T, K), at the size of the sources."""
        true = [self.true(row) for row in self.rows("test")]
        return np.array([[t.read(k)[0].any() for k in range(len(self.classes))] for t in true])

    def choose(self, n: int | str, seed: int) -> npt.NDArray[np.int64]:
        """Positions of ``n`` training images.

        The choice depends on the task and the seed alone, so that all starts and tunings see the
        same images, and a smaller choice is part of a larger one. Without ``train_empty`` it is
        among the images that hold a class.

        Args:
            n: Their number, or ``all``; more than there are means all.
            seed: Seed of the choice.
        """
        train = self.rows("train")
        number = int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:8], "big")
        if not self.train_empty:
            train = train[(self.masks[train] == 1).any((1, 2, 3))]
        order = np.random.default_rng([number, seed]).permutation(train)
        return order if n == "all" else order[: int(n)]

    def sha256(self) -> str:
        """Checksum of all that is in it."""
        digest = hashlib.sha256(self.images.tobytes() + self.masks.tobytes())
        digest.update(repr((self.classes, self.image_ids, self.patients, self.splits)).encode())
        for each in self.truth:
            digest.update(each.content() if each else b"")
        return digest.hexdigest()


def read_task(name: str, config: Mapping[str, Any], data_root: Path) -> Task:
    """Read a task's images and masks.

    Of a file that belongs to several patients the first image counts, as in the index: else it
    could be learned from and scored at once.

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
    links = config.get("allow_links", False)
    listing = list_images(name, options, data_root, links)
    splits = _split(name, config, data_root, listing.patients)
    reader = make_reader(options, data_root, f"tasks.{name}", links)
    root = partial(inside, data_root, links=links)
    kept: list[int] = []
    pictures: list[Decoded] = []
    masks: list[Pixels] = []
    truth: list[SourceMasks | None] = []
    found: set[str] = set()
    owners: dict[str, str] = {}
    pairs = zip(listing.images, listing.masks, listing.patients, strict=True)
    for number, (image_file, mask_file, patient) in enumerate(pairs):
        image, mask, seen = _read_pair(name, image_file, mask_file, reader, options, prepare, root)
        if owners.setdefault(image.sha256, patient) != patient:
            continue
        kept.append(number)
        pictures.append(image)
        masks.append(fit_classes(mask, prepare["size"], prepare["fit"]))
        truth.append(pack(mask) if splits[number] == "test" else None)
        found |= seen
    if left_out := len(listing.images) - len(kept):
        print(
            f"task {name}: {left_out} of {len(listing.images)} images are left out: the same file "
            "belongs to another patient before",
            file=sys.stderr,
        )
    if fault := reader.fault():
        raise DataError(f"task {name}: class {fault}. Correct tasks.{name}.classes or encoding.")
    task = Task(
        name=name,
        classes=list(options["classes"]),
        image_ids=[listing.image_ids[i] for i in kept],
        patients=[listing.patients[i] for i in kept],
        splits=[splits[i] for i in kept],
        images=to_levels(np.stack([image.pixels for image in pictures])),
        masks=np.stack(masks),
        fit=prepare["fit"],
        truth=truth,
        boxes=[
            geometry.box(image.width, image.height, prepare["size"], prepare["fit"])
            for image in pictures
        ],
        files=[image.sha256 for image in pictures],
        hashes=[image.hash for image in pictures],
        train_empty=options["train_empty"],
    )
    _check(task, options, found)
    return task


def look_at_task(name: str, config: Mapping[str, Any], data_root: Path, count: int) -> None:
    """Find all images of a task and their masks, and read some, as a look before the run.

    Args:
        name: Key of the section ``tasks``.
        config: The resolved configuration (sections source, prepare, tasks).
        data_root: Folder of the source data.
        count: How many, spread over the task.

    Raises:
        ConfigError: If classes are not such as the encoding has.
        DataError: As :func:`read_task`, but for what all images together lack.
    """
    options, links = config["tasks"][name], config.get("allow_links", False)
    listing = list_images(name, options, data_root, links)
    reader = make_reader(options, data_root, f"tasks.{name}", links)
    root = partial(inside, data_root, links=links)
    for image, mask in zip(listing.images, listing.masks, strict=True):
        if not root(f"{options['images']}/{image}").is_file():
            raise DataError(
                f"task {name}: image {image!r} in {options['images']!r}: file is missing; mend or "
                "remove it."
            )
        with _naming(name, image, mask, options):
            reader.require(image, mask)
    for place in np.unique(np.linspace(0, len(listing.images) - 1, count).round().astype(int)):
        image, mask = listing.images[place], listing.masks[place]
        _read_pair(name, image, mask, reader, options, config["prepare"], root)
    if fault := reader.fault(some=True):
        raise DataError(f"task {name}: class {fault}. Correct tasks.{name}.classes or encoding.")


def _check(task: Task, options: Mapping[str, Any], found: set[str]) -> None:
    for split, key in (("train", "valid and test"), ("valid", "valid"), ("test", "test")):
        if not len(task.rows(split)):
            change = "lower" if split == "train" else "raise"
            raise DataError(
                f"task {task.name} has no {split} image among {len(task.image_ids)} images of "
                f"{len(set(task.patients))} patients; {change} tasks.{task.name}.{key}."
            )
    for k, cls in enumerate(task.classes):
        if not (task.masks[:, k] == 1).any():
            # Numbers in their own order.
            listed = ", ".join(sorted(found, key=lambda text: (len(text), text))[:20])
            raise DataError(
                f"task {task.name}: class {cls!r} (values {options['classes'][cls]}) is in no "
                f"mask; values there: {listed}. Correct tasks.{task.name}.classes or encoding."
            )
    if not len(task.choose("all", 0)):
        raise DataError(
            f"task {task.name}: no training image holds a class; set tasks.{task.name}.train_empty "
            "to true, or lower its valid and test."
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
    kind = config["source"]["kind"]
    source = config["source"].get("table") if kind == "table" else None
    by_image = source and source["split_column"] and not source["patient_column"]
    if kind in ("nih", "folder") or by_image or (source and config["prepare"]["hold_out_truth"]):
        listing, _ = list_source(resolved(config), data_root)
        return dict(listing.select("patient_id", "split").iter_rows())
    if not source or not source["split_column"]:
        return {}
    file = inside(data_root, source["file"], config.get("allow_links", False))
    table = tables.read_source(file)
    columns = [source["patient_column"], source["split_column"]]
    tables.require_columns(table, columns, file)
    rows = table.select(columns).drop_nulls().iter_rows()
    return {names.patient(who): split for who, split in rows}


def _read_pair(
    name: str,
    image_file: str,
    mask_file: str | None,
    reader: Reader,
    options: Mapping[str, Any],
    prepare: Mapping[str, Any],
    root: Callable[[str], Path],
) -> tuple[Decoded, Pixels, set[str]]:
    """Image (C, S, S), mask (K, height, width) and what the mask's file shows."""
    try:
        image = decode(
            root(f"{options['images']}/{image_file}"),
            size=prepare["size"],
            channels=prepare["channels"],
            bits=prepare["bits"],
            fit=prepare["fit"],
            max_pixels=prepare["max_pixels"],
        )
    except DataError as error:
        raise DataError(
            f"task {name}: image {image_file!r} in {options['images']!r}: {error}; mend or "
            "remove it."
        ) from None
    turned = image.orientation != 1
    with _naming(name, image_file, mask_file, options):
        mask, seen = reader(image_file, mask_file, image.width, image.height, turned)
    return image, mask, seen


@contextmanager
def _naming(name: str, image: str, mask: str | None, options: Mapping[str, Any]) -> Iterator[None]:
    """Say of which mask a reason is."""
    where = f"task {name}: mask {mask or f'of {image}'!r} in {options['masks']!r}"
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{where}: file is missing; mend or remove it.") from None
    except DataError as error:
        raise DataError(f"{where}: {str(error).rstrip('.')}; mend or remove it.") from None


def fit_classes(mask: Pixels, size: int, fit: geometry.Fit) -> Pixels:
    """Scale channels (K, h, w) into the square by nearest neighbour."""
    fitted = np.stack([geometry.fit_mask(channel, size, fit) for channel in mask])
    return surround(fitted, geometry.box(mask.shape[2], mask.shape[1], size, fit))
