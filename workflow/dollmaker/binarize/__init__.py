"""Binarize: relevance maps become masks, by a chain of named steps."""
