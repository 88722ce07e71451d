"""Deployed runs: runs that are handed in, and a rehearsal of it all on one machine."""
