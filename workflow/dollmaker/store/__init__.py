"""What lies on disk: files, tables, shards, run lengths, provenance."""
