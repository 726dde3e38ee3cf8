"""Before the first job: refuse at once what would stop the run hours later."""

import sys
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl

from dollmaker.adapt.tasks import MANY, look_at_task
from dollmaker.classify import labels
from dollmaker.config import catalogue, ready, weight_names, xrv
from dollmaker.config.sources import CONVERTED
from dollmaker.config.whole import Config
from dollmaker.evaluate.stage import load_truth
from dollmaker.fetch import needed
from dollmaker.launch import network_checks
from dollmaker.pixels.pictures import Channels, read_channels
from dollmaker.pixels.truth import require_sound
from dollmaker.prepare.convert import converted_findings, look_at_original
from dollmaker.prepare.nih import NIH, table_file
from dollmaker.prepare.sources import check_findings, list_source
from dollmaker.release import models
from dollmaker.runtime.errors import ConfigError, DataError, ModelError, unknown
from dollmaker.runtime.picks import evenly
from dollmaker.store import findings
from dollmaker.store.files import inside
from dollmaker.store.findings import CHEXPERT, PRESENT
from dollmaker.study import grid

#: The images of the source, ``None`` where they are not listed before the run, and its findings.
Listing = tuple[pl.DataFrame | None, list[str]]

#: True masks that are looked at before the run, of the truth and of every task.
_HANDFUL = 4

#: Mean difference of colours, of white, over which a picture is no grey one.
_COLOUR = 0.03


def preflight(config: Config) -> Listing:
    """Refuse at once what would stop the run hours later, whatever is made of the configuration.

    Returns:
        The listing of the source, for :func:`preflight_segmenter` and :func:`preflight_study`.

    Raises:
        DataError: If the data folder or a table is missing or not as described.
        ConfigError: If a configured finding or step does not exist, or settings exclude each other.
        ModelError: If a weights file or a network is missing, or does not fit.
    """
    root, truth = Path(config.data_root), config.truth
    if config.source.kind != "phantoms" and not root.is_dir():
        raise DataError(f"data folder {root} does not exist; set data_root to an existing folder.")
    if config.attribute.with_truth and (truth is None or truth.kind != "masks"):
        raise ConfigError(
            "attribute.with_truth needs true masks as files; set truth.kind to masks or remove it."
        )
    grid.check(config)
    models.check(config)
    _check_init(config)
    _require_ready(config)
    needed.require_weights(needed.of_config(config), Path(config.weights_root))
    listed, names = _list(config, root)
    check_findings(names, config)
    if listed is not None:
        _require_files(config, root, listed)
        require_images(config, listed, names)
        _look_at_channels(config, root, listed)
    _check_masks(config, root, listed, names)
    _check_recipes(config, names)
    if config.device == "cuda":
        from dollmaker.runtime import devices

        devices.uses_gpu("cuda")  # which one, each job chooses
    members = network_checks.of_members(config, len(names), _to_train(listed))
    network_checks.run_checks([*members, *network_checks.of_names(config)])
    return listed, names


def preflight_segmenter(config: Config, listing: Listing) -> None:
    """Refuse what would stop the pre-training of the segmenter, or its fine-tuning.

    Raises:
        ConfigError: If no training image would get a mask.
        ModelError: If the network does not take the images, cannot be trained with such batches,
            or its starting weights do not fit.
    """
    listed, names = listing
    require_lessons(config, listed, names)
    localized = len(findings.localized(names, config.attribute.findings))
    wanted = [network_checks.of_segmenter("segment", config, localized, _to_train(listed))]
    for run in config.adapt.runs if config.tasks else []:
        wanted.append(network_checks.of_tuning(f"adapt.runs {run}", config, *run.split("/")))
    network_checks.run_checks(wanted)


def preflight_study(config: Config, listing: Listing) -> None:
    """The same for all networks of the study."""
    study, (listed, names) = config.study, listing
    localized = len(findings.localized(names, config.attribute.findings))
    task = next(iter(study.tasks or config.tasks), None)
    wanted = []
    for architecture, init in product(study.architectures, study.inits if task else ()):
        place = f"study.architectures.{architecture}"
        if init in study.pretrainings:
            require_lessons(config, listed, names)
            mine = grid.pretraining_config(config, architecture, init)
            _check_init(mine)
            wanted.append(network_checks.of_segmenter(place, mine, localized, _to_train(listed)))
        for name, changes in grid.tunings(config).items():
            run = grid.run_config(config, architecture, str(task), init, name)
            where = f"{place}, study.tunings {name}"
            wanted.append(network_checks.of_tuning(where, run, init, changes["tuning"]))
    needed.require_weights(needed.of_study(config), Path(config.weights_root))
    network_checks.run_checks(wanted)


def _require_ready(config: Config) -> None:
    """Refuse torchxrayvision's networks without their weights, saying which file to put where.

    Weights that have a published name may be fetched yet.
    """
    for name, member in config.classify.members.items():
        weights = member.weights or ""
        if not ready.is_xrv(member) or weight_names.parse(weights, member.architecture):
            continue
        file = Path(config.weights_root) / weights
        if not file.is_file():
            raise ModelError(
                f"classify.members.{name} needs the weights file {file}, which does not exist; "
                f"make it of torchxrayvision's {member.architecture.removeprefix(xrv.PREFIX)} "
                "as docs/how-to/ready-classifiers.md shows."
            )


