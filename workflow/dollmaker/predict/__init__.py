"""Masks of pictures that nobody has labelled, by the models of a release."""
