"""A folder of class folders, as torchvision's ImageFolder reads it: the folder is the label."""

import re
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from dollmaker.config.sources import FolderConfig, PrepareConfig
from dollmaker.config.whole import Config
from dollmaker.pixels import names
from dollmaker.pixels.names import Tree, pictures, walk
from dollmaker.prepare.listing import (
    MOST_CLASSES,
    Listing,
    assign,
    check_names,
    folded,
    require_told_apart,
)
from dollmaker.runtime.errors import ConfigError, DataError, unknown
from dollmaker.store.files import sha256_file

#: How folders of splits are called, in small letters, and the split that they are.
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}

#: Classes that sound like the absence of a finding, as :func:`folded` writes them.
_NEGATIVE = {
    *("normal", "negative", "neg", "healthy", "nofinding", "nofindings", "none", "no", "nothing"),
    *("0", "control", "controls", "absent"),
}

#: Folders of masks within a class, and a mask beside its image.
_MASK = r"(?:masks?|gt|ground[ _-]?truths?|seg|segmentations?|anno|annotations?)"
_MASK_FOLDER = re.compile(_MASK, re.IGNORECASE)
_MASK_FILE = re.compile(rf"(.+?)[ _-]{_MASK}(?:[ _-]?\d+)?", re.IGNORECASE)


class _Image(NamedTuple):
    """An image: path below the folder, class, and the split that its folder says."""

    path: str
    label: str
    split: str | None


def read_folder(options: FolderConfig, config: Config, data_root: Path) -> Listing:
    """List the images of class folders; what was taken for what is said on standard error.

    An image has 1 for the class that its folder is called, at whatever depth it lies in it, and 0
    for the others. The class ``negative`` is no finding.

    Raises:
        ConfigError: If an option does not fit the folder.
        DataError: If the folder has no two classes, or a label cannot be told.
    """
    root, links = names.posix(options.root) or ".", config.allow_links
    tree = walk(data_root, root, links, config.truth.folder if config.truth else None)
    found = pictures(tree)
    given = _splits_given(tree, found, options.splits)
    images, masks = _without_masks(found, given)
    placed, loose = _place(images, given)
    classes = _classes(tree, placed, given)
    findings = _findings(classes, options.negative)
    check_names(findings, f"the class folders of {tree.top}")
    opened = [image for image in placed if links or not (tree.top / image.path).is_symlink()]
    _require_one_label(tree.top, opened)
    paths = [image.path for image in placed]
    ids = names.image_ids(paths)
    people = _patients(paths, options.patient) if options.patient else ids
    splits = _splits(placed, people, config.prepare)
    _tell_counts(classes, splits, given, options)
    _tell_left_out(tree, masks, loose, set(found))
    labels = pl.Series([image.label for image in placed])
    columns = {
        "image_id": ids,
        "path": paths if root == "." else [f"{root}/{path}" for path in paths],
        "patient_id": people,
        "split": splits,
        **{name: (labels == name).cast(pl.Int8) for name in findings},
    }
    return pl.DataFrame(columns), findings


def _splits_given(tree: Tree, images: Sequence[str], splits: str) -> bool:
    """Whether the folders at the top are splits; refuses those that are so only in part."""
    tops = list(dict.fromkeys(path.split("/")[0] for path in images if "/" in path))
    known = [top for top in tops if top.lower() in _SPLITS]
    trains = any(_SPLITS[top.lower()] == "train" for top in known)
    looks_so = bool(known) and (tops == known or (trains and len(known) > 1))
    if splits == "hash" or (splits == "auto" and not looks_so):
        return False
    if not trains:
        raise DataError(
            f"folder {tree.top} has no folder train with images; name the folders train, valid and "
            "test, or set source.folder.splits: hash if the classes lie there."
        )
    if others := [top for top in tops if top not in known]:
        raise DataError(
            f"folder {tree.top} holds {others[0]!r} beside {', '.join(known)}; move it away to "
            "have these taken as splits, or set source.folder.splits: hash if all are classes."
        )
    if not any(path.count("/") > 1 for path in images):
        raise DataError(
            f"the pictures below {tree.top} lie in {', '.join(known)} without a class folder; make "
            "one for each class there, or set source.folder.splits: hash if these are the classes."
        )
    return True


