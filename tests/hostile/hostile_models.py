"""Hostile weights, members, masks and configurations."""

import json
import pickle
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dollmaker.store.files import sha256_file
from dollmaker.store.shards import Shard
from hostile.hostile_images import Bomb, png_header
from hostile.place import Case, Place, prepare_words, write_table

# --- weights files ------------------------------------------------------------------------------


def classify_words(place: Place) -> Iterator[list[str]]:
    yield from prepare_words(place)
    results = place.results
    yield [
        "classify", "--config", place.inline(), "--index", str(results / "index.parquet"),
        "--images", str(results / "images"), "--member", "a", "--weights-root",
        str(place.weights), "--output", str(results / "committee/a"),
    ]  # fmt: skip


def weights(name: str, write: Callable[[Place, Path], Any], *refused: str) -> Case:
    """A case of a weights file that a member shall start from."""

    def make(place: Place) -> None:
        write(place, place.weights / "w.safetensors")
        place.config["classify"]["members"]["a"]["weights"] = "w.safetensors"

    return Case(name=f"weights: {name}", make=make, commands=classify_words, refused=refused)


def pickled(place: Place, path: Path) -> None:
    path.write_bytes(pickle.dumps({"state_dict": Bomb(place.canary)}))


def torch_saved(place: Place, path: Path) -> None:
    import torch

    torch.save({"model": Bomb(place.canary)}, path)


def tensors(**shapes: Any) -> Callable[[Place, Path], None]:
    def write(place: Place, path: Path) -> None:
        from safetensors.numpy import save_file

        save_file({name: np.asarray(value, np.float32) for name, value in shapes.items()}, path)

    return write


def half(place: Place, path: Path) -> None:
    tensors(a=np.zeros((99, 99)))(place, path)
    path.write_bytes(path.read_bytes()[:999])


def header(text: str, length: int | None = None) -> Callable[[Place, Path], None]:
    """A safetensors file with this header and no tensor."""
    data = struct.pack("<Q", len(text) if length is None else length) + text.encode()
    return lambda place, path: path.write_bytes(data)


# --- members ------------------------------------------------------------------------------------


def member(name: str, damage: Callable[[Place, Path], Any], *refused: str) -> Case:
    """A case of a trained member that is damaged before it explains."""

    def commands(place: Place) -> Iterator[list[str]]:
        yield from classify_words(place)
        results = place.results
        damage(place, results / "committee/a")
        yield [
            "attribute", "--config", place.inline(), "--index", str(results / "index.parquet"),
            "--images", str(results / "images"), "--shard", "0000", "--committee",
            str(results / "committee/a"), "--recipe", "doll", "--output",
            str(results / "relevance/0000.h5"),
        ]  # fmt: skip

    def make(place: Place) -> None:
        place.config["classify"]["members"]["a"]["epochs"] = 0

    return Case(name=f"member: {name}", make=make, commands=commands, refused=refused)


def described(**changes: Any) -> Callable[[Place, Path], None]:
    def damage(place: Place, folder: Path) -> None:
        description = json.loads((folder / "model.json").read_text())
        description |= changes
        (folder / "model.json").write_text(json.dumps(description))

    return damage


def replaced(write: Callable[[Place, Path], Any], *, told: bool) -> Callable[[Place, Path], None]:
    """Other weights, with or without their checksum in the description."""

    def damage(place: Place, folder: Path) -> None:
        write(place, folder / "model.safetensors")
        if told:
            described(sha256=sha256_file(folder / "model.safetensors"))(place, folder)

    return damage


SPEC = {"channels": 1, "size": 16, "mean": 0.5, "std": 0.5}


def no_positive(place: Place) -> None:
    """Finding B is nowhere; A is in the validation images, too."""
    place.config["source"]["table"]["split_column"] = "split"
    splits = ("train", "train", "train", "valid", "valid")
    place.rows = [f"good{n}.png,p{n},{n % 2},0,{split}" for n, split in enumerate(splits)]
    write_table(place, "image,patient,A,B,split")


