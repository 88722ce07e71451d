"""Engines: what carries a simulated run, a file each."""
