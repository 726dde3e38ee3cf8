"""The configuration: read, completed, checked, and what each stage reads of it."""
