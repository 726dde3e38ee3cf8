"""What a job of each stage loads before it begins: hundreds of jobs pay for it.

The command line is run with a configuration that does not exist, so that it ends right after it
imported what the stage needs. Each stage has a process of its own, the child of one that loaded
only libraries which the stage may load: torch is not read from disk for each of them.
"""

import json
import subprocess
import sys

import pytest

#: Libraries that take a noticeable part of a second to load.
HEAVY = {
    *("torch", "torchvision", "timm", "segmentation_models_pytorch", "lightning", "torchmetrics"),
    *("captum", "peft", "transformers", "onnx", "sklearn", "skimage", "scipy", "polars", "pandas"),
    *("matplotlib", "jinja2", "pydicom", "nibabel", "sympy", "snakemake"),
}

TABLES = {"polars"}
NETWORKS = TABLES | {"torch", "torchvision", "timm", "segmentation_models_pytorch", "sympy"}
#: Lightning loads the others.
TRAINING = NETWORKS | {"lightning", "torchmetrics", "transformers", "matplotlib", "jinja2", "scipy"}

#: Command -> what it may load, and its required options beside --config and --output.
STAGES = {
    "prepare-decode": (TABLES, "--data-root x --listing x --shard 0 --rows x"),
    "prepare-audit": (TABLES, "--index x --images x"),
    "classify": (TRAINING, "--index x --images x --member a --weights-root x"),
    "attribute": (
        NETWORKS - {"timm", "segmentation_models_pytorch"},
        "--index x --images x --shard 0 --committee x --recipe r",
    ),
    "binarize": (TABLES | {"scipy"}, "--images x --relevance x --recipe r"),
    "labels": (TABLES | {"scipy"}, "--index x --masks x --relevance x --committee x --sanity x"),
    "segment": (TRAINING, "--index x --images x --labels x --weights-root x"),
    "adapt": (NETWORKS, "--task t --init random --tuning full --data-root x --weights-root x"),
    "explain": (
        NETWORKS | {"scipy", "skimage", "matplotlib"},
        "--segmenter x --index x --images x --labels x",
    ),
    "evaluate": (
        TABLES,
        "--index x --images x --data-root x --committee x --relevance x --masks x",
    ),
    "release": (
        TABLES | {"scipy", "matplotlib", "jinja2"},
        "--index x --images x --labels x --segmenter x --committee x --sanity x --scores x "
        "--pairs x",
    ),
}

#: Stages by what they may load, from few to many libraries; what each group is given before.
GIVEN: dict[str, list[str]] = {
    "polars": ["prepare-decode", "prepare-audit", "binarize", "labels", "evaluate", "release"],
    "torch torchvision sympy": ["attribute"],
    "timm segmentation_models_pytorch": ["adapt", "explain"],
    "lightning": ["classify", "segment"],
}

LOOK = """
import importlib, json, os, sys

def look(words):
    from dollmaker.runtime import cli
    code = cli.main(words)
    module = "dollmaker." + cli.COMMANDS[words[0]].split()[-1].partition(":")[0]
    return code, module in sys.modules, sorted({name.split(".")[0] for name in sys.modules})

for given, jobs in json.loads(sys.argv[1]):
    for name in given.split():
        importlib.import_module(name)
    for words in jobs:
        sys.stderr.flush()
        if not (child := os.fork()):
            os.dup2(1, 2)
            print("\\n" + json.dumps([words[0], *look(words)]), flush=True)
            os._exit(0)
        os.waitpid(child, 0)
"""


@pytest.fixture(scope="module")
def seen() -> dict[str, tuple[int, bool, set[str], str]]:
    """Command -> exit status, whether its module was loaded, libraries, and what it said."""
    jobs = [
        (given, [words_of(command) for command in commands]) for given, commands in GIVEN.items()
    ]
    done = subprocess.run(
        [sys.executable, "-c", LOOK, json.dumps(jobs)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found, said = {}, ""
    for line in done.stdout.splitlines():
        if line.startswith('["'):
            command, code, imported, loaded = json.loads(line)
            found[command], said = (code, imported, set(loaded), said), ""
        else:
            said += line
    return found


def words_of(command: str) -> list[str]:
    """A call with a configuration that does not exist."""
    return [command, "--config", "nowhere.yaml", "--output", "x", *STAGES[command][1].split()]


def test_help_is_instant() -> None:
    """Seconds of the processor, which others that run beside it do not change."""
    code = "import time\nfrom dollmaker.runtime.cli import main\ntry: main(['--help'])\n"
    code += "finally: print(time.process_time())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "fetch" in done.stdout and float(done.stdout.split()[-1]) < 0.2, done.stdout


def test_every_stage_is_looked_at_and_given_no_more_than_it_may_load() -> None:
    assert sorted(command for group in GIVEN.values() for command in group) == sorted(STAGES)
    given: set[str] = set()
    for names, commands in GIVEN.items():
        given |= set(names.split())
        assert all(given <= STAGES[command][0] for command in commands)


@pytest.mark.parametrize("command", STAGES)
def test_a_job_loads_only_what_its_stage_uses(
    seen: dict[str, tuple[int, bool, set[str], str]], command: str
) -> None:
    code, imported, loaded, said = seen[command]
    assert (code, "nowhere.yaml" in said, imported) == (1, True, True), said
    assert loaded & HEAVY <= STAGES[command][0]
