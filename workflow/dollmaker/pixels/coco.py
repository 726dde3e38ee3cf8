"""COCO's JSON of instances, as labelling services and mergers of files write it."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dollmaker.pixels.chexlocalize import Mask, paint_runs, read_object, require_size, whole
from dollmaker.pixels.mask_forms import ImageFacts, OneFile, Pixels
from dollmaker.pixels.masks import require_upright
from dollmaker.pixels.names import posix
from dollmaker.runtime.errors import ConfigError, DataError

#: Width and height in pixels; ``None`` where the file does not say.
Size = tuple[int | None, int | None]


class CocoFile(OneFile):
    """Polygons or run lengths of instances; a class is categories by name or by number.

    Numbers match whether they are written as numbers or as text. A category's name under two
    numbers is one category, an image listed twice is one image with the instances of both. What is
    no name of a category in ``classes`` is its number.

    Raises:
        DataError: If it is missing or not of the form, if a number stands for two things, or if an
            instance is of an image or a category that is not listed.
        ConfigError: If it is not clear which category a number means, or none is of a class.
    """

    def __init__(self, file: Path, classes: Mapping[str, Sequence[int | str]], key: str) -> None:
        content = read_object(file, f"{key}.masks")
        try:
            self._categories = _read_categories(content)
            self._sizes, owners = _read_images(content)
            instances = list(_read_instances(content))
        except DataError as error:
            raise DataError(
                f"{file} is not COCO's JSON of instances ({error}); export it again."
            ) from None
        super().__init__(self._sizes, f"images of {file.name}")
        self._wanted = {
            name: {number for one in some for number in _find(self._categories, one, file, key)}
            for name, some in classes.items()
        }
        asked = {number for numbers in self._wanted.values() for number in numbers}
        used = {category for _, category, _ in instances}
        for name, numbers in self._wanted.items():
            if not numbers & (used | set(self._categories)):
                raise ConfigError(
                    f"{key}.classes.{name}: none of {[*classes[name]]} is a category of {file}; "
                    f"there are {', '.join(sorted(set(self._categories.values())))[:300]}."
                )
        _require_whole_categories(self._categories, asked, used, file, key)
        _require_listed(instances, set(owners), asked | set(self._categories), file)
        self._instances: dict[str, list[tuple[str, Any]]] = defaultdict(list)
        for image, category, code in instances:
            self._instances[owners[image]].append((category, code))
        self.lack = f"{file.name} has no image of this name"

    def area(self, image: ImageFacts, name: str) -> Pixels | None:
        """See :meth:`Form.area`."""
        found = self.entry(image)
        if found is None:
            return None
        require_upright(image.turned)
        require_size(self._sizes[found], image.width, image.height)
        channel = np.zeros((image.height, image.width), np.uint8)
        for number, code in self._instances[found]:
            category = self._categories.get(number, number)
            self.seen.add(category)
            if number in self._wanted[name]:
                channel |= _paint(code, category, image.width, image.height)
        return channel


def _paint(code: Any, category: str, width: int, height: int) -> Mask:
    if code == []:
        raise DataError(f"an instance of {category[:80]!r} has a box at most but no outline")
    try:
        draw = paint_runs if isinstance(code, dict) else _paint_polygons
        return draw(code, width, height)
    except DataError as error:
        raise DataError(f"an instance of {category[:80]!r}: {error}") from None


def _read_categories(content: Mapping[str, Any]) -> dict[str, str]:
    """Number -> name."""
    found: dict[str, str] = {}
    for place, entry in _entries(content, "categories"):
        number, name = _number(entry, "id", place), _text(entry, "name", place)
        if found.setdefault(number, name) != name:
            raise DataError(
                f"category {number[:40]} is called {found[number][:80]!r} and {name[:80]!r}"
            )
    return found


def _read_images(content: Mapping[str, Any]) -> tuple[dict[str, Size], dict[str, str]]:
    """Name -> size, and number -> name."""
    sizes: dict[str, Size] = {}
    names: dict[str, str] = {}
    for place, entry in _entries(content, "images"):
        number = _number(entry, "id", place)
        name = posix(_text(entry, "file_name", place))
        size = whole(entry.get("width")), whole(entry.get("height"))
        if sizes.setdefault(name, size) != size:
            raise DataError(f"image {name[:80]!r} is listed twice, with different sizes")
        if names.setdefault(number, name) != name:
            raise DataError(
                f"image {number[:40]} is called {names[number][:80]!r} and {name[:80]!r}"
            )
    return sizes, names


def _read_instances(content: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Image's number, category's number and segmentation of each instance."""
    for place, entry in _entries(content, "annotations"):
        code = entry.get("segmentation")
        image, category = (_number(entry, key, place) for key in ("image_id", "category_id"))
        yield image, category, [] if code is None else code


