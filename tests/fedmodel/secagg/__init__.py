"""Tests of `fedmodel.secagg`: each silo and the server against whoever is hostile, over real messages."""
