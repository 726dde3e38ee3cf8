"""Which images a task has: the rows of its table, or all pictures of its folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dollmaker.pixels import names
from dollmaker.runtime.errors import DataError
from dollmaker.store import tables
from dollmaker.store.files import inside


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Images of a task, sorted by file.

    Attributes:
        images: Files, relative to the task's folder of images.
        masks: File of each mask as the table names it; ``None`` where the mask is found by the
            image's name.
        image_ids: Files without suffix, each once.
        patients: Patient of each image.
    """

    images: list[str]
    masks: list[str | None]
    image_ids: list[str]
    patients: list[str]


def list_images(
    name: str, options: Mapping[str, Any], data_root: Path, links: bool = False
) -> Listing:
    """List a task.

    Args:
        name: Name of the task, for messages.
        options: The task: ``table``, ``images`` and its columns.
        data_root: Folder of the source data.
        links: Whether links may leave ``data_root``.

    Raises:
        DataError: If the table or the folder is missing or not as described.
    """
    if options["table"] is None:
        return _folder(name, options, data_root, links)
    file = inside(data_root, options["table"], links)
    table = tables.read_source(file)
    keys = ("image_column", "mask_column", "patient_column")
    columns = [options[key] for key in keys if options[key]]
    tables.require_columns(table, columns, file)
    image, mask, patient = (options[key] for key in keys)
    table = table.drop_nulls([image]).sort(image)
    if mask:
        table = table.filter([names.mask_file(text) is not None for text in table[mask]])
    if table.is_empty():
        raise DataError(f"table {file} names no mask in {mask!r}; correct tasks.{name}.")
    files = [names.posix(text) for text in table[image]]
    ids = names.image_ids(files)
    if len(set(ids)) < len(ids):
        twice = next(text for text in ids if ids.count(text) > 1)
        raise DataError(
            f"table {file} names the image {twice!r} twice; keep one row of each image."
        )
    patients = ids
    if patient:
        patients = [names.patient(text) for text in table[patient].fill_null("")]
    if "" in patients:
        where = files[patients.index("")]
        raise DataError(f"table {file}: {patient!r} of {where!r} is blank; fill it in.")
    masks: list[str | None] = [None] * len(files)
    if mask:
        masks = [names.posix(text) for text in table[mask]]
    return Listing(images=files, masks=masks, image_ids=ids, patients=patients)


def _folder(name: str, options: Mapping[str, Any], data_root: Path, links: bool) -> Listing:
    folder = inside(data_root, options["images"], links)
    if not folder.is_dir():
        raise DataError(f"folder {folder} does not exist; correct tasks.{name}.images.")
    files = names.list_pictures(folder)
    if not files:
        raise DataError(f"folder {folder} holds no picture; correct tasks.{name}.images.")
    called = [names.without_suffix(file) for file in files]
    if len(set(called)) < len(called):
        twice = next(text for text in called if called.count(text) > 1)
        raise DataError(f"folder {folder} has two pictures called {twice!r}; rename one.")
    ids = names.image_ids(files)
    return Listing(images=files, masks=[None] * len(files), image_ids=ids, patients=ids)
