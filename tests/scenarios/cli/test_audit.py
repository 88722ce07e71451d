"""What a person is told of an audit before it runs."""

from __future__ import annotations

from fedmodel.audit.plan import Plan, SiloCanaries
from scenarios.cli.audit import _told

SILO = SiloCanaries("north", 60, 1.0, 0.01, 40, 1, 3.0, 1e-5, 0.5)


def plan(needed: int) -> Plan:
    return Plan("ab" * 32, "probe", (SILO,), guesses=50, significance=0.05, needed=needed, power=0.25)


def test_where_no_number_of_right_guesses_could_refute_that_is_said() -> None:
    assert "50 guesses, of which 48 right refute epsilon 3.0000 at delta 0.00001" in _told(plan(48))
    assert "50 guesses, of which 50 right refute epsilon" in _told(plan(50))
    none = _told(plan(51))  # one more than there are
    assert "50 guesses, of which no number that is right could refute epsilon 3.0000" in none
    assert "51" not in none
