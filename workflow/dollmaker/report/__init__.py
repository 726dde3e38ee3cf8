"""Report: one page for people, one summary for machines, and the main figures."""
