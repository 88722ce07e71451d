"""Processes that are started, watched, started again and ended together."""
