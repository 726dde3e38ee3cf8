"""What a job of each stage loads before it begins: hundreds of jobs pay for it.

The command line is run with a configuration that does not exist, so that it ends right after it
imported what the stage needs.
"""

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

LOOK = """
import sys
from dollmaker.runtime.cli import main
code = main(sys.argv[1:])
print(*sorted({name.split(".")[0] for name in sys.modules}))
sys.exit(code)
"""


def test_help_is_instant() -> None:
    """Seconds of the processor, which others that run beside it do not change."""
    code = "import time\nfrom dollmaker.runtime.cli import main\ntry: main(['--help'])\n"
    code += "finally: print(time.process_time())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "fetch" in done.stdout and float(done.stdout.split()[-1]) < 0.2, done.stdout


@pytest.mark.parametrize("command", STAGES)
def test_a_job_loads_only_what_its_stage_uses(command: str) -> None:
    allowed, options = STAGES[command]
    words = [command, "--config", "nowhere.yaml", "--output", "x", *options.split()]
    done = subprocess.run(
        [sys.executable, "-c", LOOK, *words], capture_output=True, text=True, check=False
    )
    assert (done.returncode, "nowhere.yaml" in done.stderr) == (1, True), done.stderr
    loaded = set(done.stdout.split())
    assert "numpy" in loaded  # it did import the stage
    assert loaded & HEAVY <= allowed
