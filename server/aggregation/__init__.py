"""Aggregation: how the answers of a cohort become one mean, and what of them the server sees; a file each."""