def trained_without(place: Place) -> None:
    description = json.loads((place.results / "committee/a/model.json").read_text())
    found = description["metrics"]["findings"]
    assert found["B"]["auroc"] is None and found["B"]["positives"] == 0
    assert 0 <= found["A"]["auroc"] <= 1
    with Shard(place.results / "relevance/0000.h5", "relevance") as shard:
        assert set(shard.table()["finding"]) == {"A"}


# --- masks of a task ----------------------------------------------------------------------------


def adapt_words(place: Place) -> list[list[str]]:
    return [
        ["adapt", "--config", place.inline(), "--task", "t", "--init", "random", "--tuning", "full",
         "--data-root", str(place.data), "--weights-root", str(place.weights), "--output",
         str(place.results / "t")]
    ]  # fmt: skip


def mask(name: str, write: Callable[[Path], Any], *refused: str, file: str = "good3.png") -> Case:
    """A case of one mask among five."""

    def make(place: Place) -> None:
        folder = place.data / "masks"
        folder.mkdir()
        square = np.zeros((20, 30), np.uint8)
        square[4:9, 4:9] = 1
        for number in range(5):
            Image.fromarray(square).save(folder / f"good{number}.png")
        (folder / "good3.png").unlink()
        write(folder / "good3.png")
        place.rows = [f"good{n}.png,p{n},good{n}.png" for n in range(5)]
        place.rows[3] = f"good3.png,p3,{file}"
        write_table(place, "image,patient,mask")
        place.config["tasks"] = {
            "t": {"table": "labels.csv", "images": "images", "masks": "masks",
                  "image_column": "image", "mask_column": "mask", "classes": {"square": [1]},
                  "valid": 0.3, "test": 0.4}
        }  # fmt: skip

    return Case(name=f"mask: {name}", make=make, commands=adapt_words, refused=refused)


def grey(*size: int, mode: str = "L") -> Callable[[Path], Any]:
    return lambda path: Image.new(mode, size).save(path)


def no_class(name: str, classes: Any, *refused: str) -> Case:
    """A case of masks without what the configuration says."""
    case = mask("x", grey(30, 20))

    def make(place: Place) -> None:
        case.make(place)
        place.config["tasks"]["t"]["classes"] = classes

    return Case(name=f"mask: {name}", make=make, commands=adapt_words, refused=refused)


# --- configurations -----------------------------------------------------------------------------


def inline(name: str, change: dict[str, Any], *refused: str) -> Case:
    """A case of a configuration given as JSON."""

    def commands(place: Place) -> list[list[str]]:
        config = json.dumps(merged(place.config, change))
        output = str(place.results / "listing.parquet")
        words = ["--config", config, "--data-root", str(place.data), "--output", output]
        return [["prepare-list", *words]]

    return Case(name=f"config: {name}", make=lambda _: None, commands=commands, refused=refused)


def merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    both = dict(base)
    for key, value in change.items():
        deep = isinstance(value, dict) and isinstance(base.get(key), dict)
        both[key] = merged(base[key], value) if deep else value
    return both


def text(name: str, content: str | bytes, *refused: str) -> Case:
    """A case of a configuration file."""

    def commands(place: Place) -> list[list[str]]:
        file = place.results / "c.yaml"
        data = content.encode() if isinstance(content, str) else content
        file.write_bytes(data.replace(b"CANARY", str(place.canary).encode()))
        words = ["--config", str(file), "--data-root", str(place.data)]
        return [["prepare-list", *words, "--output", str(place.results / "listing.parquet")]]

    return Case(name=f"config: {name}", make=lambda _: None, commands=commands, refused=refused)


def recipe(*steps: Any, **attribute: Any) -> dict[str, Any]:
    return {"recipes": {"doll": {"attribute": attribute, "binarize": list(steps)}}}