def _check_recipes(config: Config, names: Sequence[str]) -> None:
    """Refuse steps that do not exist, and a finding that no member of a committee knows."""
    from dollmaker.binarize.steps import check_order, make_chain

    members, wanted = config.classify.members, findings.localized(names, config.attribute.findings)
    for recipe, options in config.recipes.items():
        experts = catalogue.committee(config, recipe)
        lost = set(wanted).intersection(*(ready.unknown_to(members[e], names) for e in experts))
        if lost:
            known = ", ".join(name for name in wanted if name not in lost)
            lacking = next(name for name in wanted if name in lost)
            raise ConfigError(
                f"no member that explains for recipe {recipe!r} ({', '.join(experts)}) knows the "
                f"finding {lacking!r}; set attribute.findings to [{known}] or fewer, or add a "
                "member that knows it."
            )
        make_chain(options.binarize)
        check_order(options.binarize)


def _to_train(listed: pl.DataFrame | None) -> int | None:
    """Number of training images, if it is known."""
    return None if listed is None else int((listed["split"] == "train").sum())


def _require_files(config: Config, root: Path, listed: pl.DataFrame) -> None:
    """Refuse a listing of which no image is there, by a look at a handful."""
    looked_at = _handful(listed)
    if not any((root / path).is_file() for path in looked_at):
        raise DataError(
            f"none of {len(looked_at)} images that were looked at is there, first "
            f"{root / looked_at[0]}; correct data_root, or the folder or column of the images in "
            f"source.{config.source.kind}."
        )


def _handful(listed: pl.DataFrame) -> list[str]:
    """Paths of a few images, from all over the listing."""
    return listed["path"].gather(evenly(len(listed), _HANDFUL)).to_list()


def require_images(config: Config, listed: pl.DataFrame, names: Sequence[str]) -> None:
    """Refuse listed images with which no run could end, whatever is made, by a ``ConfigError``."""
    if not _to_train(listed):
        raise ConfigError(
            f"none of the {len(listed)} images is in the split train; lower prepare.valid and "
            "prepare.test, or correct the split column."
        )
    train = listed.filter(pl.col("split") == "train")
    localized = findings.localized(names, config.attribute.findings)
    if labels.learns(config.classify):
        counts = labels.lessons(train, localized, config.classify)
        labels.require_learnable(counts)
        if told := labels.few(counts):
            print(told, file=sys.stderr)
    splits = config.attribute.splits
    explained = listed.filter(pl.col("split").is_in(splits))
    if config.attribute.with_truth and explained["mask"].null_count() == len(explained):
        raise ConfigError(
            "attribute.with_truth explains images with a true mask only, and no image of "
            f"attribute.splits ({', '.join(splits)}) has one; name other splits or remove it."
        )
    splits = config.sample.splits
    if not _positive(listed.filter(pl.col("split").is_in(splits)), config, names):
        raise ConfigError(
            f"no image of sample.splits ({', '.join(splits)}) has a positive label of a finding "
            "that is localized; name other splits, or correct the labels or attribute.findings."
        )


def require_lessons(config: Config, listed: pl.DataFrame | None, names: Sequence[str]) -> None:
    """Refuse, by a ``ConfigError``, a run in which no image for the segmenter would get a mask."""
    options = config.attribute
    if "train" not in options.splits:
        raise ConfigError(
            "the segmenter learns from masks of training images, and attribute.splits leaves train "
            "out; add it, or run `snakemake compare` alone."
        )
    if options.with_truth and config.prepare.hold_out_truth:
        raise ConfigError(
            "attribute.with_truth explains images with a true mask only, and "
            "prepare.hold_out_truth keeps them all from training, so that the segmenter has no "
            "mask to learn from; remove one of them, or run `snakemake compare` alone."
        )
    if listed is None:
        return
    train = listed.filter(pl.col("split") == "train")
    if options.with_truth:
        train = train.filter(pl.col("mask").is_not_null())
        if train.is_empty():
            raise ConfigError(
                "attribute.with_truth explains images with a true mask only, and no training image "
                "has one, so that the segmenter has no mask to learn from; remove it, or run "
                "`snakemake compare` alone."
            )
    if not _positive(train, config, names):
        raise ConfigError(
            "no training image that is explained has a positive label of a finding that is "
            "localized, so that the segmenter has no mask to learn from; correct the labels, the "
            "splits or attribute.findings."
        )


def _positive(listed: pl.DataFrame, config: Config, names: Sequence[str]) -> bool:
    """Whether an image has a positive label of a finding that is localized."""
    localized = findings.localized(names, config.attribute.findings)
    return any((listed[finding] == PRESENT).any() for finding in localized)


