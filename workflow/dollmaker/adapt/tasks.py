"""Downstream tasks: images with true masks, read whole, split by patient.

Shapes: N images, C channels, K classes, S the side of the square (``prepare.size``).
"""

import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from dollmaker.adapt.listing import Listing, list_images, split_patients
from dollmaker.adapt.source_scores import SourceMasks, pack
from dollmaker.config.sources import PrepareConfig
from dollmaker.config.tuning import TaskConfig
from dollmaker.config.whole import Config
from dollmaker.pixels import geometry
from dollmaker.pixels.chexlocalize import FindingFiles
from dollmaker.pixels.coco import CocoFile
from dollmaker.pixels.levels import Numbers
from dollmaker.pixels.mask_forms import Folder, Form, ImageFacts, PartFiles, Pictures, Pixels
from dollmaker.pixels.masks import surround
from dollmaker.pixels.pictures import Decoded, decode
from dollmaker.prepare.listing import assert_disjoint
from dollmaker.runtime.errors import ConfigError, DataError, unknown
from dollmaker.runtime.picks import evenly
from dollmaker.store.depth import to_levels
from dollmaker.store.files import inside

#: Masks that are looked at before the run where a handful holds no class.
MANY = 200


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task in memory, sorted by image."""

    name: str
    classes: list[str]  #: Names of the K classes.
    image_ids: list[str]  #: File names without suffix (N).
    patients: list[str]  #: Patient of each image (N).
    splits: list[str]  #: train, valid or test (N).
    images: npt.NDArray[Any]  #: (N, C, S, S) in levels: uint8, or float32 in 0..255 of 16 bits.
    #: uint8 (N, K, S, S): 1 class, 0 not, 255 ignore, as everything outside the picture.
    masks: Pixels
    fit: geometry.Fit  #: How the pictures lie in their squares.
    #: The masks at the size of the source (N); of images that are not tested ``None``.
    truth: Sequence[SourceMasks | None]
    boxes: Sequence[geometry.Box]  #: Where each picture lies in its square (N).
    files: Sequence[str] = ()  #: SHA-256 of each image's file (N); empty if there are no files.
    hashes: Sequence[str] = ()  #: The perceptual hash of each image (N); empty if unknown.
    train_empty: bool = True  #: Whether images that hold no class may be trained on.

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
        same images, and a smaller choice is part of a larger one; ``all``, or more than there are,
        means all. Without ``train_empty`` it is among the images that hold a class.
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


def read_task(name: str, config: Config, data_root: Path) -> Task:
    """Read a task's images and masks.

    Of a file that belongs to several patients the first image counts, as in the index: else it
    could be learned from and scored at once.

    Raises:
        ConfigError: If there is no such task, or its shares leave nothing to train on.
        DataError: If the table, an image or a mask is missing or not as described.
    """
    if name not in config.tasks:
        raise ConfigError(unknown("task", name, config.tasks))
    options, prepare = config.tasks[name], config.prepare
    pairs = _open_pairs(name, config, data_root)
    listing = pairs.listing
    splits = split_patients(name, config, data_root, listing.patients)
    named = {"image_id": listing.image_ids, "patient_id": listing.patients, "split": splits}
    assert_disjoint(pl.DataFrame(named))
    kept: list[int] = []
    pictures: list[Decoded] = []
    masks: list[Pixels] = []
    truth: list[SourceMasks | None] = []
    owners: dict[str, str] = {}
    for number, patient in enumerate(listing.patients):
        image, mask = pairs.read(number)
        if owners.setdefault(image.sha256, patient) != patient:
            continue
        kept.append(number)
        pictures.append(image)
        masks.append(fit_classes(mask, prepare.size, prepare.fit))
        truth.append(pack(mask) if splits[number] == "test" else None)
    if left_out := len(listing.images) - len(kept):
        print(
            f"task {name}: {left_out} of {len(listing.images)} images are left out: the same file "
            "belongs to another patient before",
            file=sys.stderr,
        )
    pairs.require_sound()
    task = Task(
        name=name,
        classes=list(options.classes),
        image_ids=[listing.image_ids[i] for i in kept],
        patients=[listing.patients[i] for i in kept],
        splits=[splits[i] for i in kept],
        images=to_levels(np.stack([image.pixels for image in pictures])),
        masks=np.stack(masks),
        fit=prepare.fit,
        truth=truth,
        boxes=[
            geometry.box(image.width, image.height, prepare.size, prepare.fit) for image in pictures
        ],
        files=[image.sha256 for image in pictures],
        hashes=[image.hash for image in pictures],
        train_empty=options.train_empty,
    )
    _check(task, options, pairs.form.seen)
    return task


def look_at_task(name: str, config: Config, data_root: Path, count: int) -> None:
    """Find all images of a task and their masks, and read so many, as a look before the run.

    Where these hold no class, :data:`MANY` are read.

    Raises:
        ConfigError: If classes are not such as the encoding has.
        DataError: As :func:`read_task`, but for what all images together lack.
    """
    pairs = _open_pairs(name, config, data_root)
    total = len(pairs.listing.images)
    for number in range(total):
        pairs.require(number)
    for most in (count, MANY):
        for number in evenly(total, most):
            pairs.read(number)
        if not pairs.form.fault(some=True):  # else its classes may be rare
            break
    pairs.require_sound(some=True)


@dataclass(frozen=True, kw_only=True)
class _Pairs:
    """Images of a task with their masks, by their numbers in the listing."""

    name: str
    options: TaskConfig
    prepare: PrepareConfig
    listing: Listing
    form: Form
    data_root: Path
    links: bool

    def _file(self, image: str) -> Path:
        return inside(self.data_root, f"{self.options.images}/{image}", self.links)

    def require(self, number: int) -> None:
        """Refuse an image without its file or its mask."""
        image, mask = self.listing.images[number], self.listing.masks[number]
        if not self._file(image).is_file():
            raise DataError(f"{self._where(image)}: file is missing; mend or remove it.")
        with self._naming(image, mask):
            self.form.require(ImageFacts(path=image, mask=mask))

    def read(self, number: int) -> tuple[Decoded, Pixels]:
        """Image (C, S, S) and mask (K, height, width)."""
        image_file, mask_file = self.listing.images[number], self.listing.masks[number]
        options = self.prepare
        try:
            image = decode(
                self._file(image_file),
                size=options.size,
                channels=options.channels,
                bits=options.bits,
                fit=options.fit,
                max_pixels=options.max_pixels,
            )
        except DataError as error:
            raise DataError(f"{self._where(image_file)}: {error}; mend or remove it.") from None
        facts = ImageFacts(
            path=image_file,
            width=image.width,
            height=image.height,
            turned=image.orientation != 1,
            mask=mask_file,
        )
        with self._naming(image_file, mask_file):
            return image, self.form.channels(facts, self.options.classes)

    def require_sound(self, some: bool = False) -> None:
        """Refuse masks that together do not hold what was asked for; tell what no class is."""
        if fault := self.form.fault(some):
            key = f"tasks.{self.name}.classes"
            raise DataError(f"task {self.name}: class {fault}. Correct {key} or encoding.")
        if unnamed := self.form.unnamed():
            listed = ", ".join(map(str, unnamed[:20]))
            print(
                f"task {self.name}: values of the masks that are in no class count as background: "
                f"{listed}; if they are sums of class bits, set tasks.{self.name}.encoding: bits",
                file=sys.stderr,
            )

    def _where(self, image: str) -> str:
        return f"task {self.name}: image {image!r} in {self.options.images!r}"

    @contextmanager
    def _naming(self, image: str, mask: str | None) -> Iterator[None]:
        """Say of which mask a reason is."""
        called = mask or f"of {image}"
        where = f"task {self.name}: mask {called!r} in {self.options.masks!r}"
        try:
            yield
        except DataError as error:
            raise DataError(f"{where}: {str(error).rstrip('.')}; mend or remove it.") from None


def _open_pairs(name: str, config: Config, data_root: Path) -> _Pairs:
    options, links = config.tasks[name], config.allow_links
    listing = list_images(name, options, data_root, links)
    form = open_masks(options, data_root, f"tasks.{name}", links)
    if options.table is None:  # nothing says which pictures of the folder have a mask
        there = [form.has(ImageFacts(path=image)) for image in listing.images]
        if any(there) and not all(there):
            count = f"{there.count(False)} of {len(there)} pictures"
            print(f"task {name}: {count} have no mask and are left out", file=sys.stderr)
            listing = listing.of(np.flatnonzero(there).tolist())
    return _Pairs(
        name=name,
        options=options,
        prepare=config.prepare,
        listing=listing,
        form=form,
        data_root=data_root,
        links=links,
    )


def open_masks(options: TaskConfig, data_root: Path, key: str, links: bool = False) -> Form:
    """The masks of a task, its classes being the names; ``key`` names its options in messages.

    Raises:
        ConfigError: If the classes are not such as the encoding has.
        DataError: If a file of all masks is missing or not of its form.
    """
    return _FORMS[options.encoding](options, inside(data_root, options.masks, links), key, links)


def _pictures(options: TaskConfig, folder: Path, key: str, links: bool) -> Form:
    return Pictures(Folder(folder, links=links), _numbers(options, key))


def _numbers(options: TaskConfig, key: str) -> Numbers:
    numbers: dict[str, list[int]] = {}
    for name, members in options.classes.items():
        numbers[name] = [member for member in members if isinstance(member, int)]
        if len(numbers[name]) < len(members):
            raise ConfigError(
                f"{key}.classes.{name} is {members!r}; encoding {options.encoding} takes the "
                "numbers of its pixels."
            )
    return Numbers(numbers, bits=options.encoding == "bits", ignore=options.ignore)


def _part_files(options: TaskConfig, folder: Path, key: str, links: bool) -> Form:
    classes = {name: list(map(str, members)) for name, members in options.classes.items()}
    names = {part for members in classes.values() for part in members}
    folders = {part: Folder(inside(folder, part, links), links=links) for part in names}
    parts = {name: {part: folders[part] for part in some} for name, some in classes.items()}
    return PartFiles(parts, options.ignore)


#: The forms that true masks of a task may have, by ``encoding``: options, folder or file of the
#: masks, key of the options, whether links may leave the data root.
_FORMS: dict[str, Callable[[TaskConfig, Path, str, bool], Form]] = {
    "index": _pictures,
    "bits": _pictures,
    "files": _part_files,
    "coco": lambda options, file, key, _: CocoFile(file, options.classes, key),
    "chexlocalize": lambda options, file, key, _: FindingFiles(
        [file], f"{key}.masks", options.classes
    ),
}


def _check(task: Task, options: TaskConfig, found: set[str]) -> None:
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
                f"task {task.name}: class {cls!r} (values {options.classes[cls]}) is in no "
                f"mask; values there: {listed}. Correct tasks.{task.name}.classes or encoding."
            )
    if not len(task.choose("all", 0)):
        raise DataError(
            f"task {task.name}: no training image holds a class; set tasks.{task.name}.train_empty "
            "to true, or lower its valid and test."
        )


def fit_classes(mask: Pixels, size: int, fit: geometry.Fit) -> Pixels:
    """Scale channels (K, h, w) into the square by nearest neighbour."""
    fitted = np.stack([geometry.fit_mask(channel, size, fit) for channel in mask])
    return surround(fitted, geometry.box(mask.shape[2], mask.shape[1], size, fit))
