"""Audits of simulated runs: planned, and evaluated from what lies in the folder."""
