"""Settings that contradict each other, each of which is legal alone."""

import re

from dollmaker.config import ready
from dollmaker.config.masks import MapsConfig
from dollmaker.config.patch_sizes import check_sides
from dollmaker.config.sources import DicomConfig, FolderConfig, SourceConfig
from dollmaker.config.whole import Config, TruthConfig
from dollmaker.runtime.errors import ConfigError

#: Sources whose pictures are grey or colours. The files of others decide.
_PICTURES = ("phantoms", "chexpert", "nih", "jsrt")

#: Rows of the tables of scores that are no recipe: segmenter and trivial baselines.
TAKEN = ("segmenter", "mean-map", "centre", "intensity", "whole")

_WITHOUT_NOISE = ("occlusion", "attention_rollout", "tokencut", "maskcut", "found")


def check(config: Config) -> None:
    """Refuse what does not go together, before anything is read, by a ``ConfigError``."""
    for key, folder in (("data_root", config.data_root), ("weights_root", config.weights_root)):
        if folder.startswith(("~", "$")):
            raise ConfigError(
                f"{key} is {folder!r}, whose beginning only a shell knows; write the whole path, "
                "or one relative to where you run."
            )
    _check_source(config)
    if config.prepare.valid + config.prepare.test >= 1:
        raise ConfigError("prepare.valid + prepare.test leave no patients to train; lower them.")
    ready.check(config)
    _check_channels(config)
    check_sides(config)
    _check_recipes(config)
    release, truth = config.release, config.truth
    if release.changes and release.version not in release.changes:
        raise ConfigError(
            f"release.changes does not say what is new in version {release.version}; add it."
        )
    if truth is not None and truth.kind == "masks":
        for key in ("folder", "targets"):
            if key not in truth.dump():
                raise ConfigError(f"truth.kind is masks but truth.{key} is missing; add it.")
    imagenet = any(run.startswith("imagenet/") for run in config.adapt.runs)
    if config.tasks and imagenet and config.adapt.imagenet is None:
        raise ConfigError(
            "adapt.runs has imagenet but adapt.imagenet names no weights file; add it."
        )


def _check_source(config: Config) -> None:
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
    if (source.table.label_column is None) == (source.table.finding_columns is None):
        raise ConfigError("source.table needs label_column or finding_columns; give exactly one.")


def _check_folder(options: FolderConfig, truth: TruthConfig | None) -> None:
    if options.patient is not None:
        try:
            groups = re.compile(options.patient).groups
        except (re.error, RecursionError, OverflowError) as error:
            raise ConfigError(
                f"source.folder.patient is no regular expression ({error}); correct it."
            ) from None
        if not groups:
            raise ConfigError(
                f"source.folder.patient is {options.patient!r}, which has no group; put the part "
                "that is the patient in parentheses."
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


def _check_channels(config: Config) -> None:
    asked, source = config.prepare.channels, config.source
    if source.kind in _PICTURES and asked not in (1, 3):
        raise ConfigError(
            f"prepare.channels is {asked}, and the pictures of source.kind {source.kind} are "
            "grey; set it to 1, or to 3, which repeats them."
        )
    if source.kind == "msd" and source.msd and isinstance(source.msd.channels, list):
        require_volumes(len(source.msd.channels), asked)
    for name, member in config.classify.members.items():
        seen = ready.input_options(config, member)["channels"]
        if seen != asked and 1 not in (seen, asked):
            raise ConfigError(
                f"classify.members.{name} sees {seen} channels, and images have {asked} "
                f"(prepare.channels); give the network {asked}, or 1, which takes their mean."
            )


def require_volumes(count: int, asked: int) -> None:
    """Refuse volumes of other channels than ``prepare.channels``; one may be repeated to three."""
    if count != asked and (count, asked) != (1, 3):
        chosen = "one channel" if count == 1 else f"{count} channels"
        raise ConfigError(
            f"prepare.channels is {asked}, and source.msd chooses {chosen}; set prepare.channels "
            f"to {count}, or name other channels in source.msd.channels."
        )


def _check_recipes(config: Config) -> None:
    recipes = config.recipes
    for name in (name for name in recipes if name in TAKEN):
        raise ConfigError(f"recipes.{name}: the tables of scores have rows {name}; rename it.")
    whole = [key for key, one in recipes.items() if isinstance(one.attribute, MapsConfig)]
    for name, recipe in recipes.items():
        maps = recipe.attribute
        if isinstance(maps, MapsConfig):
            _check_method(name, maps)
        elif maps not in whole:
            raise ConfigError(
                f"recipes.{name}.attribute names {maps!r}, which has no maps of its own; "
                f"use one of: {', '.join(whole)}."
            )
    if config.release.recipe not in recipes:
        raise ConfigError(
            f"release.recipe is {config.release.recipe!r}; use one of: {', '.join(recipes)}."
        )


def _check_method(recipe: str, maps: MapsConfig) -> None:
    if maps.adaptive and maps.method != "integrated_gradients":
        raise ConfigError(
            f"recipes.{recipe}.attribute: {maps.method} has no nodes to adapt; remove adaptive."
        )
    if maps.reduction == "brighter" and (maps.noise or maps.method != "integrated_gradients"):
        raise ConfigError(
            f"recipes.{recipe}.attribute: the reduction brighter compares the image with each "
            "baseline of integrated_gradients; take that method without noise, or positive."
        )
    if maps.noise and maps.method in _WITHOUT_NOISE:
        raise ConfigError(f"recipes.{recipe}.attribute: {maps.method} takes no noise; remove it.")
