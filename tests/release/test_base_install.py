"""A user of a release has no torch, Snakemake, Lightning or Captum: the base dependencies do."""

import json
import os
import re
import subprocess
import sys
import tomllib
from contextlib import suppress
from itertools import chain
from pathlib import Path

import pytest

from dollmaker.runtime.cli import COMMANDS
from dollmaker.runtime.errors import ArtifactError
from dollmaker.store import tables

ROOT = Path(__file__).parents[2]

#: Distributions whose modules are called otherwise.
MODULES = {
    "pydensecrf2": "pydensecrf",
    "pyyaml": "yaml",
    "scikit-image": "skimage",
    "segmentation-models-pytorch": "segmentation_models_pytorch",
}

BLOCKER = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in REFUSED:
            raise ModuleNotFoundError(f"no module named {name!r}", name=name)

REFUSED = set(sys.argv[1].split(","))
sys.meta_path.insert(0, Refuse())
"""

USE = """
from dollmaker.runtime.cli import main

release, output = sys.argv[2:]
assert main(["verify", release]) == 0
assert main(["stats", release]) == 0
assert main(["show", release, "i0", "--output", output + "/i0.png"]) == 0
assert main(["diff", release, release]) == 0
assert main(["evaluate", release, "--truth", release + "/chexlocalize/train.json"]) == 0
for form in ("png", "chexlocalize", "coco", "yolo"):
    assert main(["export", release, "--to", form, "--output", output + "/" + form]) == 0
assert main(["init", output + "/own"]) == 0
assert main(["completion", "bash"]) == 0
assert main(["status", output + "/run"]) == 0
assert main(["publish", release, "--to", output + "/sent"]) == 0
try:
    from dollmaker import PseudoLabels
except ImportError as error:
    assert str(error).endswith('pip install "dollmaker[torch]".'), error
assert not REFUSED & {name.split(".")[0] for name in sys.modules}
"""

#: Every command by words that it takes, and what it says where they lead nowhere.
ASK = """
import contextlib, io, json
from dollmaker.runtime import cli

told = {}
for name, targets in cli.COMMANDS.items():
    for target in targets.split():
        words = [name]
        for one in cli._parser(name, target)._actions:
            if one.required:
                value = one.choices[0] if one.choices else "1"
                words += [*one.option_strings[:1], value]
        with contextlib.redirect_stderr(io.StringIO()) as said:
            code = cli.main(words)
        told[target] = code, said.getvalue()
print(json.dumps(told))
"""

PREDICT = """
from dollmaker.runtime.cli import main

sys.exit(main(["predict", *sys.argv[2:4], "--output", "p", "--model", sys.argv[4]]))
"""

LOAD = """
from dollmaker import PseudoLabels

data = PseudoLabels(sys.argv[2])
assert sum(int(item["masks"].sum()) for item in data) == data.table["area"].sum() > 0
import dollmaker.adapt.saved, dollmaker.predict.models, dollmaker.predict.stage
import dollmaker.segment.export
assert not REFUSED & {name.split(".")[0] for name in sys.modules}
"""


def refused(*extras: str) -> set[str]:
    """Modules of everything that only these extras need."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    entries = (project["optional-dependencies"][extra] for extra in extras)
    asked, base = (
        {re.split(r"[><=\[ ]", entry)[0] for entry in listed}
        for listed in (chain.from_iterable(entries), project["dependencies"])
    )
    return {MODULES.get(name, name) for name in asked - base - {"dollmaker"}}


def run(
    code: str, modules: set[str], *words: Path, place: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run code in a process that has not these modules, in a folder."""
    return subprocess.run(
        [sys.executable, "-c", BLOCKER + code, ",".join(modules), *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT / "workflow")},
    )


def test_a_release_is_used_with_the_base_dependencies_alone(made: Path, tmp_path: Path) -> None:
    modules = refused("torch", "workflow", "deep")
    assert modules >= {
        "torch",
        "pyarrow",
        "imagecodecs",
        "snakemake",
        "lightning",
        "captum",
        "timm",
        "peft",
        "skimage",
    }
    (tmp_path / "run/logs").mkdir(parents=True)
    (tmp_path / "run/logs/train_member-a.log").write_text("classify a epoch 3/9\n")
    done = run(USE, modules, made, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "is whole" in done.stdout and "train_member" in done.stdout
    assert not done.stderr, done.stderr


#: Commands that get as far as their files: those that need no extra, predict (below), and one that
#: asks for the workflow's libraries when it is at work.
BASE = {"init", "status", "completion", "verify", "stats", "show", "diff", "export", "publish"}
LATER = {"predict", "thresholds"}


def test_every_command_works_or_names_the_extra_that_it_needs(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()  # what the words name
    done = run(ASK, refused("torch", "workflow", "deep"), place=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told.keys() == {target for two in COMMANDS.values() for target in two.split()}
    sentence = r'dollmaker: error: this needs \w+, .*; pip install "dollmaker\[workflow\]"\.\n'
    for name, targets in COMMANDS.items():
        for target in targets.split():
            code, said = told[target]
            if name in BASE | LATER or target == "evaluate.release:evaluate_release":
                assert "pip install" not in said, (target, said)
            else:
                assert code == 1 and re.fullmatch(sentence, said), (target, said)


@pytest.mark.parametrize(
    ("extras", "model", "named"),
    [
        (("torch", "workflow", "deep"), "segmenter", "torch"),
        (("torch", "workflow", "deep"), "committee", "workflow"),
        (("workflow",), "committee", "workflow"),
    ],
)
def test_predict_names_the_extra_of_its_model(
    made: Path, tmp_path: Path, extras: tuple[str, ...], model: str, named: str
) -> None:
    """The committee explains, for which the workflow's libraries are needed, too."""
    words = [made, ROOT / "docs/pipeline.png", Path(model)]
    done = run(PREDICT, refused(*extras), *words, place=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    sentence = rf'dollmaker: error: this needs \w+, .*; pip install "dollmaker\[{named}\]"\.\n'
    assert re.fullmatch(sentence, done.stderr), done.stderr
    assert not (tmp_path / "p").exists()


def test_the_loader_and_predict_need_torch_and_not_the_workflow(made: Path) -> None:
    brought = {"yaml", "jinja2"}  # by torch and by huggingface_hub
    done = run(LOAD, refused("workflow") - refused("torch") - brought, made)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("words", ["import dollmaker", "import dollmaker.runtime.cli"])
def test_importing_dollmaker_is_instant(words: str) -> None:
    heavy = "{'torch', 'numpy', 'polars', 'h5py', 'PIL'}"
    code = f"import sys; {words}; assert not {heavy} & set(sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow")}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_tables_are_the_same_without_pyarrow(
    release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sorted(release.rglob("*.parquet"))
    expected = [tables.read(file) for file in files]
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for file, table in zip(files, expected, strict=True):
        found = tables.read(file)
        assert found.equals(table) and found.schema == table.schema
    whole = files[0].read_bytes()
    for place in (10, len(whole) // 2, len(whole) - 20):
        files[0].write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with suppress(ArtifactError):
            assert tables.read(files[0]).schema == expected[0].schema
