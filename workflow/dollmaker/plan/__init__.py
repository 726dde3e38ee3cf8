"""Plan: what a full run costs, from the source's table and a minute of calibration."""
