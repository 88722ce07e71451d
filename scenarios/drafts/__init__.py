"""Scenarios drafted from the header of a table and from what its owner says, with made-up tables to try them on."""
