"""Adapt: segmenters are fine-tuned on small sets of true masks, from several starts."""
