"""True masks of a task in the forms that people have them in.

Every form is read to one channel a class, uint8 (K, h, w) at the size of the image: 1 class, 0 not,
255 ignore. ``tasks.{name}.encoding`` names the form, and ``classes`` says what a class is in it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from dollmaker.config.tuning import TaskConfig
from dollmaker.pixels.chexlocalize import Entry, FindingFiles
from dollmaker.pixels.coco import CocoFile
from dollmaker.pixels.levels import Numbers, objects
from dollmaker.pixels.masks import IGNORE, read_mask, require_upright
from dollmaker.pixels.names import Names, list_pictures
from dollmaker.runtime.errors import ConfigError, DataError
from dollmaker.store.files import inside

Pixels = npt.NDArray[np.uint8]


class Reader(Protocol):
    """Reads the masks of one image after the other."""

    def __call__(
        self, image: str, mask: str | None, width: int, height: int, turned: bool = False
    ) -> tuple[Pixels, set[str]]:
        """The masks of an image, and what was seen in its files.

        Args:
            image: The image's file, relative to the task's folder of images.
            mask: The mask's file, if a table names it.
            width: Of the image in pixels.
            height: Likewise.
            turned: Whether the image was turned by its EXIF tag.

        Returns:
            uint8 (K, height, width): 1 class, 0 not, 255 ignore; and the names or numbers there.

        Raises:
            FileNotFoundError: If there is no mask of that image.
            DataError: If its mask is damaged, or another image's, too.
        """
        ...

    def require(self, image: str, mask: str | None) -> None:
        """Refuse an image that has no mask, by the names alone.

        Raises:
            FileNotFoundError: If there is no file of it.
            DataError: If there is no entry of it, or one that fits another image, too.
        """
        ...

    def fault(self, some: bool = False) -> str:
        """What is wrong with all masks that were read, of all or of some; empty if nothing is."""
        ...


def make_reader(options: TaskConfig, data_root: Path, key: str, links: bool = False) -> Reader:
    """The reader of a task's masks; ``key`` names its options in messages.

    Raises:
        ConfigError: If the classes are not such as the encoding has.
        DataError: If a file of all masks is missing or not of its form.
    """
    numbers = options.encoding in ("index", "bits")
    for name, members in options.classes.items():
        if numbers and not all(isinstance(member, int) for member in members):
            raise ConfigError(
                f"{key}.classes.{name} is {members!r}; encoding {options.encoding} takes the "
                "numbers of its pixels."
            )
    return _FORMS[options.encoding](inside(data_root, options.masks, links), options, key, links)


class _Pictures:
    """One picture an image: a pixel holds a class number, or a sum of class bits."""

    def __init__(self, folder: Path, options: TaskConfig, key: str, links: bool) -> None:
        self._folder = _Folder(folder, links)
        self._classes, self._ignore = options.classes, options.ignore
        bits = options.encoding == "bits"
        numbers = {name: [int(one) for one in some] for name, some in self._classes.items()}
        self._numbers = Numbers(numbers, bits=bits, ignore=self._ignore)

    def __call__(
        self, image: str, mask: str | None, width: int, height: int, turned: bool = False
    ) -> tuple[Pixels, set[str]]:
        path = self._folder.find(image, mask)
        values = self._numbers.read(read_mask(path, size=(width, height), turned=turned))
        areas = [self._numbers.area(values, name) for name in self._classes]
        result = np.stack(areas).astype(np.uint8)
        if self._ignore is not None:
            result[:, values == self._ignore] = IGNORE
        return result, {str(value) for value in self._numbers.seen}

    def require(self, image: str, mask: str | None) -> None:
        self._folder.find(image, mask)

    def fault(self, some: bool = False) -> str:
        return self._numbers.fault(some)


class _Files:
    """One picture for each part of each class, in folders of their names (as SCR has organs).

    What a picture says to ignore is ignored in its class, where no other part of it is.
    """

    def __init__(self, folder: Path, options: TaskConfig, key: str, links: bool) -> None:
        self._classes, self._ignore = options.classes, options.ignore
        parts = {str(part) for members in self._classes.values() for part in members}
        self._folders = {part: _Folder(inside(folder, part, links), links) for part in parts}

    def __call__(
        self, image: str, mask: str | None, width: int, height: int, turned: bool = False
    ) -> tuple[Pixels, set[str]]:
        result = np.zeros((len(self._classes), height, width), np.uint8)
        seen = set()
        for channel, parts in zip(result, self._classes.values(), strict=True):
            for part in parts:
                try:
                    path = self._folders[str(part)].find(image, mask)
                except FileNotFoundError:
                    continue
                picture = read_mask(path, size=(width, height), turned=turned)
                ignored = picture.is_number(self._ignore)
                channel[ignored & (channel == 0)] = IGNORE
                channel[objects(picture) & ~ignored] = 1
                seen.add(str(part))
        if not seen:
            raise DataError("file is missing in every class's folder")
        return result, seen

    def require(self, image: str, mask: str | None) -> None:
        missing = 0
        for folder in self._folders.values():
            try:
                folder.find(image, mask)
            except FileNotFoundError:
                missing += 1
        if missing == len(self._folders):
            raise DataError("file is missing in every class's folder")

    def fault(self, some: bool = False) -> str:
        for name, members in self._classes.items():
            if not any(self._folders[str(part)].path.is_dir() for part in members):
                return f"{name!r} has no folder {' or '.join(map(str, members))} beside the others"
        return ""


class _Folder:
    """A folder of masks, listed once when the first is looked for."""

    def __init__(self, path: Path, links: bool) -> None:
        self.path, self._links = path, links
        self._names: Names | None = None

    def find(self, image: str, mask: str | None) -> Path:
        """The mask that a table names, or that is called as the image."""
        if mask is None:
            if self._names is None:
                self._names = Names(list_pictures(self.path), f"masks of {self.path}")
            mask = self._names.find(image)
        if mask is None:
            raise FileNotFoundError(image)
        path = inside(self.path, mask, self._links)
        if not path.is_file():
            raise FileNotFoundError(mask)
        return path


class _Coco:
    """COCO's JSON: polygons or run lengths of instances; a class is categories by name or id."""

    def __init__(self, file: Path, options: TaskConfig, key: str, links: bool) -> None:
        self._file, self._instances = file, CocoFile(file, options.classes, key)

    def __call__(
        self, image: str, mask: str | None, width: int, height: int, turned: bool = False
    ) -> tuple[Pixels, set[str]]:
        require_upright(turned)
        return self._instances.read(image, width, height)

    def require(self, image: str, mask: str | None) -> None:
        if not self._instances.has(image):
            raise DataError(f"{self._file.name} has no image of this name")

    def fault(self, some: bool = False) -> str:
        return ""