def step(name: str, change: dict[str, Any], *refused: str) -> Case:
    """A case of a chain of steps, refused before any map is read."""

    def commands(place: Place) -> list[list[str]]:
        config = json.dumps(merged(place.config, change))
        files = ["--images", "absent", "--relevance", "absent", "--output", "m.h5"]
        return [["binarize", "--config", config, "--recipe", "doll", *files]]

    return Case(name=f"config: {name}", make=lambda _: None, commands=commands, refused=refused)


LAUGHS = "a0: &a0 [x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
OTSU: dict[str, Any] = {"otsu": {}}
NOT_SAFE = ("w.safetensors", "is not a safetensors file", "convert it")

CASES = [
    weights("a pickle", pickled, *NOT_SAFE),
    weights("a torch file", torch_saved, *NOT_SAFE),
    weights("empty", lambda _, path: path.touch(), *NOT_SAFE),
    weights("truncated", half, *NOT_SAFE),
    weights("a header of 2^62 bytes", header("{}", 1 << 62), *NOT_SAFE),
    weights("a deep header", header("[" * 9999), *NOT_SAFE),
    weights(
        "a type that is none",
        header('{"a":{"dtype":"X","shape":[],"data_offsets":[0,0]}}'),
        *NOT_SAFE,
    ),
    weights(
        "other shapes",
        tensors(a=np.zeros((3, 3))),
        "does not fit the network",
        "name the architecture",
    ),
    weights("not finite", tensors(a=[np.nan]), "'a'", "not finite"),
    weights("missing", lambda *_: None, "w.safetensors does not exist"),
    weights("a folder", lambda _, path: path.mkdir(), "w.safetensors does not exist"),
    Case(
        name="table: a finding without a positive case",
        make=no_positive,
        commands=member("x", lambda *_: None).commands,
        check=trained_without,
    ),
    member("other findings", described(findings=["A", "C"]), "other findings"),
    member("findings out of order", described(findings=["B", "A"]), "other findings"),
    member(
        "other weights",
        replaced(tensors(a=[1]), told=False),
        "is not the file that model.json describes",
    ),
    member("a pickle as weights", replaced(pickled, told=True), "is not a safetensors file"),
    member(
        "weights of another network",
        replaced(tensors(a=[1]), told=True),
        "does not fit the network",
    ),
    member(
        "a network from the internet", described(architecture="timm:hf-hub:x/y"), "unknown library"
    ),
    member(
        "an unknown network",
        described(architecture="os.system"),
        "unknown architecture 'os.system'",
    ),
    member(
        "no description",
        lambda _, folder: (folder / "model.json").unlink(),
        "model.json does not exist",
    ),
    member(
        "a description of nothing",
        lambda _, folder: (folder / "model.json").write_text("[]"),
        "model.json",
        "not a member's description",
    ),
    member(
        "more keys of the input",
        described(input=SPEC | {"__class__": "x"}),
        "not a member's description",
    ),
    member(
        "an input of words",
        described(input=SPEC | {"size": "$(touch canary)"}),
        "not a member's description",
    ),
    member("a huge input", described(input=SPEC | {"size": 10**9}), "not a member's description"),
    member("division by zero", described(input=SPEC | {"std": 0}), "not a member's description"),
    mask("wrong size", grey(31, 20), "'good3.png'", "is 31x20, its image 30x20 pixels"),
    mask("colours", lambda p: Image.new("RGB", (30, 20), "red").save(p), "has colours"),
    mask(
        "claims 30000 x 30000",
        lambda path: path.write_bytes(png_header(30000, 30000)),
        "'good3.png'",
    ),
    mask("no image", lambda path: path.write_bytes(b"x"), "not a readable image"),
    mask("missing", lambda path: None, "file is missing"),
    mask("out of the root", grey(30, 20), "leaves the data root", file="../../../secret"),
    mask(
        "a link out of the root",
        lambda path: path.symlink_to(path.parents[2] / "secret"),
        "leaves the data root",
    ),
    no_class(
        "a class that is nowhere",
        {"square": [1], "round": [7]},
        "class 'round'",
        "values there: 0, 1",
    ),
    inline("unknown key", {"epochz": 1}, "unknown key 'epochz'", "known keys"),
    inline("unknown key inside", {"prepare": {"sise": 3}}, "'prepare'", "'sise'"),
    inline("a key for browsers", {"<script>": 1}, "unknown key '<script>'"),
    inline("a key with line ends", {"a\nb": 1}, "unknown key 'a\\nb'"),
    inline("a word for a number", {"seed": "one"}, "'seed'", "integer"),
    inline("true for a number", {"seed": True}, "'seed'", "integer"),
    inline("a negative seed", {"seed": -1}, "'seed'"),
    inline("not a number", {"prepare": {"valid": float("nan")}}, "prepare.valid", "finite"),
    inline("infinite", {"classify": {"learning_rate": float("inf")}}, "learning_rate", "finite"),
    inline(
        "no patients to train", {"prepare": {"valid": 0.5, "test": 0.5}}, "no patients to train"
    ),
    inline("a data set for shells", {"dataset": "a; touch canary"}, "'dataset'"),
    inline("a data set that is run", {"dataset": "$(touch canary)"}, "'dataset'"),
    inline("a data set outside", {"dataset": "../x"}, "'dataset'"),
    inline("a data set with a line end", {"dataset": "x\n"}, "'dataset'"),
    inline(
        "a member for shells",
        {"classify": {"members": {"a`touch canary`": {}}}},
        "classify.members",
    ),
    inline("a recipe outside", {"recipes": {"../x": {"binarize": [OTSU]}}}, "recipes"),
    inline("no recipe to release", {"release": {"recipe": "x"}}, "release.recipe", "use one of"),
    step("an unknown step", recipe({"evil": {}}), "evil", "otsu"),
    step("a step with an unknown argument", recipe({"otsu": {"x": 1}}), "otsu", "x"),
    step(
        "a step with an argument of another type",
        recipe({"clean": {"opening": "$(touch canary)"}}),
        "clean",
        "opening",
    ),
    inline(
        "a map of another recipe that is none",
        {"recipes": {"doll": {"attribute": "x", "binarize": [OTSU]}}},
        "no maps of its own",
    ),
    inline(
        "nodes for a method without",
        recipe(OTSU, method="grad_cam", adaptive={}),
        "no nodes to adapt",
    ),
    inline(
        "an unknown finding", {"attribute": {"findings": ["<b>"]}}, "unknown finding '<b>'", "A, B"
    ),
    inline("labels in two ways", {"source": {"table": {"label_column": "A"}}}, "exactly one"),
    text(
        "an object of Python",
        "dataset: !!python/object/apply:pathlib.Path.touch [CANARY]",
        "cannot be read as YAML",
    ),
    text("a list", "[1]", "not a mapping"),
    text("empty", "", "not a mapping"),
    text("not YAML", "a: [", "cannot be read as YAML"),
    text("a key twice", "seed: 1\nsource: {}\nseed: 2\n", "'seed' is in lines 1 and 3"),
    text("not UTF-8", b"dataset: \xff", "cannot be read as YAML"),
    text("a date", "dataset: 2020-01-01", "'dataset'", "put it in quotes"),
    text("numbers as keys", "1: 2\nnull: 3", "unknown key '1'"),
    text("links that multiply", LAUGHS, "more than 100000 values"),
    text("a link to itself", "a: &a [*a]", "more than 100000 values"),
    text("deep JSON", '{"a":' * 10**5, "cannot be read as YAML"),
    text("deep YAML", "[" * 10**4, "cannot be read as YAML"),
]
