"""Status: how far a run is, told from its results folder alone."""
