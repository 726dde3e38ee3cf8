"""croissant.json: a release in the terms of MLCommons' Croissant 1.1 and its RAI vocabulary."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from dollmaker.release.licence import licence_url
from dollmaker.release.parts import BOUND, IMAGES, SCHEMA
from dollmaker.store import tables
from dollmaker.store.files import sha256_file

#: What the columns of the tables are.
_COLUMNS = {
    "image_id": "Name of the image.",
    "path": "Path of the source image under the root of its data set.",
    "sha256": "Checksum of the source image's file.",
    "patient_id": "Name of the patient; a patient is in one split only.",
    "split": "train, valid or test.",
    "width": "Width of the source image in pixels.",
    "height": "Height of the source image in pixels.",
    "finding": "What the mask shows.",
    "label": "Image-level label of the finding in the source: 1, 0, or -1 for uncertain.",
    "probability": "The finding's probability by the committee of classifiers.",
    "size": "Height and width of the square that the mask lies on.",
    "counts": "The mask as compressed run-length code of COCO.",
    "area": "Pixels of the mask on the square.",
    "box": "Left, top, width and height of the mask in pixels of the square.",
    "components": "Connected parts of the mask.",
    "threshold": "Where the relevance map was cut, as share of its maximum.",
    "quality": "Estimate of the mask's quality in 0..1 that knows nothing of the truth.",
    "agreement": "Agreement of the committee's maps.",
    "completeness": "Relative completeness error of the maps; NaN for methods without it.",
    BOUND: "Least IoU with the truth, with the confidence of bounds.json; null: unknown.",
    "explained": "Whether any finding of the image was explained.",
}

_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}

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
        "@context": _CONTEXT,
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
    committee = ", ".join(m["architecture"] for m in config["classify"]["members"].values())
    return {
        "rai:dataCollection": (
            f"Images and image-level labels come from {source}, which is not part of this data set."
        ),
        "rai:dataCollectionType": ["Secondary Data Analysis", "Software Collection"],
        "rai:dataPreprocessingProtocol": (
            f"Images were fitted into {config['prepare']['size']} pixels by "
            f"{config['prepare']['fit']}; relevance maps of the finding were cut by the steps of "
            f"the recipe {config['release']['recipe']}; provenance.json has the configuration."
        ),
        "rai:dataAnnotationProtocol": (
            f"No annotator: masks are thresholded explanations of classifiers {_training(config)}."
        ),
        "rai:dataAnnotationPlatform": "none",
        "rai:machineAnnotationTools": [f"dollmaker; classifiers: {committee}"],
        "rai:annotationsPerItem": "one mask at most per image and finding",
        "rai:dataUseCases": (
            "Pre-training of segmentation networks that are then tuned on true masks; research on "
            "explanations. Not for diagnosis, nor as truth to score a method against."
        ),
        "rai:dataLimitations": (
            "Relevance maps are far from radiologists' outlines. A mask shows what networks used; "
            f"a missing mask does not say that a finding is absent. {figures}"
        ),
        "rai:dataBiases": (
            "Errors and shortcuts of the image-level labels and of the classifiers are in the "
            "masks: devices, text and positions that go with a finding may be marked instead of it."
        ),
        "rai:dataSocialImpact": (
            "May save annotation; would do harm where masks were taken for clinical findings."
        ),
        "rai:personalSensitiveInformation": (
            "No pixels of patients but for contact-sheet.png and gallery/ where they show "
            f"pictures. Names of images and patients are {_names(config)}."
        ),
        "rai:dataReleaseMaintenancePlan": (
            "CHANGELOG.md lists the versions; `dollmaker diff` compares two."
        ),
    }


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
                "description": _COLUMNS[column],
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
