"""The study: what a start is worth, over tasks, architectures, tunings and numbers of images."""
