"""``python -m dollmaker``."""

from dollmaker.cli import entry

entry()
