"""The files of the workflow beside this package: where they are, and a copy of them to run in."""

import shutil
from pathlib import Path

from dollmaker.runtime.errors import ArtifactError
from dollmaker.store.files import atomic_path, require_new

#: Files and folders that Snakemake reads, from the root of the repository.
_PARTS = (
    *("Snakefile", "config.yaml", "envs", "workflow/Snakefile"),
    *(f"workflow/{name}" for name in ("configs", "profiles", "report", "rules", "schemas")),
)


def home() -> Path:
    """The folder with Snakefile and ``workflow/``: the repository, or what the wheel brought.

    Raises:
        ArtifactError: If there is neither.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_workflow", package.parents[1]):
        if (folder / "Snakefile").is_file():
            return folder
    raise ArtifactError(f"{package} has lost its workflow; install dollmaker again.")


def copy_layout(source: Path, target: Path) -> None:
    """Copy the files of the workflow, not the package."""
    for name in _PARTS:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, dirs_exist_ok=True)
        else:
            shutil.copyfile(source / name, target / name)


def init(folder: Path, /) -> str:
    """Lay out a workflow that runs: configuration, profiles, rules.

    Args:
        folder: Folder to make.

    Raises:
        DataError: If something is there already.
    """
    require_new(folder)
    with atomic_path(folder.resolve()) as part:
        copy_layout(home(), part)
    return (
        f"{folder} is laid out. Go there, change config.yaml (or copy one of workflow/configs) and "
        "run: snakemake --cores 2"
    )
