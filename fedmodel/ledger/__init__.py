"""A silo's own record of what was done to its data: append-only, chained, signed, in one SQLite file.

`entries` says what an entry is, `scope` what a budget is, `runs` what is held of a run, `admission` which runs a budget
admits, and `standing` which entry may follow which. `file` appends to a file, and is the only one that writes; `tables`
says what the file refuses by itself, `clock` what time an entry has, `head_file` keeps the newest signed head beside
the keys, and `kept_open` keeps the files of many silos open that share a process. `rows` answers from a few rows,
`reserving` says what is asked, and `book` is the ledger that a silo uses. `verifying` reads a file that may have been
changed, and names the first entry that is not as it was written.
"""

from fedmodel.ledger.book import Charge, Ledger
from fedmodel.ledger.entries import Entry, origin_of
from fedmodel.ledger.kept_open import kept_open, opened
from fedmodel.ledger.reserving import Asked
from fedmodel.ledger.rows import Reservation
from fedmodel.ledger.runs import Run
from fedmodel.ledger.scope import MICRO, Scope
from fedmodel.ledger.standing import Standing
from fedmodel.ledger.verifying import Verified, ledger_image, read_ledger, verify_ledger

__all__ = [
    "MICRO",
    "Asked",
    "Charge",
    "Entry",
    "Ledger",
    "Reservation",
    "Run",
    "Scope",
    "Standing",
    "Verified",
    "kept_open",
    "ledger_image",
    "opened",
    "origin_of",
    "read_ledger",
    "verify_ledger",
]
