"""Estimate: what a run costs, from the source's tables, a trial of every stage, and past runs."""