def _without_masks(images: Sequence[str], given: bool) -> tuple[list[str], list[str]]:
    """Pictures, and masks that lie among them: ``COVID/masks/x.png``, ``benign/x_mask.png``."""
    known, above = {names.without_suffix(path) for path in images}, 2 if given else 1
    kept: list[str] = []
    masks: list[str] = []
    for path in images:
        nested = any(map(_MASK_FOLDER.fullmatch, path.split("/")[above:-1]))
        folder, _, stem = names.without_suffix(path).rpartition("/")
        beside = _MASK_FILE.fullmatch(stem)
        is_mask = nested or (beside and f"{folder}/{beside[1]}" in known)
        (masks if is_mask else kept).append(path)
    return kept, masks


def _place(images: Iterable[str], given: bool) -> tuple[list[_Image], list[str]]:
    """The images with their class, and pictures that lie in no class folder."""
    placed, loose = [], []
    for path in images:
        first, *rest = path.split("/")
        split, parts = (_SPLITS.get(first.lower()), rest) if given else (None, [first, *rest])
        if len(parts) < 2:
            loose.append(path)
        else:
            placed.append(_Image(path, _plain(parts[0]), split))
    return placed, loose


def _plain(folder: str) -> str:
    """The name of a class: its folder's, signs in one form, without blanks around it."""
    return unicodedata.normalize("NFC", folder).strip()


def _classes(tree: Tree, placed: Sequence[_Image], given: bool) -> dict[str, int]:
    """Class -> number of images, by name; folders without images are told."""
    counts, depth = Counter(image.label for image in placed), 1 if given else 0
    folders = {path for path in tree.folders if path.count("/") == depth}
    full = {"/".join(image.path.split("/")[: depth + 1]) for image in placed}
    if empty := sorted(folders - full):
        more = f" and {len(empty) - 3:,} more" if len(empty) > 3 else ""
        _say(f"{', '.join(map(repr, empty[:3]))}{more} without images: no class.")
    if not counts:
        raise DataError(
            f"folder {tree.top} has no class folder with a picture that can be read; correct "
            "source.folder.root to the folder that holds one folder for each class."
        )
    if len(counts) == 1:
        raise DataError(
            f"folder {tree.top} has images of one class only, {next(iter(counts))!r}, so that "
            "there is nothing to learn; add a folder of images without it, or correct "
            "source.folder.root if the classes lie deeper."
        )
    if len(counts) > MOST_CLASSES:
        raise DataError(
            f"folder {tree.top} has {len(counts)} class folders, over {MOST_CLASSES}; name the "
            "folder above the classes, not above patients, in source.folder.root."
        )
    written = {unicodedata.normalize("NFC", path.split("/")[depth]) for path in full}
    require_told_apart(written, f"the folders below {tree.top}")
    return {name: counts[name] for name in sorted(counts)}


def _findings(classes: Mapping[str, int], negative: str | None) -> list[str]:
    if negative is not None:
        if _plain(negative) not in classes:
            raise ConfigError(f"source.folder.negative: {unknown('class', negative, classes)}")
        return [name for name in classes if name != _plain(negative)]
    for name in classes:
        if folded(name) in _NEGATIVE:
            _say(
                f"the class {name!r} sounds like the absence of a finding, and is taken for one "
                f"that gets masks; source.folder.negative: {name!r} changes that."
            )
    return list(classes)


