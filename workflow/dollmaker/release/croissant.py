"""croissant.json: a release in the terms of MLCommons' Croissant 1.1 and its RAI vocabulary."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from dollmaker.config.whole import Config
from dollmaker.release.card import Facts, licence_url
from dollmaker.release.parts import BOUND, IMAGES, SCHEMA, Tree
from dollmaker.store.files import sha256_file

#: What is the same in every release: contexts, what the columns of the tables are, the RAI texts.
_STATIC = json.loads(
    (Path(__file__).resolve().parent / "templates/croissant.json").read_text(encoding="utf-8")
)

_PAPER = "https://arxiv.org/abs/2401.08469"


def describe(folder: Path, facts: Facts, date: str | None) -> Tree:
    """The metadata of a release whose tables are written; ``date`` is ISO 8601, if known."""
    options, figures = facts.config.release, facts.summary()
    name, source = options.name, f"the data set {facts.config.dataset}"
    files = sorted((folder / "data").glob("*.parquet"))
    bounded = any(BOUND in pl.read_parquet_schema(path) for path in files)
    columns = {**SCHEMA, BOUND: pl.Float32} if bounded else SCHEMA
    of_tables, of_images = {"fileSet": {"@id": "tables"}}, {"fileObject": {"@id": "images.parquet"}}
    return {
        "@context": _STATIC["context"],
        "@type": "sc:Dataset",
        "conformsTo": _STATIC["conformsTo"],
        "name": name,
        "description": (
            f"Pixel-level pseudo-masks for images of {source}, made from image-level labels by "
            f"explaining classifiers. No person drew or checked them. {figures}"
        ),
        "url": _PAPER,
        "version": options.version,
        "license": licence_url(options.license),
        "creator": {"@type": "Organization", "name": f"the makers of {name}"},
        "citeAs": f"{name} {options.version}, made with dollmaker (Chen et al. 2024, {_PAPER})",
        **({"datePublished": date} if date else {}),
        "keywords": ["segmentation", "pseudo-labels", "medical imaging", *facts.findings],
        "isLiveDataset": False,
        **_responsible(facts.config, source, figures),
        "distribution": [
            *(_file(folder, path) for path in [*files, folder / "images.parquet"]),
            _STATIC["tables"],
        ],
        "recordSet": [
            _records("masks", "One image-finding pair with its mask.", columns, of_tables),
            _records("images", "One image, with or without a mask.", IMAGES, of_images),
        ],
    }


def _responsible(config: Config, source: str, figures: str) -> Tree:
    """The RAI texts, filled in."""
    members = config.classify.members
    facts = {
        "source": source,
        "figures": figures,
        "size": config.prepare.size,
        "fit": config.prepare.fit,
        "recipe": config.release.recipe,
        "training": _training(config),
        "committee": ", ".join(member.architecture for member in members.values()),
        "names": _names(config),
    }

    def fill(text: str | list[str]) -> str | list[str]:
        return text.format(**facts) if isinstance(text, str) else [t.format(**facts) for t in text]

    return {key: fill(text) for key, text in _STATIC["responsible"].items()}


def _training(config: Config) -> str:
    """What the classifiers learned from: members without epochs are as they were found."""
    members = config.classify.members
    ready = [name for name, member in members.items() if member.epochs == 0]
    if len(ready) == len(members):
        return "that are ready, not trained here"
    trained = "that were trained on the image-level labels"
    return f"{trained} ({', '.join(ready)}: ready, not trained here)" if ready else trained


def _names(config: Config) -> str:
    """Where the names of images and patients come from."""
    dicom = config.source.dicom
    if config.source.kind == "dicom" and dicom and not dicom.keep_ids:
        return "made of those in the DICOM headers by a secret key"
    return "those of the source"


def _file(folder: Path, path: Path) -> Tree:
    name = path.relative_to(folder).as_posix()
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": path.name,
        "contentUrl": name,
        "contentSize": f"{path.stat().st_size} B",
        "encodingFormat": "application/x-parquet",
        "sha256": sha256_file(path),
    }


def _records(name: str, text: str, schema: Mapping[str, Any], source: Tree) -> Tree:
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": text,
        "key": [{"@id": f"{name}/{key}"} for key in ("image_id", "finding") if key in schema],
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"{name}/{column}",
                "name": column,
                "description": _STATIC["columns"][column],
                **_type(column, kind),
                "source": {**source, "extract": {"column": column}},
            }
            for column, kind in schema.items()
        ],
    }


def _type(column: str, kind: Any) -> Tree:
    """What Croissant calls the type of a column."""
    inner = kind.inner if isinstance(kind, pl.List) else kind
    if inner in (pl.String, pl.Boolean):
        name = "sc:Text" if inner == pl.String else "sc:Boolean"
    else:
        name = "sc:Integer" if inner.is_integer() else "sc:Float"
    if not isinstance(kind, pl.List):
        return {"dataType": name}
    return {"dataType": name, "isArray": True, "arrayShape": "2" if column == "size" else "4"}
