"""What time a ledger's entries have: the clock's, which is corrected by moments and never goes back by more."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from fedmodel.errors import LedgerError
from fedmodel.ledger.entries import Kind, told_time

# Clocks are corrected by moments all the time; within one, an entry takes the time of the one before.
_MOMENT: Final = timedelta(seconds=60)


def now() -> datetime:
    """Return the time by this machine's clock."""
    return datetime.now(UTC)


def time_after(before: str, kind: Kind) -> str:
    """Return the time of an entry: now, or that of the entry before where the clock was set back by a moment.

    Raises:
        LedgerError: When it was set back by more, unless a person overrides.
    """
    moment = now()
    told = told_time(moment)
    if told >= before or kind == "override":
        return told
    if datetime.fromisoformat(before) - moment <= _MOMENT:
        return before
    raise LedgerError(
        f"the clock says {told}, before the newest entry's {before}; set the clock right, or enter an override if that"
        " entry's time is the wrong one"
    )
