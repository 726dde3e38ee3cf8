"""Puts the workflow beside the package into the wheel, as ``dollmaker/_workflow``.

All else is in pyproject.toml. ``dollmaker init`` copies it from there; the schema is read there.
"""

import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT / "workflow"))

from dollmaker.launch.layout import copy_layout  # noqa: E402


class BuildWithWorkflow(build_py):
    """The modules, and the files that Snakemake reads."""

    def run(self) -> None:
        """Copy them."""
        super().run()
        if not self.editable_mode:
            copy_layout(ROOT, Path(self.build_lib) / "dollmaker" / "_workflow")


setup(cmdclass={"build_py": BuildWithWorkflow})