def _require_one_label(top: Path, images: Sequence[_Image]) -> None:
    """Refuse files of the same bytes in two classes; only those of one size are read."""
    groups = [list(images)]
    for tell in (lambda path: path.stat().st_size, sha256_file):
        groups = [part for group in groups for part in _divided(top, group, tell)]
    if groups:
        one, *rest = sorted(groups[0])
        other = next(image for image in rest if image.label != one.label)
        raise DataError(
            f"the files {one.path!r} and {other.path!r} below {top} are the same and lie in two "
            f"classes ({len(groups)} such files), so that nobody can tell the label; keep one of "
            "them, or describe the set with a table (source.kind: table), where an image may have "
            "several."
        )


def _divided(
    top: Path, group: Iterable[_Image], tell: Callable[[Path], object]
) -> list[list[_Image]]:
    """Parts of a group that are alike by what is told of the files, and of several classes."""
    parts: dict[object, list[_Image]] = defaultdict(list)
    for image in group:
        try:
            parts[tell(top / image.path)].append(image)
        except OSError:  # the stage that decodes says what is wrong
            continue
    return [part for part in parts.values() if len({image.label for image in part}) > 1]


def _patients(paths: Sequence[str], pattern: str) -> list[str]:
    """The patient of each image: the first group of the pattern, searched in its path."""
    found = [re.search(pattern, path) for path in paths]
    missing = [path for path, match in zip(paths, found, strict=True) if not (match and match[1])]
    if missing:
        raise DataError(
            f"source.folder.patient finds no patient in {len(missing)} of {len(paths)} paths, e.g. "
            f"{missing[0]!r}; correct the pattern."
        )
    return [names.patient(match[1]) for match in found if match]


def _splits(placed: Sequence[_Image], people: Sequence[str], prepare: PrepareConfig) -> list[str]:
    """The split of each image: its folder's, or by a hash of the patient.

    Of given splits, validation or test images that no folder holds are taken from those of train.
    A patient in two splits is refused.
    """
    given = {image.split for image in placed}
    valid = 0.0 if "valid" in given else prepare.valid
    test = 0.0 if "test" in given else prepare.test
    splits: list[str] = []
    known: dict[str, tuple[str, str]] = {}
    for image, patient in zip(placed, people, strict=True):
        held = image.split if image.split in ("valid", "test") else None
        split = held or assign(patient, valid, test)
        other, path = known.setdefault(patient, (split, image.path))
        if other != split:
            raise DataError(
                f"patient {patient!r} has {path!r} in {other} and {image.path!r} in {split}; move "
                "the images of a patient into one split, or correct source.folder.patient."
            )
        splits.append(split)
    return splits


def _tell_counts(
    classes: Mapping[str, int], splits: Sequence[str], given: bool, options: FolderConfig
) -> None:
    found, of_split = [f"{name!r} {count:,}" for name, count in classes.items()], Counter(splits)
    shown = ", ".join(found[:8]) + (", ..." if len(found) > 8 else "")
    listed = ", ".join(f"{split} {of_split[split]:,}" for split in ("train", "valid", "test"))
    how = "as the folders at the top say" if given else "by a hash of the patient"
    _say(f"images of {len(classes)} classes: {shown}; {listed}, {how}.")
    if not options.patient:
        _say(
            "each image is its own patient; if some are of one, give source.folder.patient, a "
            "pattern whose first group is the patient."
        )


def _tell_left_out(
    tree: Tree, masks: Sequence[str], loose: Sequence[str], images: set[str]
) -> None:
    if masks:
        _say(f"{len(masks):,} files are masks by their names, and left out, e.g. {masks[0]!r}.")
    if loose:
        _say(f"{len(loose):,} pictures lie in no class folder, and are left out: {loose[0]!r} ...")
    if others := [path for path in tree.files if path not in images]:
        kinds = Counter(Path(path).suffix.lower() or "no suffix" for path in others)
        shown = ", ".join(f"{kind} {count:,}" for kind, count in kinds.most_common(4))
        _say(f"{len(others):,} files are no pictures that can be read ({shown}): {others[0]!r} ...")


def _say(text: str) -> None:
    print(f"folder: {text}", file=sys.stderr, flush=True)