def _entries(content: Mapping[str, Any], key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each object of a list, with its place for messages."""
    entries = content.get(key)
    if not isinstance(entries, list):
        raise DataError(f"it lacks the list {key!r}")
    for k, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise DataError(f"{key}[{k}] is no object")
        yield f"{key}[{k}]", entry


def _number(entry: Mapping[str, Any], key: str, place: str) -> str:
    """A number as text, the same for 1, 1.0, "1" and "1.0"."""
    return _plain(_text(entry, key, place))


def _plain(number: str) -> str:
    return re.sub(r"^(-?\d+)\.0+$", r"\1", number)


def _text(entry: Mapping[str, Any], key: str, place: str) -> str:
    """A number or a text, as text."""
    if key not in entry:
        raise DataError(f"{place} lacks {key!r}")
    value = entry[key]
    if isinstance(value, float) and value.is_integer():
        return f"{value:.0f}"
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise DataError(f"{key!r} of {place} is neither a whole number nor text")
    return str(value).strip()


def _find(categories: Mapping[str, str], member: int | str, file: Path, key: str) -> set[str]:
    """Numbers of the categories that a member of a class means, by name before by number."""
    text = str(member)
    named = {number for number, name in categories.items() if name == text}
    if isinstance(member, int) and named and text in categories and text not in named:
        other = categories[text][:80]
        raise ConfigError(
            f"{key}.classes: {text} is the number of the category {other!r} of {file} and the name "
            f"of another; write {other!r}, or {text!r} in quotes."
        )
    return named or {_plain(text)}


def _require_whole_categories(
    categories: Mapping[str, str], asked: set[str], used: set[str], file: Path, key: str
) -> None:
    """Refuse to take one number of a category that has instances under two."""
    names = {categories[number] for number in asked if number in categories}
    for number in sorted(used - asked):
        if categories.get(number) in names:
            raise ConfigError(
                f"{key}.classes asks for a number of the category {categories[number][:80]!r}, "
                f"which {file} also has under the number {number[:40]}; ask for it by name."
            )


def _require_listed(
    instances: Sequence[tuple[str, str, Any]], images: set[str], categories: set[str], file: Path
) -> None:
    """Refuse a file with instances of what it does not list."""
    lost = {
        "images": [image for image, _, _ in instances if image not in images],
        "categories": [category for _, category, _ in instances if category not in categories],
    }
    told = [
        f"{len(numbers)} of {what} that it does not list (the first is {numbers[0][:40]!r})"
        for what, numbers in lost.items()
        if numbers
    ]
    if told:
        raise DataError(
            f"{file} has annotations, {' and '.join(told)}; list these, or remove the annotations."
        )


def _paint_polygons(code: Any, width: int, height: int) -> Mask:
    """``[[x, y, x, y, ...], ...]``, in pixels of the picture."""
    from pycocotools import mask as coco

    try:
        polygons = [np.asarray(points, np.float64).ravel() for points in code]
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"no readable segmentation ({str(error)[:100]})") from None
    for points in polygons:
        _check_polygon(points, width, height)
    if not polygons:
        return np.zeros((height, width), bool)
    merged = coco.merge(coco.frPyObjects([points.tolist() for points in polygons], height, width))
    return np.asarray(coco.decode(merged) != 0)


def _check_polygon(points: npt.NDArray[np.float64], width: int, height: int) -> None:
    """Refuse what pycocotools would overflow at, or spend all memory on."""
    if len(points) < 6 or len(points) % 2:
        raise DataError("a polygon has less than three corners")
    if not np.isfinite(points).all():
        raise DataError("a polygon has a corner that is not finite")
    if points.min() >= 0 and points.max() <= 1 < min(width, height):
        raise DataError("a polygon's corners are shares of the sides (none is over 1), not pixels")
    corners = points.reshape(-1, 2)
    sides = np.array([width, height])
    if (corners < -sides).any() or (corners > 2 * sides).any():
        raise DataError(f"a polygon lies far outside of {width}x{height} pixels")
    # pycocotools holds every pixel along the outline; no mask's own outline is longer.
    steps = np.abs(corners - np.roll(corners, 1, axis=0)).max(axis=1)
    if steps.sum() > 4 * (width + 1) * (height + 1):
        raise DataError("a polygon crosses its picture again and again")
