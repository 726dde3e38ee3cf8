"""A user of a release has no Snakemake, Lightning or Captum: the base dependencies do."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from release.small_release import build

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
from dollmaker import PseudoLabels
from dollmaker.runtime.cli import main

release, output = sys.argv[2:]
data = PseudoLabels(release)
assert sum(int(item["masks"].sum()) for item in data) == data.table["area"].sum() > 0
assert main(["verify", release]) == 0
assert main(["stats", release]) == 0
assert main(["show", release, "i0", "--output", output + "/i0.png"]) == 0
assert main(["diff", release, release]) == 0
assert main(["evaluate", release, "--truth", release + "/chexlocalize/train.json"]) == 0
for form in ("png", "chexlocalize", "coco", "yolo"):
    assert main(["export", release, "--to", form, "--output", output + "/" + form]) == 0
assert not REFUSED & {name.split(".")[0] for name in sys.modules}
"""


def refused() -> set[str]:
    """Modules of everything that only the workflow needs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    plain = [
        {re.split(r"[><=\[ ]", entry)[0] for entry in entries}
        for entries in (project["optional-dependencies"]["workflow"], project["dependencies"])
    ]
    return {MODULES.get(name, name) for name in plain[0] - plain[1]}


def test_a_release_is_used_with_the_base_dependencies_alone(tmp_path: Path) -> None:
    release = build(tmp_path / "x")
    modules = refused()
    assert modules >= {"snakemake", "lightning", "captum", "timm", "peft", "torchvision", "skimage"}
    done = subprocess.run(
        [sys.executable, "-c", BLOCKER + USE, ",".join(modules), str(release), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "workflow")},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "is whole" in done.stdout


@pytest.mark.parametrize("words", ["import dollmaker", "import dollmaker.release.command"])
def test_importing_dollmaker_is_instant(words: str) -> None:
    heavy = "{'torch', 'numpy', 'polars', 'h5py', 'PIL'}"
    code = f"import sys; {words}; assert not {heavy} & set(sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow")}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
