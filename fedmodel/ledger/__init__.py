"""A silo's own record of what was done to its data: append-only, chained, signed, in one SQLite file.

`entries` says what an entry is and which may follow which; `book` keeps them in a file and is the only one that writes;
`verifying` reads a file that may have been changed, and names the first entry that is not as it was written.
"""

from fedmodel.ledger.book import Charge, Ledger, Reservation
from fedmodel.ledger.entries import MICRO, Entry, Run, Scope, Standing, origin_of
from fedmodel.ledger.verifying import Verified, read_ledger, verify_ledger

__all__ = [
    "MICRO",
    "Charge",
    "Entry",
    "Ledger",
    "Reservation",
    "Run",
    "Scope",
    "Standing",
    "Verified",
    "origin_of",
    "read_ledger",
    "verify_ledger",
]
