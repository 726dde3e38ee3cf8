"""What the Snakefile asks before the first job: look-ups for rules, and what would stop a run."""
