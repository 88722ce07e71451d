"""Scenarios drafted from what a person says, and from the header of a table, with made-up records to try them on."""
