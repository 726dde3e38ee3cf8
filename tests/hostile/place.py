"""A sound little data set, and what a hostile case does to it and expects."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

from dollmaker.store.shards import Shard

SIZE = 16
GOOD = 5


@dataclass
class Place:
    """Folders of one case: sources in ``data`` and ``weights``, all output in ``results``."""

    root: Path
    config: dict[str, Any] = field(default_factory=dict)
    rows: list[str] = field(default_factory=list)

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def results(self) -> Path:
        return self.root / "results"

    @property
    def weights(self) -> Path:
        return self.root / "weights"

    @property
    def canary(self) -> Path:
        """The file that hostile code would make."""
        return self.root / "canary"

    def inline(self) -> str:
        return json.dumps(self.config)

    def quarantine(self) -> dict[str, str]:
        """Path -> reason."""
        table = pl.read_csv(self.results / "quarantine.csv", infer_schema=False)
        return dict(table.select("path", "reason").iter_rows())

    def index(self) -> pl.DataFrame:
        return pl.read_parquet(self.results / "index.parquet")

    def pixels(self, image_id: str) -> np.ndarray:
        """The decoded image (C, S, S)."""
        row = self.index().row(by_predicate=pl.col("image_id") == image_id, named=True)
        with Shard(self.results / "images/0000.h5", "images") as shard:
            return shard.read("image", row["row"])


def sound(root: Path) -> Place:
    """Five grey images of 30 x 20 pixels, five patients, two findings."""
    place = Place(root)
    rng = np.random.default_rng(0)
    for name in ("data/images", "weights", "results"):
        (root / name).mkdir(parents=True)
    (root / "secret").write_text("outside of every root")
    for number in range(GOOD):
        pixels = rng.integers(0, 255, (20, 30), dtype=np.uint8)
        Image.fromarray(pixels).save(place.data / f"images/good{number}.png")
        place.rows.append(f"good{number}.png,p{number},{number % 2},{(number + 1) % 2}")
    place.config = {
        "dataset": "hostile",
        "data_root": str(place.data),
        "weights_root": str(place.weights),
        "device": "cpu",
        "source": {
            "kind": "table",
            "table": {
                "file": "labels.csv",
                "images": "images",
                "image_column": "image",
                "patient_column": "patient",
                "finding_columns": ["A", "B"],
            },
        },
        "prepare": {"size": SIZE, "fit": "resize", "max_quarantined": 0.5, "max_pixels": 10_000},
        "classify": {
            "members": {"a": {"architecture": "timm:test_resnet"}},
            "epochs": 1,
            "bootstrap": 10,
        },
    }
    write_table(place)
    return place


def write_table(place: Place, head: str = "image,patient,A,B") -> None:
    """The table of the images, as ``rows`` has them."""
    (place.data / "labels.csv").write_text("\n".join([head, *place.rows]) + "\n")


def add_image(place: Place, name: str, patient: str = "p-new") -> Path:
    """List an image; the caller makes the file."""
    place.rows.append(f"{name},{patient},1,0")
    write_table(place)
    return place.data / "images" / name


def prepare_words(place: Place) -> list[list[str]]:
    """The three commands of prepare."""
    config, results = place.inline(), place.results
    plan, rows, root = results / "listing.parquet", results / "rows.parquet", str(place.data)
    images = results / "images/0000.h5"
    common = ["--config", config]
    return [
        ["prepare-list", *common, "--data-root", root, "--output", str(plan)],
        ["prepare-decode", *common, "--listing", str(plan), "--shard", "0000", "--data-root", root,
         "--output", str(images), "--rows", str(rows)],
        ["prepare-index", *common, "--listing", str(plan), "--rows", str(rows), "--output",
         str(results / "index.parquet"), "--quarantine", str(results / "quarantine.csv")],
    ]  # fmt: skip


Commands = Callable[[Place], Sequence[Sequence[str]]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One hostile input.

    Attributes:
        name: What is wrong.
        make: Puts it into the sound data set.
        commands: What is run, one after another, until one fails.
        refused: Words of the one sentence in which it ends; empty if it succeeds.
        quarantined: Path in the table -> words of its reason; all other images are in the index.
        check: Looks at what came out.
    """

    name: str
    make: Callable[[Place], Any]
    commands: Commands = prepare_words
    refused: tuple[str, ...] = ()
    quarantined: tuple[str, str] | None = None
    check: Callable[[Place], Any] | None = None


def snapshot(place: Place) -> dict[str, str]:
    """All files outside of the results folder, links not followed: path -> what it is."""
    found = {}
    for path in sorted(place.root.rglob("*")):
        name = str(path.relative_to(place.root))
        if name.startswith("results"):
            continue
        if path.is_symlink():
            found[name] = f"link to {path.readlink()}"
        elif path.is_file() and path.stat().st_size < 1 << 27:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[name] = f"{path.stat().st_mode:o} {path.stat().st_size if path.is_file() else ''}"
    return found
