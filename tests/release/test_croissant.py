"""What croissant.json says of the classifiers and of names."""

from typing import Any

import pytest

from dollmaker.config import settings as configuration
from dollmaker.release.croissant import _responsible

TABLE = {"file": "t.csv", "images": ".", "image_column": "i", "label_column": "c"}
STUDIES = {"folder": "s", "labels": "t.csv", "by": "study", "finding_columns": ["f"]}
READY = {"architecture": "xrv:densenet121-res224-chex", "epochs": 0}


def said(source: dict[str, Any], members: dict[str, Any]) -> dict[str, Any]:
    prepare = {"fit": "crop"}
    given = {"dataset": "x", "source": source, "prepare": prepare, "classify": {"members": members}}
    return _responsible(configuration.resolved(given), "x", "")


@pytest.mark.parametrize(
    ("members", "wanted"),
    [
        ({"a": {}, "b": {}}, "classifiers that were trained on the image-level labels."),
        ({"a": READY}, "classifiers that are ready, not trained here."),
        (
            {"a": READY, "b": {}},
            "that were trained on the image-level labels (a: ready, not trained here).",
        ),
    ],
)
def test_ready_members_were_not_trained_here(members: dict[str, Any], wanted: str) -> None:
    text = said({"kind": "table", "table": TABLE}, members)["rai:dataAnnotationProtocol"]
    assert text.endswith(wanted)


def test_names_are_those_of_the_source_unless_a_key_made_them() -> None:
    key = "rai:personalSensitiveInformation"
    assert said({"kind": "table", "table": TABLE}, {"a": {}})[key].endswith("those of the source.")
    hashed = {"kind": "dicom", "dicom": {**STUDIES, "key": "k"}}
    assert said(hashed, {"a": {}})[key].endswith("by a secret key.")
    kept = {"kind": "dicom", "dicom": {**STUDIES, "keep_ids": True}}
    assert said(kept, {"a": {}})[key].endswith("those of the source.")
