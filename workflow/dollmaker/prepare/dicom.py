"""A tree of DICOM studies: patients and views are in the headers, labels in a table.

The pictures are written under names that are made of those in the headers by a key, so that no name
of a patient, study or image goes further than this.
"""

import hmac
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from dollmaker.config.sources import DicomConfig, PrepareConfig
from dollmaker.pixels import names
from dollmaker.pixels.dicom import Header, read_header, starts_as_dicom
from dollmaker.pixels.names import Tree, walk
from dollmaker.pixels.pictures import read_channels
from dollmaker.prepare.listing import Item, Piece, check_names, filled, labels, patients
from dollmaker.runtime.errors import ConfigError, DataError
from dollmaker.store import tables
from dollmaker.store.files import inside, safe_name, sha256_file

#: What a row of the labels may be of -> the element of the header.
_ELEMENTS = {"patient": "PatientID", "study": "StudyInstanceUID", "image": "SOPInstanceUID"}

#: Suffixes of files that are broken if they do not begin as DICOM, in small letters.
_SUFFIXES = {".dcm", ".dicom", ".ima"}

#: Columns of the converted table that no finding may be called as.
_OWN = ("image", "patient")

#: Signs that a key has at least.
_SHORTEST = 16

#: Digits of a name, 64 bits: two of a million names are alike in one of 37 million sets.
_DIGITS = 16

#: Files of which the headers are read before the first job, spread over the tree.
_LOOK = 300

#: Finding -> label, ``None`` where it is not mentioned.
Labels = dict[str, int | None]


class _File(NamedTuple):
    """An image: its path below the tree, and its header."""

    path: str
    header: Header


@dataclass
class _Found:
    """What was found in a tree."""

    images: list[_File] = field(default_factory=list)  #: Images to use, with their header.
    #: Files that could be images to use, and why they cannot be used.
    broken: list[tuple[str, str]] = field(default_factory=list)
    #: What was not asked for -> number of files.
    skipped: Counter[str] = field(default_factory=Counter)


class Place(NamedTuple):
    """The folder of the source data, and whether links may leave it."""

    root: Path
    links: bool

    def walk(self, options: DicomConfig) -> Tree:
        """What lies in the folder of the studies."""
        return walk(self.root, names.posix(options.folder) or ".", self.links)


def list_items(options: DicomConfig, prepare: PrepareConfig, place: Place) -> list[Item]:
    """One item per image of the modalities and views asked for that has labels.

    What was left out beside them is said on standard error, with numbers.

    Raises:
        ConfigError: If the key is missing or too short.
        DataError: If the table or the folder is not as described, no image is left, or the headers
            do not tell patients apart.
    """
    call, rows = _caller(options, place), _read_labels(options, place)
    tree = place.walk(options)
    opened = partial(_open, tree, place)
    found = _choose(opened, tree.files, options, rows)
    _require_some(found, tree, options, rows)
    _require_patients(found.images, options)
    _tell(found, options, rows)
    items: dict[str, Item] = {}
    for path, header in found.images:
        name = call("image", header.image)
        if name in items:
            raise DataError(f"two images are called {name!r}; take another key (source.dicom.key).")
        of = header.study if options.patient == "study" else names.patient(header.patient)
        known = rows[_row_of(header, options)]
        make = partial(_make, opened(path), name, known, header.frames, prepare)
        view = header.view.lower() or None
        items[name] = Item(source=path, patient=call("patient", of), make=make, view=view)
    broken = [
        Item(source=path, patient="", make=partial(_refuse, reason))
        for path, reason in found.broken
    ]
    # The order of files is often that of patients and dates, which a released table would tell.
    return [*(items[name] for name in sorted(items)), *broken]


