"""Forms of true masks: how a set of files says where a name is in an image.

A name is a finding, a target of scores or a class of a task. Here is what every form answers, and
the forms of a picture or more for each image; those of one file for all images are
:mod:`dollmaker.pixels.chexlocalize`, :mod:`dollmaker.pixels.coco` and
:mod:`dollmaker.pixels.boxes`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dollmaker.pixels.formats import MAX_PIXELS
from dollmaker.pixels.levels import Numbers, objects
from dollmaker.pixels.masks import IGNORE, Ints, read_mask
from dollmaker.pixels.names import Names, list_pictures
from dollmaker.runtime.errors import DataError
from dollmaker.store.files import inside, safe_name

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """The image that a mask is of."""

    path: str  #: Its file, relative to the folder of images.
    width: int = 0  #: In pixels, upright; 0 where masks are looked for by names alone.
    height: int = 0  #: Likewise.
    turned: bool = False  #: Whether it was turned by its EXIF tag.
    identifier: str | None = None  #: Its ``image_id``, which a mask may be called by.
    mask: str | None = None  #: The file of its mask, if a table names it.
    split: str = ""  #: train, valid or test; masks may lie in folders of these names.


class Form(ABC):
    """True masks of many images."""

    #: What is wrong with an image that needs a mask and has none, part of a sentence.
    lack = "file is missing"

    def __init__(self) -> None:
        #: The names or numbers in the masks that were read, as the files have them.
        self.seen: set[str] = set()

    @abstractmethod
    def has(self, image: ImageFacts, name: str | None = None) -> bool:
        """Whether there is a mask of an image (and of a name, in a form with one for each).

        Names of files and entries alone tell it.

        Raises:
            DataError: If the mask is missing that a table names, or one fits two images.
        """

    @abstractmethod
    def area(self, image: ImageFacts, name: str) -> Pixels | None:
        """Where a name is in an image.

        Returns:
            uint8 (height, width) of the image: 1 there, 0 not, 255 ignore; ``None`` where nothing
            is known.

        Raises:
            DataError: If the mask is damaged or of another size than the image: the reason, part
                of a sentence.
        """

    def tells(self, image: ImageFacts, name: str) -> bool:
        """Whether images like this have masks of a name: one without may then have none of it."""
        return True

    def fault(self, some: bool = False) -> str:
        """What is wrong with the masks, of which ``some`` or all were read; empty if nothing is."""
        return ""

    def unnamed(self) -> list[int]:
        """Numbers in the masks that were read that no name asks for: background."""
        return []

    def require(self, image: ImageFacts) -> None:
        """Refuse an image without a mask, by names alone."""
        if not self.has(image):
            raise DataError(self.lack)

    def channels(self, image: ImageFacts, names: Iterable[str]) -> Pixels:
        """Where K names are in an image that needs a mask, uint8 (K, height, width)."""
        self.require(image)
        nothing = np.zeros((image.height, image.width), np.uint8)
        areas = (self.area(image, name) for name in names)
        return np.stack([nothing if area is None else area for area in areas])


class OneFile(Form):
    """Masks of many images in one file; its entries are called as the images are."""

    def __init__(self, names: Iterable[str], what: str) -> None:
        super().__init__()
        self._names = Names(names, what)

    def has(self, image: ImageFacts, name: str | None = None) -> bool:
        """See :meth:`Form.has`."""
        return self.entry(image) is not None

    def entry(self, image: ImageFacts) -> str | None:
        """The name of an image's entry, see :meth:`dollmaker.pixels.names.Names.find`."""
        return self._names.find(image.path, image.identifier)


