"""dollmaker: pixel-level pseudo-masks from image-level labels.

The stages in the order the data flow; everything is written to results/{dataset}/.
`snakemake --cores 2` runs the embedded default, config.yaml.
"""

import os.path
import re
import sys
from pathlib import Path

from snakemake.logging import logger
from snakemake.utils import min_version

min_version("9.0")

ROOT = Path(str(workflow.current_basedir))
sys.path.insert(0, str(ROOT / "workflow"))

from dollmaker.config import weight_names
from dollmaker.config.settings import complete
from dollmaker.fetch import needed
from dollmaker.launch import pipeline
from dollmaker.launch.preflight import preflight, preflight_segmenter, preflight_study
from dollmaker.release.replaced import tell_other_settings
from dollmaker.runtime import cores
from dollmaker.runtime.errors import DollmakerError
from dollmaker.status.run import mend_error, write_plan
from dollmaker.study import grid

logger.addFilter(mend_error)

try:
    CONFIG = pipeline.configure(config, ROOT / "config.yaml", workflow.configfiles)
    # With the recipes of `snakemake compare`, and the members that they ask for.
    COMPARED = complete(CONFIG)
    LISTING = preflight(CONFIG) if workflow.is_main_process else None
except DollmakerError as error:
    sys.exit(f"dollmaker: error: {error}")

DATASET = CONFIG.dataset
DATA_ROOT = pipeline.data_root(CONFIG)

# Threads of jobs that have the machine for themselves.
CORES = cores.planned(workflow.resource_settings.cores)

# Jobs stop at the first error, use this package and, unless conda or a container brings one, this Python.
JOB_PATHS = f"set -euo pipefail; export PYTHONPATH='{ROOT}/workflow' DOLLMAKER_RESULTS='results/{DATASET}'; "
if not workflow.deployment_settings.deployment_method:
    JOB_PATHS += f"export PATH='{Path(sys.executable).parent}':$PATH; "
shell.prefix(JOB_PATHS)


wildcard_constraints:
    dataset=r"[A-Za-z0-9][A-Za-z0-9_.-]*",
    shard=r"\d+",
    member=r"[^/]+",
    recipe=r"[^/]+",
    task=r"[^/]+",
    init=r"random|imagenet|classifier|doll",
    tuning=r"full|head|decoder|adapter|lora|bias",
    architecture=r"[^/]+",
    pretraining=r"[^/]+",
    start=r"[^/]+",
    weights=weight_names.FILES,
    named="|".join(map(re.escape, grid.tunings(CONFIG))),


localrules:
    all,
    compare,
    study,
    fetch_weights,


onstart:
    planned = [log for job in workflow.dag.needrun_jobs() for log in job.log]
    write_plan(Path(f"results/{DATASET}"), map(str, planned))


rule all:
    """The release, the segmenter, the scores and the report."""
    input:
        f"results/{DATASET}/release.verified",
        f"results/{DATASET}/segmenter",
        f"results/{DATASET}/report.html",
        f"results/{DATASET}/summary.json",


include: "workflow/rules/common.smk"
include: "workflow/rules/prepare.smk"
include: "workflow/rules/fetch.smk"
include: "workflow/rules/classify.smk"
include: "workflow/rules/attribute.smk"
include: "workflow/rules/binarize.smk"
include: "workflow/rules/release.smk"
include: "workflow/rules/segment.smk"
include: "workflow/rules/explain.smk"
include: "workflow/rules/adapt.smk"
include: "workflow/rules/study.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/compare.smk"
include: "workflow/rules/report.smk"
