"""Hostile tables, as data sets and as truth."""

import json
from collections.abc import Callable
from typing import Any

import polars as pl

from dollmaker.store.findings import CHEXPERT
from hostile.place import GOOD, Case, Place, prepare_words, write_table

HEAD = "image,patient,A,B"


def table(
    name: str, content: str | bytes, *refused: str, check: Any = None, **options: Any
) -> Case:
    """A case of one labels.csv."""

    def make(place: Place) -> None:
        data = content.encode() if isinstance(content, str) else content
        (place.data / "labels.csv").write_bytes(data)
        place.config["source"]["table"] |= options

    return Case(name=f"table: {name}", make=make, refused=refused, check=check)


def rows(*lines: str, head: str = HEAD, end: str = "\n") -> str:
    """A table of the good images, unless lines are given."""
    good = [f"good{n}.png,p{n},{n % 2},{(n + 1) % 2}" for n in range(GOOD)]
    return end.join([head, *(lines or good)]) + end


def complete(place: Place) -> bool:
    """All good images are there with their patients and labels."""
    index = place.index()
    labels = [n % 2 for n in range(GOOD)]
    patients = [f"p{n}" for n in range(GOOD)]
    return index["A"].to_list() == labels and index["patient_id"].to_list() == patients


def parquet(frame: Callable[[], pl.DataFrame]) -> Callable[[Place], None]:
    def make(place: Place) -> None:
        frame().write_parquet(place.data / "labels.parquet")
        place.config["source"]["table"]["file"] = "labels.parquet"

    return make


def broken_parquet(place: Place) -> None:
    parquet(lambda: pl.DataFrame({"image": ["good0.png"]}))(place)
    path = place.data / "labels.parquet"
    path.write_bytes(path.read_bytes()[:40])


def called_parquet(place: Place) -> None:
    (place.data / "labels.parquet").write_text(rows())
    place.config["source"]["table"]["file"] = "labels.parquet"


def nested() -> pl.DataFrame:
    return pl.DataFrame({"image": [["a", "b"]], "patient": ["p"], "A": [1], "B": [0]})


def binary() -> pl.DataFrame:
    return pl.DataFrame({"image": [b"\xff\xfe"], "patient": ["p"], "A": [1], "B": [0]})


