"""Prepare: source tables and images become an index and image shards."""