class _Chexlocalize:
    """CheXlocalize's JSON {image: {finding: run lengths}}; a class is findings."""

    def __init__(self, file: Path, options: TaskConfig, key: str, links: bool) -> None:
        self._file, self._classes = file, options.classes
        self._findings = FindingFiles([file], f"{key}.masks")
        for members in self._classes.values():
            self._findings.require(map(str, members))

    def __call__(
        self, image: str, mask: str | None, width: int, height: int, turned: bool = False
    ) -> tuple[Pixels, set[str]]:
        require_upright(turned)
        entry = self._entry(image)
        result = np.zeros((len(self._classes), height, width), np.uint8)
        for channel, findings in zip(result, self._classes.values(), strict=True):
            for finding in findings:
                try:
                    area = self._findings.mask(entry, str(finding), width, height)
                except DataError as error:
                    raise DataError(f"{finding!r}: {error}") from None
                if area is not None:
                    channel[area] = 1
        return result, set(entry)

    def require(self, image: str, mask: str | None) -> None:
        self._entry(image)

    def _entry(self, image: str) -> Entry:
        entry = self._findings.find(image)
        if entry is None:
            raise DataError(f"{self._file.name} has no image of this name")
        return entry

    def fault(self, some: bool = False) -> str:
        return ""


#: The forms that true masks of a task may have: ``encoding`` -> reader of a folder or file.
_FORMS: dict[str, Callable[[Path, TaskConfig, str, bool], Reader]] = {
    "index": _Pictures,
    "bits": _Pictures,
    "files": _Files,
    "coco": _Coco,
    "chexlocalize": _Chexlocalize,
}
