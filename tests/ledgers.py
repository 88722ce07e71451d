"""A ledger's budgets, as a test wants them before any run."""

from __future__ import annotations

from fedmodel.ledger import Ledger, Scope


def make_budget(ledger: Ledger, scope: Scope) -> None:
    """Create a budget for which no run asks yet, by the rule by which a run's own is created."""
    if ledger.scope(scope.name) != scope:
        with ledger._appending():
            ledger._enter_scope(scope, ledger.standing())


def budget_of(ledger: Ledger, name: str) -> Scope:
    """Return a budget that is there."""
    found = ledger.scope(name)
    assert found is not None, f"there is no {name}"
    return found
