"""How fast and how exact: measured side by side, in one run."""