def million(place: Place) -> None:
    """10^6 rows of patients with ten images."""
    n = pl.arange(10**6, eager=True)
    table = pl.DataFrame({"image": n.cast(pl.String) + ".png", "patient": n // 10})
    table.with_columns(A=n % 2, B=n % 3 - 1).write_csv(place.data / "labels.csv")


def list_only(place: Place) -> list[list[str]]:
    return prepare_words(place)[:1]


def million_listed(place: Place) -> bool:
    plan = pl.read_parquet(place.results / "listing.parquet")
    patients = plan.group_by("patient_id").agg(pl.col("split").n_unique())
    return len(plan) == 10**6 and patients["split"].max() == 1 and plan["B"].min() == -1


def two_splits(place: Place) -> None:
    place.config["source"]["table"]["split_column"] = "split"
    place.rows = ["good0.png,p,1,0,train", "good1.png,p,0,1,test"]
    write_table(place, f"{HEAD},split")


def chexpert(*lines: str) -> Callable[[Place], None]:
    """train.csv and valid.csv of CheXpert with one row each."""

    def make(place: Place) -> None:
        folder = place.data / "CheXpert-v1.0-small"
        folder.mkdir()
        head = ",".join(["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT])
        for name in ("train", "valid"):
            (folder / f"{name}.csv").write_text("\n".join([head, *lines]) + "\n")
        place.config["source"] = {"kind": "chexpert"}

    return make


def truth(name: str, content: str | bytes, *refused: str) -> Case:
    """A case of a CheXlocalize file that scores are asked for."""

    def make(place: Place) -> None:
        data = content.encode() if isinstance(content, str) else content
        (place.data / "truth.json").write_bytes(data)
        place.config["truth"] = {"kind": "chexlocalize", "files": ["truth.json"]}

    return Case(name=f"truth: {name}", make=make, commands=evaluate_words, refused=refused)


def evaluate_words(place: Place) -> list[list[str]]:
    """Score one recipe with one pair on the first good image."""
    import fake_results

    results, data = fake_results.build(place.results, fake_results.make_config())
    config = fake_results.make_config() | {"truth": place.config["truth"]}
    folders = [str(path) for path in sorted((results / "committee").iterdir())]
    tasks = [str(path) for path in sorted((results / "tasks/organs").iterdir())]
    assert data.exists()
    return [
        ["evaluate", "--config", json.dumps(config), "--index", str(results / "index.parquet"),
         "--images", str(results / "images"), "--data-root", str(place.data), "--committee",
         *folders, "--relevance", str(results / "relevance"), "--masks", str(results / "masks"),
         "--tasks", *tasks, "--output", str(place.results / "scores")]
    ]  # fmt: skip


def code(counts: Any, size: Any = (48, 64)) -> str:
    """Truth of an image of the fake results (64 x 48 pixels)."""
    entry = {"Cardiomegaly": {"size": list(size), "counts": counts}}
    return json.dumps({f"patient{n:03d}_view{v}": entry for n in range(8) for v in (0, 1)})


CHEXPERT_ROW = "Male,50,Frontal,AP," + ",".join(["0.0"] * 14)
OUTSIDE = {"kind": "chexlocalize", "files": ["../secret"]}
LONG = "<script>" + "y" * 300

CASES = [
    table("empty", "", "labels.csv", "is not readable", "save it as CSV"),
    table("header only", HEAD + "\n", "has no rows"),
    table(
        "one column missing",
        rows(head="image,patient,A,C"),
        "lacks the column 'B'",
        "image, patient, A, C",
    ),
    table("semicolons", rows().replace(",", ";"), check=complete),
    table(
        "more columns",
        rows(*[f"good{n}.png,p{n},{n % 2},{(n + 1) % 2},y" for n in range(GOOD)], head=HEAD + ",x"),
        check=complete,
    ),
    table("a NUL in a path", rows("a\0b.png,p9,1,0"), "line 2 holds a NUL"),
    table("byte order mark", "\ufeff" + rows(), check=complete),
    table("Windows line ends", rows(end="\r\n"), check=complete),
    table(
        "quotes and blanks",
        rows(*[f'" good{n}.png","p{n}"," {n % 2}.0",{(n + 1) % 2} ' for n in range(GOOD)]),
        check=complete,
    ),
    table(
        "a comma in quotes",
        rows('good0.png,"p,0",1,0', "good1.png,p1,0,1"),
        check=lambda p: p.index()["patient_id"].to_list() == ["p,0", "p1"],
    ),
    table("an open quote", rows('good0.png,"p0,1,0', "good1.png,p1,0,1"), "labels.csv"),
    table(
        "rows of other lengths",
        rows("good0.png,p0,1,0,7,7,7", "good1.png"),
        "labels.csv",
        "not readable",
    ),
    table("label 2", rows("good0.png,p0,2,0"), "line 2", "label '2' of 'A'", "1, 0, -1 or blank"),
    table("label yes", rows("good0.png,p0,1,0", "good1.png,p1,0,yes"), "line 3", "'yes' of 'B'"),
    table("label None", rows("good0.png,p0,None,0"), "label 'None' of 'A'"),
    table("a label for browsers", rows(f"good0.png,p0,{LONG},0"), "line 2"),
    table("blank image", rows(",p0,1,0"), "line 2", "'image' is blank"),
    table("blank patient", rows("good0.png, ,1,0"), "line 2", "'patient' is blank"),
    table("Latin-1", rows("gööd.png,p0,1,0").encode("latin-1"), "labels.csv", "not readable"),
    table("UTF-16", rows().encode("utf-16"), check=complete),
    table("binary", bytes(range(256)) * 40, "labels.csv"),
    table("a column twice", rows(head="image,patient,A,A"), "2 columns called 'A'"),
    table(
        "a class for every image",
        "image,patient,c\n" + "".join(f"i{n}.png,p,c{n}\n" for n in range(1001)),
        "1001 different values",
        "class of each image",
        label_column="c",
        finding_columns=None,
    ),
    table(
        "a class called as a column",
        "image,patient,c\ngood0.png,p,row\ngood1.png,p,b\n",
        "'row'",
        "rename",
        label_column="c",
        finding_columns=None,
    ),
    table(
        "a class for browsers",
        "image,patient,c\ngood0.png,p,<script>\ngood1.png,p2,../x\n",
        label_column="c",
        finding_columns=None,
        check=lambda p: {"<script>", "../x"} <= set(p.index().columns),
    ),
    table(
        "only a finding without a place",
        rows(head="image,patient,No Finding,x"),
        "no finding is left",
        finding_columns=["No Finding"],
    ),
    table("a split of another name", rows("good0.png,p0,dev,0"), "split 'dev'", split_column="A"),
    table("not there", rows(), "absent.csv does not exist", file="absent.csv"),
    Case(
        name="table: a patient in two splits",
        make=two_splits,
        refused=("'p'", "more than one split"),
    ),
    Case(
        name="table: half a Parquet file",
        make=broken_parquet,
        refused=("labels.parquet", "not readable"),
    ),
    Case(
        name="table: CSV called Parquet",
        make=called_parquet,
        refused=("labels.parquet", "not readable"),
    ),
    Case(
        name="table: lists in a Parquet file",
        make=parquet(nested),
        refused=("labels.parquet", "not readable"),
    ),
    Case(
        name="table: bytes in a Parquet file",
        make=parquet(binary),
        refused=("labels.parquet", "not readable"),
    ),
    Case(name="table: 10^6 rows", make=million, commands=list_only, check=million_listed),
    Case(
        name="CheXpert: a path without a patient",
        make=chexpert("x/train/a.jpg," + CHEXPERT_ROW),
        refused=("names no patient",),
    ),
    Case(
        name="CheXpert: a path out of the root",
        make=chexpert("CheXpert/../../../patient1/secret," + CHEXPERT_ROW),
        refused=("cannot be used", "leaves the data root"),
    ),
    Case(
        name="CheXpert: no frontal view",
        make=chexpert(
            "CheXpert/train/patient1/v.jpg," + CHEXPERT_ROW.replace("Frontal", "Lateral")
        ),
        refused=("lists no images",),
    ),
    truth("not JSON", "{", "truth.json", "not JSON"),
    truth("not UTF-8", b"\xff{}", "truth.json", "not JSON"),
    truth("deep", "[" * 10**5, "truth.json", "not JSON"),
    truth("a list", "[1]", "truth.json", "not of the form"),
    truth("another size", code("0", (1, 1)), "1x1", "64x48"),
    truth("a size of words", code("0", ("a", {})), "64x48"),
    truth("a huge run", code("P" + "o" * 11 + "0"), "Cardiomegaly"),
    truth("a code that ends early", code("o"), "run-length code is damaged"),
    truth("a code with other letters", code("\u2603<script>"), "run-length code is damaged"),
    truth("counts of numbers", code([1, 2]), "do not fill"),
    Case(
        name="truth: out of the root",
        make=lambda place: place.config.update(truth=OUTSIDE),
        commands=evaluate_words,
        refused=("leaves the data root",),
    ),
]
