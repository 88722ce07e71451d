"""Audits of simulated runs: planned, entered, evaluated; and the faults that test them."""
