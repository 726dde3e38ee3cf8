"""A user of a release has no torch, Snakemake, Lightning or Captum: the base dependencies do."""

import os
import re
import subprocess
import sys
import tomllib
from contextlib import suppress
from itertools import chain
from pathlib import Path

import pytest

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
assert main(["predict", release, output, "--output", output + "/p"]) == 1
try:
    from dollmaker import PseudoLabels
except ImportError as error:
    assert str(error).endswith('pip install "dollmaker[torch]".'), error
assert main(["estimate", "--config", "x.yaml"]) == 1
assert not REFUSED & {name.split(".")[0] for name in sys.modules}
"""

LOAD = """
from dollmaker import PseudoLabels

data = PseudoLabels(sys.argv[2])
assert sum(int(item["masks"].sum()) for item in data) == data.table["area"].sum() > 0
import dollmaker.adapt.saved, dollmaker.predict.stage, dollmaker.segment.export
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


def run(code: str, modules: set[str], *words: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a process that has not these modules."""
    return subprocess.run(
        [sys.executable, "-c", BLOCKER + code, ",".join(modules), *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
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
    done = run(USE, modules, made, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "is whole" in done.stdout
    for extra in ("torch", "workflow"):
        assert f'which is not installed; pip install "dollmaker[{extra}]".' in done.stderr


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
