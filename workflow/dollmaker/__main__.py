"""``python -m dollmaker``."""

from dollmaker.runtime.cli import entry

entry()
