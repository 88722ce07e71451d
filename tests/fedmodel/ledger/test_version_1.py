"""A ledger and a kit that version 1 wrote: they open, verify and go on under every version after it.

`vectors/version_1` was written before a mechanism or a sequence of events could be named, by the calls in `written`;
nothing of it is ever written again. Its silo is a simulation's, and its key protects nothing.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fedmodel.config import read_scenario
from fedmodel.crypto import SigningKey
from fedmodel.errors import LedgerError, PrivacyBudgetExceeded
from fedmodel.ledger import Asked, Entry, Ledger, Scope, verify_ledger
from fedmodel.privacy.events import event_to_json
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from fedmodel.privacy.mechanisms.none_unsafe import UnprotectedEvent
from fedmodel.provision import read_kit, scenario_hash
from fedmodel.secagg.progress import Progress
from tests.ledgers import budget_of, make_budget

FROZEN = Path(__file__).parents[2] / "vectors" / "version_1"
EXPECTED: dict[str, Any] = json.loads((FROZEN / "expected.json").read_text())
PLAN = DpSgdEvent(8.0, 1.0, 0.25, 16, 10)
RECORDS, LETTERS = Scope("synthetic", "record", 1, 1e-5, 3.0, 8), Scope("letters", "person", 3, 1e-6, 2.0, 12)
BARE = Scope("bare", "record", 1, 1e-5, 3.0, 8)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FROZEN, tmp_path / "run"))


def opened(run: Path) -> Ledger:
    kit = run / "silos" / "north"
    return Ledger(run / "ledgers" / "north.sqlite", "north", read_kit(kit).identity, kit / "ledger.head")


def entries(run: Path) -> tuple[Entry, ...]:
    head = (FROZEN / "silos" / "north" / "ledger.head").read_bytes()
    key = read_kit(FROZEN / "silos" / "north").identity.public
    return verify_ledger(run / "ledgers" / "north.sqlite", key, [head]).entries


def written(path: Path, key: SigningKey) -> None:
    """Append what the frozen ledger holds, by the calls that it was made with."""
    scenario = EXPECTED["scenario"]
    with Ledger(path, "north", key, path.with_suffix(".head")) as ledger:
        make_budget(ledger, RECORDS)
        ledger.reserve(Asked(RECORDS, "101", PLAN, 4, scenario=scenario))
        ledger.charge("101", 1, 4, "k1")
        ledger.charge("101", 2, 4, "k2")
        ledger.charge("101", 2, 4, "k2")
        ledger.void_charge("101", 2, "nothing of it left")
        ledger.checkpoint("server")
        ledger.audit({"subject": "silo.toml", "digest": "ab" * 32, "by": "a person"})
        ledger.reserve(Asked(RECORDS, "102", DpSgdEvent(20.0, 1.0, 1.0, 10, 10, "seeded-unsafe"), 5, scenario=scenario))
        ledger.charge("102", 1, 5, "k3")
        ledger.release("102", "ended")
        ledger.override(RECORDS.name, 4.0, "a study more", "a person")
        ledger.reserve(
            Asked(budget_of(ledger, RECORDS.name), "103", DpSgdEvent(30.0, 0.5, 0.125, 8, 10), 2, scenario=scenario)
        )
        ledger.charge("103", 1, 2, "k4")
        ledger.countersign("103", scenario, "cd" * 32, "ef" * 32)
        make_budget(ledger, LETTERS)
        whole = DpSgdEvent(20.0, 1.0, 1.0, 80, 10, max_records=3)
        ledger.reserve(Asked(LETTERS, "104", whole, 4, scenario=scenario, partial=True))
        ledger.charge("104", 1, 4, "k5")
        make_budget(ledger, BARE)
        ledger.reserve(Asked(BARE, "105", UnprotectedEvent(1.0, 0.5, 4, 10), 2, scenario=scenario))
        ledger.charge("105", 1, 2, "k6")
        ledger.advance("101", Progress(2, 1, masked=True))


def test_a_ledger_of_version_1_says_what_it_said(run: Path) -> None:
    found = verify_ledger(run / "ledgers" / "north.sqlite", read_kit(run / "silos" / "north").identity.public)
    standing = found.standing
    assert (found.head.size, found.head.root.hex()) == (EXPECTED["size"], EXPECTED["root"])
    assert {name: one.admitted for name, one in standing.runs.items()} == EXPECTED["admitted"]
    assert {name: one.taken for name, one in standing.runs.items()} == EXPECTED["taken"]
    for name, scope in EXPECTED["scopes"].items():
        assert list(standing.totals(name)) == scope["totals"]
        assert standing.bound(name) == pytest.approx(float(scope["bound"]), rel=1e-5)
        assert [event_to_json(event) for event in standing.claimed(name)] == scope["claimed"]
        assert [event_to_json(event) for event in standing.events(name)] == scope["charged"]


def test_the_same_calls_write_the_entries_of_version_1(tmp_path: Path) -> None:
    """A run of one event is entered by the very bytes of before; times, nonce and chain are each ledger's own."""
    path, key = tmp_path / "ledger.sqlite", read_kit(FROZEN / "silos" / "north").identity
    written(path, key)

    def said(entry: Entry) -> tuple[object, ...]:
        body = entry.body if entry.sequence > 1 else sorted(entry.content)
        body = body if entry.kind != "checkpoint" else sorted(entry.content)
        return entry.scope, entry.run, entry.round, entry.kind, entry.key, body, entry.cap, entry.reserved, entry.spent

    assert [said(one) for one in verify_ledger(path, key.public).entries] == [said(one) for one in entries(FROZEN)]


def test_a_ledger_of_version_1_goes_on(run: Path) -> None:
    """Its reservation is charged for what is left of it, and for no step more."""
    with opened(run) as ledger:
        reserved = ledger.reservation("101")
        assert reserved is not None
        assert (reserved.plan, reserved.scope, reserved.scenario) == (PLAN, RECORDS.name, EXPECTED["scenario"])
        with pytest.raises(LedgerError, match="no other is voided"):
            ledger.void_charge("101", 2, "nothing of it left")
        ledger.charge("101", 3, 4, "k7")
        ledger.charge("101", 4, 4, "k8")
        with pytest.raises(PrivacyBudgetExceeded, match="has taken 16 of the 16"):
            ledger.charge("101", 5, 4, "k9")
        with pytest.raises(LedgerError, match="has ended"):
            ledger.charge("103", 2, 2, "k10")
        with pytest.raises(PrivacyBudgetExceeded, match="a run without noise"):
            ledger.reserve(Asked(BARE, "201", PLAN, 4))
        with pytest.raises(PrivacyBudgetExceeded, match="was taken whole"):
            ledger.reserve(Asked(LETTERS, "202", DpSgdEvent(500.0, 1.0, 1.0, 1, 10, max_records=3), 1))
        ledger.reserve(Asked(budget_of(ledger, RECORDS.name), "203", PLAN, 4))
    charge = entries(run)[EXPECTED["size"]]
    event = event_to_json(DpSgdEvent(8.0, 1.0, 0.25, 4, 10))
    assert charge.body == f'{{"event":{event},"taken":12}}'


def test_a_kit_of_version_1_opens_and_its_law_holds() -> None:
    kit = read_kit(FROZEN / "silos" / "north")
    assert (kit.law.mechanisms, kit.law.least_noise_multiplier, kit.law.noise_sources) == (("dp-sgd",), 8.0, ("os",))
    scenario = read_scenario(str(FROZEN / "scenario.toml"))
    assert kit.law.scenarios == (scenario_hash(scenario).hex(),) == (EXPECTED["scenario"],)
