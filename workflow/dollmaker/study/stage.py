"""The stage: the tables scores/study*.parquet and the folder study/report."""

from pathlib import Path

import polars as pl

from dollmaker.config.whole import Config
from dollmaker.evaluate.tasks import NOTHING
from dollmaker.pictures.sheet import to_png
from dollmaker.report.figures import amount_curves, task_curves
from dollmaker.report.pictures import examples_sheet, make_examples
from dollmaker.runtime.errors import DataError
from dollmaker.store import provenance, tables
from dollmaker.store.files import atomic_path, write_json, write_text
from dollmaker.store.index import read_index
from dollmaker.study import grid
from dollmaker.study.gather import BEST, check_hygiene, gather
from dollmaker.study.page import write_page


def write_study(config: Config, index_file: Path, study: Path, scores: Path, output: Path) -> None:
    """Tell what a start is worth, from the runs of a study.

    Args:
        config: The resolved configuration.
        index_file: The index, for the check that no test patient was seen.
        study: Folder of the runs.
        scores: Folder that receives study.parquet, study_differences.parquet, study_steps.parquet.
        output: Folder to make: README.md, hygiene.json and pictures.

    Raises:
        DataError: If a test patient was seen in training.
        ArtifactError: If a run is missing or damaged.
    """
    runs = grid.runs(config)
    if not runs:
        raise DataError("the study has no run: the configuration has no task; add one to tasks.")
    index, _ = read_index(index_file)
    hygiene = check_hygiene(index, study, runs)
    replicates, seed = config.evaluate.bootstrap, config.seed
    table, differences, steps = gather(study, runs, grid.budgets(config), replicates, seed)
    header = provenance.header("study", config.study.dump(), seed=config.seed)
    tables.write(table, scores / "study.parquet", header)
    tables.write(differences, scores / "study_differences.parquet", header)
    tables.write(steps, scores / "study_steps.parquet", header)
    with atomic_path(output) as folder:
        folder.mkdir(parents=True)
        write_text(folder / "README.md", write_page(table, differences, steps, hygiene))
        write_json(folder / "hygiene.json", hygiene)
        for (architecture, task), group in table.group_by(
            "architecture", "task", maintain_order=True
        ):
            name = f"{architecture}-{task}"
            starts = group.filter(pl.col("tuning") != NOTHING)
            (folder / f"{name}-amounts.png").write_bytes(amount_curves(starts).light)
            place = study / str(architecture) / str(task)
            # The runs of BEST lie in folders of other tunings.
            own = starts.filter(pl.col("tuning") != BEST)
            for (tuning,), rows in own.group_by("tuning", maintain_order=True):
                inits = rows["init"].unique(maintain_order=True)
                folders = {f"{init}-{tuning}": place / f"{init}-{tuning}" for init in inits}
                _draw(folder, f"{name}-{tuning}", folders)


def _draw(folder: Path, name: str, runs: dict[str, Path]) -> None:
    """The curves of the starts of one tuning, and what they draw in the same images."""
    curves = {run: tables.read(path / "curve.parquet") for run, path in runs.items()}
    (folder / f"{name}-epochs.png").write_bytes(task_curves(curves).light)
    examples = make_examples(runs)
    if examples is not None:
        (folder / f"{name}-examples.png").write_bytes(to_png(examples_sheet(examples)))
