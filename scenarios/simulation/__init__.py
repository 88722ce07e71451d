"""Simulated runs: checked, begun or taken up again, and carried by an engine."""
