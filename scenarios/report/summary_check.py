"""`summary.json` held to the ledgers: every figure of privacy that stands there has to follow from their charges.

A deployed server's summary says what silos reported to it, who may have charged more than the last report of theirs
that arrived. There the ledger may have more steps than were reported, and never fewer; the figures of the plan follow
all the same, wherever any step was reported.
"""

from __future__ import annotations

from typing import Any, Final

from fedmodel import plans
from fedmodel.errors import ClaimRefuted
from fedmodel.ledger import Standing
from scenarios.report.diff import differences, in_words
from scenarios.report.gather import SUMMARY, Gathered
from scenarios.runs.event_book import BOOK, row_from_book
from scenarios.runs.summary import row_from_ledger, row_reported
from scenarios.runs.used import used_names

# A cap that a person changes after the run is no fault of the summary's, which tells the one of its time.
_LATER: Final = ("budget",)
# What does not depend on how much was charged.
_FIXED: Final = ("silo", "unit", "max_records", "delta", "accountant", "target_epsilon", "mu_floor", "source")
# What hangs on how much was charged, once anything was.
_OF_STEPS: Final = ("steps", "epsilon_of_steps_taken", "odometer")


def check_summary(gathered: Gathered) -> tuple[str, ...]:
    """Refuse a summary that tells another figure of privacy than the ledgers, or another model than the scenario.

    What it does not tell is no fault.

    Returns:
        The silos that had charged more than they had reported.

    Raises:
        ClaimRefuted: When a figure does not follow; the first that does not is named.
    """
    source = BOOK if gathered.booked else "the ledgers"
    rows, silos, fewer = gathered.summary["privacy"], gathered.silos, []
    if len(rows) != len(silos):
        raise ClaimRefuted(f"{SUMMARY}: privacy: {len(rows)} rows stand, and it is of {len(silos)} silos")
    for place, (silo, row) in enumerate(zip(silos, rows, strict=True)):
        follows = _follows(gathered, silo, row)
        unheard = _steps(row) == 0 and row["epsilon"] == 0 != follows["epsilon"]  # of a job besides training
        if row["source"] == "reported" and (_steps(row) < follows["steps"] or unheard):
            fewer.append(silo)
            kept = _FIXED if _steps(row) == 0 else [name for name in follows if name not in _OF_STEPS]
            follows = {name: follows[name] for name in kept}
        told = {name: value for name, value in row.items() if name in follows and name not in _LATER}
        for difference in differences(told, {name: follows[name] for name in told}, f"privacy[{place}]"):
            raise ClaimRefuted(f"{SUMMARY}: {in_words(difference)} from {source}")
    used = used_names(gathered.scenario, gathered.summary.get("used"))
    if gathered.summary.get("used", used) != used:  # a summary from before has none
        raise ClaimRefuted(f"{SUMMARY}: used: {gathered.summary['used']} stands, and the scenario names {used}")
    named = {row["key"]: row["use"] for row in gathered.summary.get("own_code", ())}
    if named != gathered.scenario.own_code:
        raise ClaimRefuted(f"{SUMMARY}: own_code: {named} stands, and the scenario names {gathered.scenario.own_code}")
    return tuple(fewer)


def _follows(gathered: Gathered, silo: str, row: dict[str, Any]) -> dict[str, Any]:
    """Return the row that follows from a silo's ledger, as the run's own, or what it should have reported."""
    plan, ledger = gathered.scenario.plan(silo), gathered.ledgers.get(silo)
    if gathered.booked:
        return row_from_book(plan, None if ledger is None else ledger.own)
    if row["source"] == "reported" and not gathered.simulated:
        own = None if ledger is None else ledger.own
        if own is None or not own.charges:
            return row_reported(plan, (), ())
        parts = plans.parts_beginning(gathered.scenario, silo, own.plan)
        return row_reported(plan, parts, own.drawn[: len(gathered.scenario.phases)])
    standing, run = (Standing(), None) if ledger is None else (ledger.standing, ledger.run)
    return row_from_ledger(plan, standing, run, goes_on=gathered.scenario.goes_on)


def _steps(row: dict[str, Any]) -> int:
    steps = row.get("steps")
    return steps if isinstance(steps, int) else 0
