"""Options of sources that exclude each other; the schema says what each may be."""

import re

from dollmaker.config.results import TruthConfig
from dollmaker.config.sources import DicomConfig, FolderConfig, SourceConfig
from dollmaker.config.whole import Config
from dollmaker.runtime.errors import ConfigError


def check(config: Config) -> None:
    """Refuse options of the source that do not go together, before anything is read.

    Args:
        config: The resolved configuration.

    Raises:
        ConfigError: With the first mistake, in one sentence.
    """
    source = config.source
    if source.kind == "table":
        _check_table(source)
    elif source.kind == "folder" and source.folder:
        _check_folder(source.folder, config.truth)
    elif source.kind == "dicom" and source.dicom:
        _check_dicom(source.dicom, config)


def _check_table(source: SourceConfig) -> None:
    if source.table is None:
        raise ConfigError("source.kind is table but source.table is missing; describe the table.")
    table = source.table
    if (table.label_column is None) == (table.finding_columns is None):
        raise ConfigError("source.table needs label_column or finding_columns; give exactly one.")


def _check_folder(options: FolderConfig, truth: TruthConfig | None) -> None:
    pattern = options.patient
    if pattern is not None:
        try:
            groups = re.compile(pattern).groups
        except (re.error, RecursionError, OverflowError) as error:
            raise ConfigError(
                f"source.folder.patient is no regular expression ({error}); correct it."
            ) from None
        if not groups:
            raise ConfigError(
                f"source.folder.patient is {pattern!r}, which has no group; put the part that is "
                "the patient in parentheses."
            )
    if truth is not None and truth.kind == "masks" and truth.column:
        raise ConfigError(
            "source.kind folder has no table, so that truth.column names nothing; set it to null "
            "and call masks as their images."
        )


def _check_dicom(options: DicomConfig, config: Config) -> None:
    if not options.key and not options.keep_ids:
        raise ConfigError(
            "source.dicom.key is missing, the file by which images and patients get names that "
            "tell no PatientID; make one (openssl rand -hex 32 > DATA/names.key) and name it, or "
            "set source.dicom.keep_ids: true if the names in the headers may be released."
        )
    if config.truth is not None or config.tasks:
        raise ConfigError(
            "source.kind dicom calls images by names of its own, by which truth and tasks find "
            "none; remove them, or list the DICOM files in a table (source.kind table)."
        )
