"""CheXlocalize's JSON: run lengths by image and finding; and what other files share with it."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dollmaker.pixels.mask_forms import ImageFacts, OneFile, Pixels
from dollmaker.pixels.masks import require_upright
from dollmaker.runtime import encoding
from dollmaker.runtime.errors import DataError
from dollmaker.store import rle

Mask = npt.NDArray[np.bool_]

#: CheXpert's name -> CheXlocalize's (Saporta et al. 2022).
_ALIASES = {"Lung Opacity": "Airspace Opacity"}


class FindingFiles(OneFile):
    """``{image: {finding: {"size": [h, w], "counts": COCO's RLE}}}``, from one or more files.

    What several files say of an image is joined. A finding that occurs in no entry of any file is
    unknown everywhere; one that occurs somewhere but not in an image's entry is absent there. It is
    called by the files' name or by CheXpert's. Names are findings, or classes of several.

    Raises:
        DataError: If a file is missing or not of the form, if two disagree on a mask, or if they
            tell of no finding of a class.
    """

    def __init__(
        self, files: Sequence[Path], key: str, classes: Mapping[str, Sequence[Any]] | None = None
    ) -> None:
        self._entries, self._classes = _join(files, key), classes
        self._named = {name for entry in self._entries.values() for name in entry}
        self._what = ", ".join(file.name for file in files)
        super().__init__(self._entries, f"entries of {self._what}")
        self.lack = f"{self._what} has no image of this name"
        for members in (classes or {}).values():
            self.require_told(map(str, members))

    def tells(self, image: ImageFacts, name: str) -> bool:
        """See :meth:`Form.tells`."""
        return self._called(name) is not None

    def area(self, image: ImageFacts, name: str) -> Pixels | None:
        """See :meth:`Form.area`."""
        found = self.entry(image)
        if found is None:
            return None
        require_upright(image.turned)
        entry = self._entries[found]
        self.seen |= set(entry)
        members = [name] if self._classes is None else [str(one) for one in self._classes[name]]
        if not any(map(self._called, members)):
            return None
        channel = np.zeros((image.height, image.width), np.uint8)
        for member in members:
            finding = self._called(member)
            if finding in entry:
                channel |= self._paint(entry[finding], member, image)
        return channel

    def _paint(self, code: Any, member: str, image: ImageFacts) -> Mask:
        try:
            return paint_runs(code, image.width, image.height)
        except DataError as error:
            if self._classes is None:
                raise
            raise DataError(f"{member!r}: {error}") from None

    def require_told(self, findings: Iterable[str]) -> None:
        """Refuse files that tell of none of these findings."""
        known = [self._called(finding) or finding for finding in findings]
        require_called(known, self._named, self._what)

    def _called(self, finding: str) -> str | None:
        names = (called(name, self._named) for name in (finding, _ALIASES.get(finding, finding)))
        return next((name for name in names if name), None)


def _join(files: Sequence[Path], key: str) -> dict[str, dict[str, Any]]:
    """Image -> finding -> code, of all files."""
    joined: dict[str, dict[str, Any]] = {}
    for file in files:
        content = read_object(file, key)
        if not all(isinstance(entry, dict) for entry in content.values()):
            raise DataError(
                f"{file} is not of the form {{image: {{finding: RLE}}}}; use CheXlocalize's "
                "gt_segmentations files."
            )
        for image, entry in content.items():
            known = joined.setdefault(image, {})
            for finding, code in entry.items():
                if known.setdefault(finding, code) != code:
                    raise DataError(
                        f"{file} has another mask of {finding[:80]!r} in {image[:80]!r} than a "
                        f"file before it; keep one of the two in {key}."
                    )
    return joined


def read_object(file: Path, key: str) -> dict[str, Any]:
    """Read a file that is one JSON object; ``key`` names it in the configuration.

    Raises:
        DataError: If it is missing, is not JSON, or names one thing twice.
    """
    try:
        text = encoding.decode(file.read_bytes())
        content = json.loads(text, object_pairs_hook=_unique)
    except FileNotFoundError:
        raise DataError(f"{file} does not exist; correct {key} or data_root.") from None
    except DataError as error:
        raise DataError(f"{file} has {error}; keep one of the two.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file} is not JSON ({error}); download or export it again.") from None
    if not isinstance(content, dict):
        raise DataError(f"{file} is not of the form {{...}}, one JSON object; export it again.")
    return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; of a name that is there twice, JSON itself would keep the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise DataError(f"the name {twice[:80]!r} twice in one object")
    return found


def called(name: str, names: Collection[str]) -> str | None:
    """A finding as a file calls it: by its name, or the only one that differs in case alone."""
    if name in names:
        return name
    same = [other for other in names if other.casefold() == name.casefold()]
    return same[0] if len(same) == 1 else None


def require_called(wanted: Iterable[str], names: Collection[str], what: str) -> None:
    """Refuse a file that tells of other findings only; one without any tells of no image either."""
    asked = list(wanted)
    if names and asked and not any(called(name, names) for name in asked):
        there, here = (", ".join(sorted(set(some))[:20])[:300] for some in (names, asked))
        raise DataError(
            f"{what} tells of {there}, of none of the findings {here}; call findings alike."
        )


def whole(value: Any) -> int | None:
    """A number of pixels as JSON has it: 64, 64.0 or "64"; ``None`` if it is none."""
    if isinstance(value, str):
        return int(value) if value.isascii() and value.isdigit() and len(value) < 10 else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value // 1:
        return None
    return int(value)


def require_size(size: tuple[int | None, int | None], width: int, height: int) -> None:
    """Refuse what was drawn on a picture of another size, or of a size that is not known."""
    if size != (width, height):
        drawn = "unknown size" if None in size else f"{size[0]}x{size[1]} pixels"
        raise DataError(f"{drawn}, its image has {width}x{height}")


def paint_runs(code: Any, width: int, height: int) -> Mask:
    """The area (height, width) of ``{"size": [height, width], "counts": text or numbers}``."""
    if not isinstance(code, dict) or not isinstance(code.get("counts"), (str, list)):
        raise DataError("not a COCO run-length code")
    size = code.get("size")
    sides = [whole(side) for side in size] if isinstance(size, list) else []
    drawn = (sides[1], sides[0]) if len(sides) == 2 else (None, None)
    require_size(drawn, width, height)
    return rle.decode(code["counts"], height, width)
