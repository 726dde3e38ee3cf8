"""Which images a task has, and in which split: rows of its table, or all pictures of its folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from dollmaker.config.tuning import TaskConfig
from dollmaker.config.whole import Config
from dollmaker.pixels import names
from dollmaker.prepare.listing import assign, patients
from dollmaker.prepare.sources import list_source
from dollmaker.runtime.errors import ConfigError, DataError
from dollmaker.store import tables
from dollmaker.store.files import inside

#: The column that patients are written to, a name that no table has.
_PATIENT = " patient"


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Images of a task with their patients, sorted by file."""

    images: list[str]  #: Files, relative to the task's folder of images.
    #: File of each mask as the table names it; ``None`` where the mask is found by the image's
    #: name.
    masks: list[str | None]
    image_ids: list[str]  #: Files without suffix, each once.
    patients: list[str]

    def of(self, places: Sequence[int]) -> "Listing":
        """Some of the images."""
        return Listing(**{name: [all_[k] for k in places] for name, all_ in vars(self).items()})


def list_images(name: str, options: TaskConfig, data_root: Path, links: bool = False) -> Listing:
    """List a task; ``links`` allows links to leave ``data_root``.

    Raises:
        DataError: If the table or the folder is missing or not as described.
    """
    if options.table is None:
        return _folder(name, options, data_root, links)
    file = inside(data_root, options.table, links)
    table = tables.read_source(file)
    image, mask, patient = options.image_column, options.mask_column, options.patient_column
    tables.require_columns(table, [column for column in (image, mask, patient) if column], file)
    of_use = table[image].is_not_null()
    if mask:
        of_use &= pl.Series([names.mask_file(text) is not None for text in table[mask]])
    if patient:  # lines are those of the file; a row that is of no use may lack its patient
        told = table.select(pl.when(of_use).then(patient).otherwise(pl.lit("0")).alias(patient))
        table = table.with_columns(pl.Series(_PATIENT, patients(told, patient, file)))
    table = table.filter(of_use).sort(image)
    if table.is_empty():
        raise DataError(f"table {file} names no mask in {mask!r}; correct tasks.{name}.")
    files = [names.posix(text) for text in table[image]]
    ids = names.image_ids(files)
    if twice := _twice(ids):
        raise DataError(
            f"table {file} names the image {twice!r} twice; keep one row of each image."
        )
    people = table[_PATIENT].to_list() if patient else ids
    masks: list[str | None] = [None] * len(files)
    if mask:
        masks = [names.posix(text) for text in table[mask]]
    return Listing(images=files, masks=masks, image_ids=ids, patients=people)


def _folder(name: str, options: TaskConfig, data_root: Path, links: bool) -> Listing:
    folder = inside(data_root, options.images, links)
    if not folder.is_dir():
        raise DataError(f"folder {folder} does not exist; correct tasks.{name}.images.")
    files = names.list_pictures(folder)
    if not files:
        raise DataError(f"folder {folder} holds no picture; correct tasks.{name}.images.")
    if twice := _twice([names.without_suffix(file) for file in files]):
        raise DataError(f"folder {folder} has two pictures called {twice!r}; rename one.")
    ids = names.image_ids(files)
    return Listing(images=files, masks=[None] * len(files), image_ids=ids, patients=ids)


def _twice(called: Sequence[str]) -> str | None:
    """The first name that occurs more than once."""
    if len(set(called)) == len(called):
        return None
    return next(name for name in called if called.count(name) > 1)


def split_patients(name: str, config: Config, data_root: Path, people: Sequence[str]) -> list[str]:
    """Splits of a task by patient.

    Shares that are null are the data set's own, and so are its splits.

    Raises:
        ConfigError: If the shares leave nothing to train on.
    """
    options, prepare = config.tasks[name], config.prepare
    valid = prepare.valid if options.valid is None else options.valid
    test = prepare.test if options.test is None else options.test
    if valid + test >= 1:
        raise ConfigError(f"tasks.{name}.valid + test leave no patients to train; lower them.")
    own = options.valid is None and options.test is None
    known = known_splits(config, data_root) if own else {}
    return [known.get(patient) or assign(patient, valid, test) for patient in people]


def known_splits(config: Config, data_root: Path) -> dict[str, str]:
    """Patient -> split, of a data set that does not split all its patients by hash."""
    kind = config.source.kind
    source = config.source.table if kind == "table" else None
    by_image = source and source.split_column and not source.patient_column
    if kind in ("nih", "folder") or by_image or (source and config.prepare.hold_out_truth):
        listing, _ = list_source(config, data_root)
        return dict(listing.select("patient_id", "split").iter_rows())
    if source is None or source.patient_column is None or source.split_column is None:
        return {}
    file = inside(data_root, source.file, config.allow_links)
    table = tables.read_source(file)
    columns = [source.patient_column, source.split_column]
    tables.require_columns(table, columns, file)
    rows = table.select(columns).drop_nulls().iter_rows()
    return {names.patient(who): split for who, split in rows}
