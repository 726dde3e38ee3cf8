"""Attribute: the committee's relevance maps, by Integrated Gradients and other methods."""
