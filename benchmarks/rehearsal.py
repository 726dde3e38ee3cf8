"""A release of CheXpert's size, made by the workflow's own rules from binarize on.

Everything but the networks: index, images and relevance maps are made up; masks, labels, release
and verification are jobs of Snakemake, whose benchmark files tell their time and memory.
"""

import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import ndimage

from dollmaker.binarize.cuts import FAMILY
from dollmaker.binarize.label_free import COLUMNS
from dollmaker.evaluate.means import MASKS, PAIRS
from dollmaker.store import provenance, tables
from dollmaker.store.files import write_json, write_text
from dollmaker.store.findings import CHEXPERT
from dollmaker.store.shards import create_shard
from shared import keep, options, write_sanity

ROOT = Path(__file__).parents[1]

#: The jobs that are rehearsed. What comes before them is made up here.
RULES = ("make_masks", "collect_labels", "build_release", "verify_release")

#: CheXpert: its images, its patients, and two pairs of most images.
_IMAGES, _PATIENTS, _PAIRS = 224_316, 64_740, 435_000
#: What may be explained of an image: No Finding has no place.
_FINDINGS = np.array(CHEXPERT[1:], object)
#: Size of the source images: CheXpert's small ones.
_WIDTH, _HEIGHT = 390, 320
#: Different pictures and maps, which images share; rows written at a time; values of a map.
_POOL, _BLOCK, _STEPS = 128, 256, 24
#: Opens a release in a new process and reads 2,000 items in random order.
_LOAD = """
import random, sys, time
from dollmaker.release.load import PseudoLabels
start = time.perf_counter()
data = PseudoLabels(sys.argv[1])
opened = time.perf_counter() - start
items = random.Random(0).sample(range(len(data)), min(2000, len(data)))
data[0]
start = time.perf_counter()
for item in items:
    data[item]
print(opened, len(items) / (time.perf_counter() - start))
"""

_CONFIG: dict[str, Any] = {
    "dataset": "rehearsal",
    "source": {"kind": "phantoms"},
    "classify": {"members": {"a": {"architecture": "timm:test_resnet"}}},
    "recipes": {
        "doll": {
            "attribute": {"smoothing": 4.0},
            "binarize": [{"gate": {"labels": [1]}}, {"label_free": {}}, {"clean": {"opening": 2}}],
        }
    },
    "release": {"recipe": "doll", "pictures": True},
    "segment": {"encoder": "tu-test_resnet"},
}


