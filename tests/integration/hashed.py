"""Imported by the process that others are forked from: a silo's code is hashed in it, once for all of them."""

from __future__ import annotations

from clients.policy import own_code

own_code()
