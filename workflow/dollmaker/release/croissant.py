"""croissant.json: a release in the terms of MLCommons' Croissant 1.1 and its RAI vocabulary."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from dollmaker.release.licence import licence_url
from dollmaker.release.parts import BOUND, IMAGES, SCHEMA
from dollmaker.store import tables
from dollmaker.store.files import sha256_file

#: The context of Croissant 1.1, what the columns of the tables are, and the RAI texts.
_STATIC = json.loads(
    (Path(__file__).resolve().parent / "templates/croissant.json").read_text(encoding="utf-8")
)

_PAPER = "https://arxiv.org/abs/2401.08469"


def describe(
    folder: Path, config: Mapping[str, Any], findings: list[str], figures: str, date: str | None
) -> dict[str, Any]:
    """The metadata of a release whose tables are written.

    Args:
        folder: The release.
        config: The resolved configuration.
        findings: Names, in order.
        figures: A sentence with the scores of the masks.
        date: ISO 8601 date of publication, if known.
    """
    options = config["release"]
    name, source = options["name"], f"the data set {config['dataset']}"
    files = sorted((folder / "data").glob("*.parquet"))
    bounded = any(BOUND in tables.read(path).columns for path in files)
    return {
        "@context": _STATIC["context"],
        "@type": "sc:Dataset",
        "conformsTo": [
            "http://mlcommons.org/croissant/1.1",
            "http://mlcommons.org/croissant/RAI/1.0",
        ],
        "name": name,
        "description": (
            f"Pixel-level pseudo-masks for images of {source}, made from image-level labels by "
            f"explaining classifiers. No person drew or checked them. {figures}"
        ),
        "url": _PAPER,
        "version": options["version"],
        "license": licence_url(options["license"]),
        "creator": {"@type": "Organization", "name": f"the makers of {name}"},
        "citeAs": f"{name} {options['version']}, made with dollmaker (Chen et al. 2024, {_PAPER})",
        **({"datePublished": date} if date else {}),
        "keywords": ["segmentation", "pseudo-labels", "medical imaging", *findings],
        "isLiveDataset": False,
        **_responsible(config, source, figures),
        "distribution": [
            *(_file(folder, path) for path in [*files, folder / "images.parquet"]),
            {
                "@type": "cr:FileSet",
                "@id": "tables",
                "name": "tables",
                "description": "The tables of all splits.",
                "encodingFormat": "application/x-parquet",
                "includes": "data/*.parquet",
            },
        ],
        "recordSet": [
            _records(
                "masks",
                "One image-finding pair with its mask.",
                {**SCHEMA, BOUND: pl.Float32} if bounded else SCHEMA,
                {"fileSet": {"@id": "tables"}},
            ),
            _records(
                "images",
                "One image, with or without a mask.",
                IMAGES,
                {"fileObject": {"@id": "images.parquet"}},
            ),
        ],
    }


def _responsible(config: Mapping[str, Any], source: str, figures: str) -> dict[str, Any]:
    facts = {
        "source": source,
        "figures": figures,
        "size": config["prepare"]["size"],
        "fit": config["prepare"]["fit"],
        "recipe": config["release"]["recipe"],
        "training": _training(config),
        "committee": ", ".join(m["architecture"] for m in config["classify"]["members"].values()),
        "names": _names(config),
    }

    def fill(text: str | list[str]) -> str | list[str]:
        return text.format(**facts) if isinstance(text, str) else [t.format(**facts) for t in text]

    return {key: fill(text) for key, text in _STATIC["responsible"].items()}


def _training(config: Mapping[str, Any]) -> str:
    """What the classifiers learned from: members without epochs are as they were found."""
    members = config["classify"]["members"]
    ready = [name for name, member in members.items() if member["epochs"] == 0]
    if len(ready) == len(members):
        return "that are ready, not trained here"
    trained = "that were trained on the image-level labels"
    return f"{trained} ({', '.join(ready)}: ready, not trained here)" if ready else trained


def _names(config: Mapping[str, Any]) -> str:
    """Where the names of images and patients come from."""
    source = config["source"]
    if source["kind"] == "dicom" and not source["dicom"]["keep_ids"]:
        return "made of those in the DICOM headers by a secret key"
    return "those of the source"


def _file(folder: Path, path: Path) -> dict[str, Any]:
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


def _records(
    name: str, text: str, schema: Mapping[str, Any], source: dict[str, Any]
) -> dict[str, Any]:
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
                "dataType": _type(kind),
                **_shape(column, kind),
                "source": {**source, "extract": {"column": column}},
            }
            for column, kind in schema.items()
        ],
    }


def _type(kind: Any) -> str:
    inner = kind.inner if isinstance(kind, pl.List) else kind
    if inner == pl.String:
        return "sc:Text"
    if inner == pl.Boolean:
        return "sc:Boolean"
    return "sc:Integer" if inner.is_integer() else "sc:Float"


def _shape(column: str, kind: Any) -> dict[str, Any]:
    if not isinstance(kind, pl.List):
        return {}
    return {"isArray": True, "arrayShape": "2" if column == "size" else "4"}