def rehearse(root: Path, *, size: int, permille: int, shards: int, cores: int) -> dict[str, Any]:
    """Make inputs in an empty folder, run the workflow's rules on them, load what they made.

    ``permille`` are thousandths of CheXpert's images, patients and pairs.
    """
    images, patients, pairs = (n * permille // 1000 for n in (_IMAGES, _PATIENTS, _PAIRS))
    index = make_index(images, patients, shards)
    results = root / "results" / _CONFIG["dataset"]
    start = time.monotonic()
    write_inputs(results, index, pairs, size)
    config = {**_CONFIG, "prepare": {"size": size, "shards": shards}}
    write_text(root / "config.yaml", json.dumps(config))  # JSON is YAML
    made, target = time.monotonic(), results.relative_to(root) / "release.verified"
    words = f"-m snakemake {target} --cores {cores} --configfile config.yaml --quiet".split()
    words += ["--snakefile", str(ROOT / "Snakefile"), "--allowed-rules", *RULES]
    subprocess.run([sys.executable, *words], cwd=root, check=True)
    done = time.monotonic()
    gallery = results / "release/gallery"
    return {
        "images": images, "pairs": pairs, "size": size, "shards": shards, "cores": cores,
        "processor": platform.processor() or platform.machine(),
        "seconds_of_inputs": made - start,
        "seconds": done - made,
        "rules": {rule: read_benchmarks(results, rule) for rule in RULES},
        "bytes": sum(path.stat().st_size for path in (results / "release").rglob("*.*")),
        "gallery_at_start": sum(
            (gallery / name).stat().st_size for name in ("index.html", "data/pairs.js")
        ),
        **load(results / "release"),
    }  # fmt: skip


def make_index(images: int, patients: int, shards: int) -> pl.DataFrame:
    """The index: three or four images a patient, runs of the listing as shards."""
    number = np.arange(images)
    patient, shard = number * patients // images, number * shards // images
    split = np.select([patient % 50 == 0, patient % 50 == 1], ["valid", "test"], "train")
    names = [f"train/patient{p:05d}/study1/view{n}_frontal.jpg" for n, p in enumerate(patient)]
    return pl.DataFrame(
        {
            "image_id": [name.removesuffix(".jpg").removeprefix("train/") for name in names],
            "path": [f"CheXpert-v1.0-small/{name}" for name in names],
            "patient_id": [f"patient{p:05d}" for p in patient],
            "split": split,
            "width": np.full(images, _WIDTH),
            "height": np.full(images, _HEIGHT),
            "sha256": [f"{n:064x}" for n in number],
            "orientation": np.ones(images, np.int8),
            "shard": [f"{n:04d}" for n in shard],
            "row": number - np.searchsorted(shard, shard),
        }
    )


def write_inputs(results: Path, index: pl.DataFrame, pairs: int, size: int) -> None:
    """What the stages before binarize leave, and the stages that are left out."""
    header = provenance.header("prepare", {})
    tables.write(index, results / "index.parquet", {**header, "findings": list(CHEXPERT)})
    pictures, maps = pools(size)
    image_of = np.arange(pairs) * len(index) // pairs
    first = 0
    for (name,), mine in index.group_by(["shard"], maintain_order=True):
        names = mine["image_id"].to_numpy().astype(object)
        with create_shard(results / "images" / f"{name}.h5", "images", header) as writer:
            for start in range(0, len(names), _BLOCK):
                rows = np.arange(start, min(start + _BLOCK, len(names)))
                sides = {"width": np.full(len(rows), _WIDTH), "height": np.full(len(rows), _HEIGHT)}
                writer.append({"image_id": names[rows], **sides}, image=pictures[rows % _POOL])
        begin, end = np.searchsorted(image_of, (first, first + len(names)))
        own = names[image_of[begin:end] - first]
        write_maps(results / "relevance/doll" / f"{name}.h5", header, own, maps)
        first += len(names)
    member = {"architecture": "none", "sha256": "0" * 64, "metrics": {}}
    write_json(results / "committee/a/model.json", member)
    facts = {"architecture": "Unet", "sha256": "0" * 64}
    write_json(results / "segmenter/segmenter.json", facts)
    for name in ("committee/a", "segmenter"):
        write_text(results / "sums" / f"{name}.sha256", "")
    write_sanity(results / "sanity/doll.json")
    every = dict.fromkeys(COLUMNS, None) | {
        "finding": "",
        "pairs": 0,
        "family": FAMILY,
        "value": 0.35,
    }
    chosen = {name: name.startswith("chosen") for name in COLUMNS if name.startswith("chosen")}
    cuts = pl.DataFrame([every | chosen], schema=COLUMNS, orient="row")
    tables.write(cuts, results / "thresholds/doll.parquet", header)
    for name, columns in (("masks", MASKS), ("pairs", PAIRS)):
        tables.write(pl.DataFrame(schema=columns), results / f"scores/{name}.parquet", header)


def pools(size: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float16]]:
    """Pictures of coarse squares, (N, 1, S, S), and maps of smooth hills, (N, S, S); seeded."""
    rng = np.random.default_rng(0)
    cells = -(-size // 16)
    coarse = rng.integers(20, 200, (_POOL, 1, cells, cells), np.uint8)
    pictures = np.ascontiguousarray(coarse.repeat(16, -1).repeat(16, -2)[..., :size, :size])
    noise = rng.standard_normal((_POOL, size, size)).astype(np.float32)
    fields = ndimage.gaussian_filter(noise, (0, size / 12, size / 12))
    hills = np.clip(fields / fields.max((1, 2), keepdims=True), 0, 1)
    return pictures, (np.rint(hills * _STEPS) / _STEPS).astype(np.float16)


def write_maps(path: Path, header: dict[str, Any], names: Any, maps: Any) -> None:
    """A shard of pairs, each image's findings in the order of the index."""
    rng = np.random.default_rng(len(names))
    second = np.append(False, names[1:] == names[:-1])
    findings = _FINDINGS[np.arange(len(names)) // 2 % 6 * 2 + second]
    with create_shard(path, "relevance", header) as writer:
        for start in range(0, len(names), _BLOCK):
            rows = slice(start, min(start + _BLOCK, len(names)))
            count = rows.stop - start
            drawn = rng.uniform(0.5, 1, (2, count)).astype(np.float32)
            writer.append(
                {
                    "image_id": names[rows],
                    "finding": findings[rows],
                    "label": np.ones(count, np.int8),
                    "probability": drawn[0],
                    "scale": np.ones(count, np.float32),
                    "completeness": np.full(count, 0.02, np.float32),
                    "agreement": drawn[1],
                },
                map=maps[np.arange(start, rows.stop) % _POOL],
            )


def read_benchmarks(results: Path, rule: str) -> dict[str, float]:
    """Jobs of a rule, their seconds (on the clock, of cores) and the most memory of one, MiB."""
    files = sorted((results / "benchmarks").glob(f"{rule}*.tsv"))
    rows = pl.concat([pl.read_csv(file, separator="\t", infer_schema=False) for file in files])
    seconds, cpu, most = (rows[name].cast(pl.Float64) for name in ("s", "cpu_time", "max_rss"))
    found = {"seconds": seconds.sum(), "cpu": cpu.sum(), "most_mib": most.max()}
    return {"jobs": len(rows), **found}


def load(release: Path) -> dict[str, float]:
    """Seconds until a new process has opened the release, and images a second, in random order."""
    done = subprocess.run(
        [sys.executable, "-c", _LOAD, str(release)], capture_output=True, text=True, check=True
    )
    opened, speed = map(float, done.stdout.split())
    return {"seconds_to_open": opened, "images_per_second": speed}


def print_table(found: dict[str, Any]) -> None:
    """Print to stdout."""
    print(
        f"{found['images']:,} images, {found['pairs']:,} pairs, masks of {found['size']} px, "
        f"{found['shards']} shards, {found['cores']} cores, {found['processor']}\n"
        f"inputs {found['seconds_of_inputs']:.0f} s, binarize to verified {found['seconds']:.0f} s"
    )
    print(f"{'rule':<18}{'jobs':>6}{'seconds':>10}{'of cores':>10}{'most MiB':>10}")
    for rule, row in found["rules"].items():
        numbers = "".join(f"{row[name]:>10.0f}" for name in ("seconds", "cpu", "most_mib"))
        print(f"{rule:<18}{row['jobs']:>6}{numbers}")
    first = found["gallery_at_start"] / 1e6
    print(f"release: {found['bytes'] / 1e9:.2f} GB, its gallery {first:.1f} MB at first")
    opened, speed = found["seconds_to_open"], found["images_per_second"]
    print(f"PseudoLabels: open in {opened:.2f} s, {speed:.0f} images/s, random, one process")


def main() -> None:
    """Rehearse and print."""
    parser = options(__doc__, size=320, permille=1000, shards=64, cores=2)
    parser.add_argument("--folder", type=Path, help="where to work (15 GB); kept")
    given = parser.parse_args()
    how = {name: getattr(given, name) for name in ("size", "permille", "shards", "cores")}
    with TemporaryDirectory(prefix="dollmaker-rehearsal-") as name:
        results = rehearse((given.folder or Path(name)).resolve(), **how)
    print_table(results)
    keep(results, given.json)


if __name__ == "__main__":
    main()