def look(options: DicomConfig, place: Place) -> None:
    """As :func:`list_items`, by the headers of at most some hundred files: in seconds."""
    _caller(options, place)
    rows, tree = _read_labels(options, place), place.walk(options)
    files = tree.files[:: -(-len(tree.files) // _LOOK) or 1]
    found = _choose(partial(_open, tree, place), files, options, rows)
    if len(files) == len(tree.files):
        _require_some(found, tree, options, rows)
        _require_patients(found.images, options)
    else:
        _require_named(found.images, options)


def _caller(options: DicomConfig, place: Place) -> Callable[[str, str], str]:
    """Gives an image or a patient its name, from the kind of thing and its name in the header."""
    if options.keep_ids:
        return lambda kind, text: safe_name(text) if kind == "image" else text
    file = inside(place.root, options.key or "", place.links)
    try:
        key = file.read_bytes().strip()
    except OSError as error:
        raise ConfigError(
            f"the key {file} cannot be read ({error.strerror}); make one (openssl rand -hex 32 > "
            f"{file}) or correct source.dicom.key."
        ) from None
    if len(key) < _SHORTEST:
        raise ConfigError(
            f"the key {file} has {len(key)} signs, and {_SHORTEST} are too few to guess; make one "
            f"(openssl rand -hex 32 > {file})."
        )

    def call(kind: str, text: str) -> str:
        what = f"dollmaker {kind} {text}".encode(errors="backslashreplace")
        return kind[0] + hmac.new(key, what, "sha256").hexdigest()[:_DIGITS]

    return call


def _read_labels(options: DicomConfig, place: Place) -> dict[str, Labels]:
    """Name of a patient, study or image -> its labels; refuses rows that are at odds."""
    file, by = inside(place.root, options.labels, place.links), options.by
    column, findings = options.id_column or _ELEMENTS[by], options.finding_columns
    table = tables.read_source(file)
    tables.require_columns(table, [column, *findings], file)
    check_names(findings, str(file), more=_OWN)
    ids = (patients if by == "patient" else filled)(table, column, file)
    values = zip(*(labels(table, name, file) for name in findings), strict=True)
    rows: dict[str, Labels] = {}
    lines: dict[str, int] = {}
    for line, (name, known) in enumerate(zip(ids, values, strict=True), start=2):
        row = dict(zip(findings, known, strict=True))
        if rows.setdefault(name, row) != row:
            raise DataError(
                f"table {file} lines {lines[name]} and {line} give one {column} different labels; "
                "keep one of them."
            )
        lines.setdefault(name, line)
    return rows


def _open(tree: Tree, place: Place, path: str) -> Path:
    """A file of the tree; a link that leaves the data root is refused."""
    file = tree.top / path
    if file.is_symlink():
        if not place.links and not file.resolve().is_relative_to(place.root.resolve()):
            raise DataError("is a link that leaves the data root; put the file there")
        if not file.exists():
            raise DataError("is a link to a file that is not there; fetch it or correct the link")
    return file


def _choose(
    opened: Callable[[str], Path],
    files: Sequence[str],
    options: DicomConfig,
    rows: Mapping[str, Labels],
) -> _Found:
    """Read headers, and choose the images that are asked for and have labels, each once."""
    found, known = _Found(), defaultdict(list)
    views = {view.upper() for view in options.view or ()}
    modalities = {modality.upper() for modality in options.modality}
    for path in files:
        try:
            file = opened(path)
            if not file.is_file() or not starts_as_dicom(file):
                if file.suffix.lower() in _SUFFIXES:
                    raise DataError("is no DICOM file: its mark is missing")
                found.skipped["no DICOM"] += 1
                continue
            header = read_header(file)
        except OSError as error:
            found.broken.append((path, f"cannot be read ({error.strerror})"))
            continue
        except DataError as error:
            if "needs pydicom" in str(error):
                raise DataError(f"{path!r} {error}.") from None
            found.broken.append((path, str(error)))
            continue
        if header is None:
            found.skipped["no image (reports, DICOMDIR)"] += 1
        elif header.modality not in modalities:
            found.skipped[f"modality {header.modality or 'not told'}"] += 1
        elif views and header.view not in views:
            found.skipped[f"view {header.view or 'not told'}"] += 1
        elif _row_of(header, options) not in rows:
            found.skipped[f"no row of {options.labels}"] += 1
        elif not header.image:
            found.broken.append((path, "has no SOPInstanceUID"))
        else:
            known[header.image].append(_File(path, header))
    for same in known.values():
        found.images.append(same[0])
        first = sha256_file(opened(same[0].path)) if len(same) > 1 else ""
        for path, _ in same[1:]:
            if sha256_file(opened(path)) == first:
                found.skipped["copies of others"] += 1
            else:
                found.broken.append((path, f"has the SOPInstanceUID of {same[0].path!r}"))
    return found


def _row_of(header: Header, options: DicomConfig) -> str:
    """The name of the row of the labels that an image belongs to; empty if its header lacks it."""
    if options.by == "patient":
        return names.patient(header.patient)
    return header.study if options.by == "study" else header.image


def _require_some(
    found: _Found, tree: Tree, options: DicomConfig, rows: Mapping[str, Labels]
) -> None:
    if found.images:
        return
    if not found.skipped and found.broken:
        path, reason = found.broken[0]
        raise DataError(f"no file below {tree.top} can be read: {path!r} {reason}; mend them.")
    shown = ", ".join(f"{what} {count:,}" for what, count in found.skipped.most_common(6))
    column = options.id_column or _ELEMENTS[options.by]
    raise DataError(
        f"no image is left of {len(tree.files)} files below {tree.top} ({shown}); correct folder, "
        f"modality or view of source.dicom, or the column {column!r} of the labels, of which the "
        f"first is {next(iter(rows))!r}."
    )


def _require_named(images: Sequence[_File], options: DicomConfig) -> None:
    key, remedy = "patient", "set source.dicom.patient: study to keep studies whole"
    if options.patient == "study":
        key, remedy = "study", "mend it"
    if lack := [path for path, header in images if not getattr(header, key)]:
        raise DataError(
            f"{len(lack)} of {len(images)} images have no {_ELEMENTS[key]} in their header, e.g. "
            f"{lack[0]!r}; {remedy}."
        )


def _require_patients(images: Sequence[_File], options: DicomConfig) -> None:
    _require_named(images, options)
    people, studies = ({getattr(h, key) for _, h in images} for key in ("patient", "study"))
    if options.patient == "header" and len(people) == 1 < len(studies):
        raise DataError(
            f"all {len(images)} images of {len(studies)} studies have the same PatientID, as "
            "anonymised ones do, and would be in one split; set source.dicom.patient: study if "
            "studies are of different patients."
        )


def _tell(found: _Found, options: DicomConfig, rows: Mapping[str, Labels]) -> None:
    seen = {_row_of(header, options) for _, header in found.images}
    people, studies = ({getattr(h, key) for _, h in found.images} for key in ("patient", "study"))
    lines = [
        f"{len(found.images):,} images of {len(people):,} patients and {len(studies):,} studies."
    ]
    if found.skipped:
        shown = ", ".join(f"{what} {count:,}" for what, count in found.skipped.most_common())
        lines.append(f"{found.skipped.total():,} files are left out: {shown}.")
    if len(seen) < len(rows):
        lines.append(f"{len(rows) - len(seen):,} of {len(rows):,} labels are of no image.")
    if burned := sum(header.burned_in for _, header in found.images):
        lines.append(
            f"the headers of {burned:,} images say that text is burned into the pixels: look for "
            "names before you show pictures (release.pictures)."
        )
    for line in lines:
        print(f"dicom: {line}", file=sys.stderr, flush=True)


def _make(path: Path, name: str, known: Labels, frames: int, prepare: PrepareConfig) -> list[Piece]:
    if frames > 1:
        raise DataError(f"holds {frames} frames, and one is an image; save each as a file")
    picture = read_channels(path, channels=None, bits=prepare.bits, max_pixels=prepare.max_pixels)
    return [Piece(name=name, image=picture.pixels, mask=None, labels=known)]


def _refuse(reason: str) -> list[Piece]:
    raise DataError(reason)