class Folder:
    """A folder of masks, listed once when the first is looked for; ``links`` may leave it.

    With ``named`` only masks that a table names count; else a mask may be called as its image.
    """

    def __init__(self, path: Path, *, links: bool, named: bool = False) -> None:
        self.path, self._links, self._named = path, links, named
        self._names: Names | None = None

    def find(self, image: ImageFacts) -> Path | None:
        """The mask of an image; ``None`` if there is none.

        Raises:
            DataError: If two fit the image, one fits two images, or the path leaves the folder.
        """
        mask = image.mask if image.mask or self._named else self._called(image)
        path = None if mask is None else inside(self.path, mask, self._links)
        return path if path is not None and path.is_file() else None

    def _called(self, image: ImageFacts) -> str | None:
        """The mask that is called as its image: by path, identifier or that as a harmless name."""
        if self._names is None:
            self._names = Names(list_pictures(self.path), f"masks of {self.path}")
        if image.identifier is None:
            return self._names.find(image.path)
        name = self._names.find(image.path, image.identifier)
        return name or self._names.find(image.path, safe_name(image.identifier))


class Pictures(Form):
    """One picture an image: a pixel holds a class number, or a sum of class bits."""

    def __init__(self, folder: Folder, numbers: Numbers, max_pixels: int = MAX_PIXELS) -> None:
        super().__init__()
        self._folder, self._numbers, self._max_pixels = folder, numbers, max_pixels
        self._last: tuple[ImageFacts, Ints] | None = None

    def has(self, image: ImageFacts, name: str | None = None) -> bool:
        """See :meth:`Form.has`."""
        if (self._last is not None and self._last[0] == image) or self._folder.find(image):
            return True
        if image.mask is not None:
            raise DataError(self.lack)
        return False

    def area(self, image: ImageFacts, name: str) -> Pixels | None:
        """See :meth:`Form.area`."""
        if self._last is None or self._last[0] != image:
            path = self._folder.find(image)
            if path is None:
                return None
            self._last = image, self._read(path, image)
        values, ignore = self._last[1], self._numbers.ignore
        channel = self._numbers.area(values, name).astype(np.uint8)
        if ignore is not None:
            channel[values == ignore] = IGNORE
        return channel

    def _read(self, path: Path, image: ImageFacts) -> Ints:
        size = image.width, image.height
        picture = read_mask(path, size=size, turned=image.turned, max_pixels=self._max_pixels)
        values = self._numbers.read(picture)
        self.seen |= {str(value) for value in self._numbers.seen}
        return values

    def fault(self, some: bool = False) -> str:
        """See :meth:`Form.fault`."""
        return self._numbers.fault(some)

    def unnamed(self) -> list[int]:
        """See :meth:`Form.unnamed`."""
        return self._numbers.unnamed()


class PartFiles(Form):
    """A picture for each part of each name, in folders of the parts (as SCR has organs).

    A name is where a picture of it is not black. What a picture says to ignore, by that number, is
    ignored in its name, where no other part of it is. Parts are name -> part -> its folder.
    """

    lack = "file is missing in every class's folder"

    def __init__(
        self, parts: Mapping[str, Mapping[str, Folder]], ignore: int | None = None
    ) -> None:
        super().__init__()
        self._parts, self._ignore = parts, ignore

    def has(self, image: ImageFacts, name: str | None = None) -> bool:
        """See :meth:`Form.has`."""
        names = self._parts if name is None else [name]
        found = [folder.find(image) for each in names for folder in self._parts[each].values()]
        return any(found)

    def area(self, image: ImageFacts, name: str) -> Pixels | None:
        """See :meth:`Form.area`."""
        channel, found = np.zeros((image.height, image.width), np.uint8), False
        for part, folder in self._parts[name].items():
            path = folder.find(image)
            if path is not None:
                picture = read_mask(path, size=(image.width, image.height), turned=image.turned)
                ignored = picture.is_number(self._ignore)
                channel[ignored & (channel == 0)] = IGNORE
                channel[objects(picture) & ~ignored] = 1
                self.seen.add(part)
                found = True
        return channel if found else None

    def fault(self, some: bool = False) -> str:
        """See :meth:`Form.fault`."""
        for name, parts in self._parts.items():
            if not any(folder.path.is_dir() for folder in parts.values()):
                return f"{name!r} has no folder {' or '.join(parts)} beside the others"
        return ""
