"""Scores and correlations, with numpy alone."""
