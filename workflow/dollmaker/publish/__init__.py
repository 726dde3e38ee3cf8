"""A release where others find it: the Hub, Zenodo, or a folder."""
