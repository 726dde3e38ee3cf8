"""NIH ChestX-ray14 as released (Wang et al. 2017): one table, images in twelve folders."""

from pathlib import Path

import polars as pl

from dollmaker.config.sources import NihConfig, PrepareConfig
from dollmaker.pixels.names import SUFFIXES, image_ids, is_junk, without_suffix
from dollmaker.prepare.listing import Find, Listing, assign, filled, paths, patients
from dollmaker.runtime import encoding
from dollmaker.runtime.errors import DataError
from dollmaker.store import tables
from dollmaker.store.findings import NO_FINDING

#: The 14 findings of ChestX-ray14, and the label of images with none of them.
NIH = (
    *("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia"),
    *("Pneumothorax", "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening"),
    *("Hernia", NO_FINDING),
)

_COLUMNS = ("Image Index", "Finding Labels", "Patient ID", "View Position")
_LISTS = {"train_val_list.txt": "train", "test_list.txt": "test"}
#: Where the archives unpack to, and how mirrors lay the images out.
_FOLDERS = ("images_*/images", "images_*", "images", ".")


def read_nih(options: NihConfig, prepare: PrepareConfig, find: Find) -> Listing:
    """List the images of ChestX-ray14.

    Labels are 1 or 0, never blank. The released lists of test images are kept where they are
    present; validation patients are always taken by hash, from the others. Images of mirrors may
    have another suffix than in the table. Images that are in the table but in no folder are listed
    all the same, so that they end in the quarantine.

    Raises:
        DataError: If the table, a list or the folder is not as released.
    """
    file = table_file(options, find)
    table = tables.read_source(file)
    tables.require_columns(table, _COLUMNS, file)
    images, people = paths(table, "Image Index", file), patients(table, "Patient ID", file)
    folder = find(options.folder)
    where, lists = _find(folder), _read_lists(folder)
    splits = []
    for image, patient in zip(images, people, strict=True):
        listed = lists and lists.get(without_suffix(image))
        if lists is None:
            splits.append(assign(patient, prepare.valid, prepare.test))
        elif not listed:
            raise DataError(
                f"image {image!r} of {file} is in neither train_val_list.txt nor test_list.txt; "
                "take the lists of the same release or remove both."
            )
        else:
            splits.append("test" if listed == "test" else assign(patient, prepare.valid, 0.0))
    below = options.folder.strip("/")
    prefix = "" if below in ("", ".") else f"{below}/"
    listing = pl.DataFrame(
        {
            "image_id": image_ids(images),
            "path": [f"{prefix}{where.get(without_suffix(image), image)}" for image in images],
            "patient_id": people,
            "split": splits,
            "view": table["View Position"].str.to_lowercase(),
            **_labels(filled(table, "Finding Labels", file), images, file),
        }
    )
    views = table["View Position"].str.to_uppercase().is_in(options.views)
    return listing.filter(views), list(NIH)


def table_file(options: NihConfig, find: Find) -> Path:
    """The table of all images; there must be one."""
    file = find(f"{options.folder}/{options.table}")
    if not file.is_file():
        raise DataError(f"table {file} does not exist; correct data_root or source.nih.")
    return file


def _labels(texts: list[str], images: list[str], file: Path) -> dict[str, pl.Series]:
    present = [{name.strip() for name in text.split("|")} for text in texts]
    for names, image in zip(present, images, strict=True):
        if unknown := sorted(names.difference(NIH)):
            raise DataError(
                f"table {file} gives {image!r} the finding {unknown[0]!r}; it must be one of: "
                f"{', '.join(NIH)}."
            )
    return {name: pl.Series([name in names for names in present]).cast(pl.Int8) for name in NIH}


def _find(folder: Path) -> dict[str, str]:
    """Image without suffix -> its path below the folder, the released .png before others."""
    found: dict[str, str] = {}
    for pattern in _FOLDERS:
        for place in sorted(folder.glob(pattern)) if pattern != "." else [folder]:
            files = place.iterdir() if place.is_dir() else ()
            for path in sorted(files, key=lambda path: (path.suffix != ".png", path.name)):
                if path.suffix.lower() in SUFFIXES and not is_junk(path):
                    found.setdefault(path.stem, path.relative_to(folder).as_posix())
    return found


def _read_lists(folder: Path) -> dict[str, str] | None:
    """Image without suffix -> train or test as released; ``None`` without the lists."""
    present = [name for name in _LISTS if (folder / name).is_file()]
    if not present:
        return None
    if len(present) == 1:
        raise DataError(
            f"folder {folder} has {present[0]} only; add the other of {' and '.join(_LISTS)}, or "
            "remove it."
        )
    lists: dict[str, str] = {}
    for name, split in _LISTS.items():
        try:
            images = encoding.decode((folder / name).read_bytes()).split()
        except ValueError as error:
            raise DataError(
                f"list {folder / name} is not readable ({error}); save it in UTF-8."
            ) from None
        lists |= {without_suffix(image): split for image in images}
    return lists
