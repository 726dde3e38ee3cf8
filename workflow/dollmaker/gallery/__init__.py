"""The gallery of a release: a page to look at every pair, without server and network."""
