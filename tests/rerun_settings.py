"""A small configuration with every section that decides what runs again."""

from typing import Any

SETTINGS: dict[str, Any] = {
    "dataset": "x",
    "data_root": "data",
    "weights_root": "weights",
    "source": {
        "kind": "table",
        "table": {
            "file": "t.csv",
            "images": "images",
            "image_column": "image",
            "label_column": "class",
        },
    },
    "prepare": {"size": 32, "shards": 2, "valid": 0.2, "test": 0.2},
    "classify": {"members": {"a": {"weights": "a.st"}, "b": {"seed": 1}}},
    "recipes": {
        "doll": {"binarize": [{"label_free": {}}]},
        "band": {"attribute": "doll", "binarize": [{"two_threshold": {}}]},
    },
    "segment": {"init": "a"},
    "tasks": {"t": {"images": "ti", "masks": "tm", "classes": {"c": [1]}}},
    "adapt": {"runs": ["doll/full", "imagenet/full"], "imagenet": "i.st"},
    "truth": {"kind": "masks", "folder": "masks", "column": "mask", "targets": {"m": [1]}},
}
