"""Evaluate: classifiers, pseudo-masks and fine-tuned segmenters against truth."""
