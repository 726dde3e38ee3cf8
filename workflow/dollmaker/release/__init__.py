"""Release: what leaves the building. Masks, ids, checksums and scores; no source pixels."""
