"""A short run of the fuzz target, and that it can find something."""

from __future__ import annotations

import pytest

from fedmodel.crypto import Suite
from fedmodel.secagg import messages
from tests.fedmodel.secagg import fuzz


def test_mutated_messages_are_refused() -> None:
    findings, given = fuzz.run(2_000, seed=1)
    assert findings == []
    assert sum(given.values()) == 2_000
    assert given.keys() > {kind.name for kind in messages.Kind}


def test_what_is_not_mutated_is_accepted() -> None:
    """So that the refusals are the mutations' doing."""
    grounds = fuzz.make_grounds(Suite.CLASSIC)
    for kind, targets in fuzz.TARGETS.items():
        for target in targets:
            target(grounds, grounds.originals[kind])


def test_an_unchecked_signature_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "verify", lambda *told: None)
    findings, _ = fuzz.run(300, seed=1)
    assert any("nobody signed" in finding for finding in findings)