def _check_init(config: Config) -> None:
    """The start of the segmenter's encoder is a member or a file."""
    init, members = config.segment.init, config.classify.members
    path = Path(config.weights_root) / init
    if init == "random" or init in members:
        return
    encoder = weight_names.of_encoder(config.segment.encoder)
    if not weight_names.parse(init, encoder) and not path.is_file():
        raise ModelError(
            f"segment.init is {init!r}, which is no committee member, and weights file {path} does "
            f"not exist; use random, {', '.join(members)}, or a file under weights_root."
        )


def _check_masks(
    config: Config, root: Path, listed: pl.DataFrame | None, names: Sequence[str]
) -> None:
    """True masks that are the user's are there, and a handful of them holds what is asked for.

    Generated and converted ones are made later.
    """
    if config.source.kind in ("phantoms", *CONVERTED):
        return
    named: list[tuple[str, str | None]] = []
    if truth := config.truth:
        named += [("truth.files", file) for file in truth.files]
        named += [("truth.file", truth.file), ("truth.folder", truth.folder)]
    for task, options in config.tasks.items():
        for key in ("table", "images", "masks"):
            named.append((f"tasks.{task}.{key}", getattr(options, key)))
    for key, name in named:
        if name and not inside(root, name, config.allow_links).exists():
            raise DataError(f"{root / name} does not exist; correct {key} or data_root.")
    _look_at_truth(config, root, listed, names)
    for task in config.tasks:
        look_at_task(task, config, root, _HANDFUL)


def _look_at_truth(
    config: Config, root: Path, listed: pl.DataFrame | None, names: Sequence[str]
) -> None:
    """Open the truth, find the images that have some, and read a handful of it."""
    for name in (config.truth and config.truth.findings) or ():
        if name not in names:
            raise ConfigError(f"truth.findings: {unknown('finding', name, names)}")
    truth = load_truth(config, root, findings.localized(names, config.attribute.findings))
    if truth is None or listed is None:
        return
    rows = [row for row in listed.iter_rows(named=True) if truth.knows(row)]
    if not rows:
        raise DataError(
            f"truth is of no image of the source, e.g. {listed['path'][0]!r}; call what is in it "
            "as the images, or remove truth."
        )
    for most in (_HANDFUL, MANY):
        for row in (rows[place] for place in evenly(len(rows), most)):
            if facts := _look_at_image(config, root, row["path"]):
                truth.look(row | facts)
        if not truth.form.fault(some=True):  # else its targets may be rare
            break
    require_sound(truth, "truth.targets or truth.encoding", some=True)


def _look_at_channels(config: Config, root: Path, listed: pl.DataFrame) -> None:
    """Refuse other channels than the files hold, if none of a handful holds those asked for.

    Grey pictures and colours become each other.
    """
    asked, paths, reasons = config.prepare.channels, _handful(listed), []
    if asked == 1:
        _tell_colours(config, root, paths)
    if asked in (1, 3):
        return
    for path in paths:
        try:
            _read_image(config, root, path)
            return
        except DataError as error:
            reasons.append(f"image {path!r} {error}")
    raise DataError(
        f"{reasons[0]}; none of {len(reasons)} images that were looked at can be used: set "
        "prepare.channels to what they hold."
    )


def _tell_colours(config: Config, root: Path, paths: Sequence[str]) -> None:
    """Tell that colours are about to become grey."""
    coloured = config.replace(prepare=config.prepare.replace(channels=3, bits=8))
    for path in paths:
        try:
            red, green, blue = _read_image(coloured, root, path).pixels.astype(np.float32)
        except DataError:
            continue
        if np.abs([red - green, green - blue]).max(0).mean() > _COLOUR * 255:
            print(
                f"pictures have colours, e.g. {path!r}, and the networks will see grey: set "
                "prepare.channels to 3 if colours matter",
                file=sys.stderr,
            )
            return


def _read_image(config: Config, root: Path, path: str) -> Channels:
    """An image as the stage prepare reads it."""
    options = config.prepare
    return read_channels(
        inside(root, path, config.allow_links),
        channels=options.channels,
        bits=options.bits,
        max_pixels=options.max_pixels,
    )


def _look_at_image(config: Config, root: Path, path: str) -> dict[str, int]:
    """Size and orientation of an image; nothing where it will be left out, with the reason."""
    try:
        image, origin = _read_image(config, root, path)
    except DataError:
        return {}
    height, width = image.shape[1:]
    return {"width": width, "height": height, "orientation": origin.orientation}


def _list(config: Config, root: Path) -> Listing:
    """The listing of the source; what is generated or converted is not there yet.

    A table and a tree of class folders are read whole. The tables of published data sets are long
    and as described: they are read where settings decide which of their images are left.
    """
    kind = config.source.kind
    if kind in CONVERTED:
        look_at_original(config, root)
        return None, converted_findings(config.source)
    if kind == "nih":
        table_file(config.source.own, partial(inside, root, links=config.allow_links))
    chosen = config.prepare.hold_out_truth or config.attribute.with_truth
    if kind in ("table", "folder") or (kind in ("nih", "chexpert") and chosen):
        return list_source(config, root)
    return None, list(NIH if kind == "nih" else CHEXPERT)
