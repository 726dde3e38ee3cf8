"""Compare: all recipes on one data set, with thresholds chosen with and without truth."""
