"""Segment: a segmentation network is pre-trained end to end on the released masks."""
