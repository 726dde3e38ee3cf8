"""Classify: a committee of multi-label classifiers, one member a job."""
