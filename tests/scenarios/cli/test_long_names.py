"""At 80 columns no table cuts a name, so that two silos whose long names differ in the last letter stay two."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedmodel.config import read_scenario
from fedmodel.privacy.events import EPSILON_IF_HIDDEN
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from scenarios.cli import audit, printing, report, server, shares, tables
from scenarios.cli import scenarios as listing
from scenarios.runs.summary import row_of
from scenarios.simulation.shares import Shares

ONE = "northern-university-hospital-of-the-city"
OTHER = f"{ONE[:-1]}e"
NAMES = (ONE, OTHER)
LONGEST = 40


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], str]:
    """Return what is printed at 80 columns."""
    monkeypatch.setattr(printing.out, "_width", 80)

    def show(act: Callable[[], object]) -> str:
        with printing.out.capture() as printed:
            act()
        return printed.get()

    return show


def column(text: str, place: int = 0) -> str:
    """Return a column of a table's rows, one cell after the other, with the parts of a folded cell put together."""
    rows = [line[1:-1].split("│") for line in text.splitlines() if line.startswith("│")]
    return "".join(row[place].strip() for row in rows)


def test_the_names_are_as_long_as_a_name_may_be_and_differ_at_the_end() -> None:
    assert [len(name) for name in NAMES] == [LONGEST, LONGEST]
    assert read_scenario("quickstart", [f'federation.silos=["{ONE}", "{OTHER}"]']).federation.silos == NAMES


@pytest.mark.parametrize("more", [{}, {EPSILON_IF_HIDDEN: 12345.6789, "epsilon": None}, {"epsilon": 12345.6789}])
def test_what_each_silo_spent(shown: Callable[[Callable[[], object]], str], more: dict[str, Any]) -> None:
    plan = replace(read_scenario("quickstart").plan("left"), unit="record", max_records=1)
    row = {**row_of(plan, 1.23e-5, [DpSgdEvent(8.0, 1.0, 0.123456, 20, 10)], [20]), **more}
    told = shown(lambda: tables.out.print(tables._spent([{**row, "silo": name} for name in NAMES])))
    assert column(told) == ONE + OTHER
    assert column(told, 3) == "8.00008.0000"
    assert "".join(column(told, 1).split()).count("12,345.6789" if more else up_of(row)) == 2
    assert column(told, 2) == "0.0000130.000013"
    assert "…" not in told


def up_of(row: dict[str, Any]) -> str:
    return tables._epsilon_of(row)


def test_how_a_server_stands(shown: Callable[[Callable[[], object]], str]) -> None:
    silo = {"state": "online", "last_seen": "2026-12-01T03:04:05", "ledger_entries": 1234567}
    run = {"state": "running", "rounds": 1, "rounds_planned": 3, "usefulness": None, "accuracy": None, "metrics": None}
    found = {
        "running": True, "federation": "northern", "roster": {"serial": 1, "expires": "2030-01-01T00:00:00"},
        "silos": [{**silo, "silo": name} for name in NAMES], "runs": [{**run, "run": name} for name in NAMES],
        "warnings": [],
    }  # fmt: skip
    told = shown(lambda: server._show_status(found))
    assert column(told).startswith(ONE + OTHER)
    assert column(told).endswith(ONE + OTHER)
    assert told.count("1234567") == 2
    assert "…" not in told


def test_what_each_silo_would_get() -> None:
    count_SL = np.array([[30_000, 12], [5, 9]])
    lines = [str(line) for line in shares.lines(Shares(NAMES, ("ill", "well"), count_SL, count_SL[0], 7))]
    assert [line.split()[0] for line in lines[2:4]] == list(NAMES)
    assert lines[2].count("0") >= 20  # the bar
    assert max(map(len, lines)) <= 80


def test_faults_and_bounds_of_an_audit(shown: Callable[[Callable[[], object]], str]) -> None:
    rows = [
        {"fault": f"noise-left-out-at-{name}", "check": f"noise_std_of_{name}", "caught": True, "figure": 1.234e-300,
         "explanation": "x"}
        for name in NAMES
    ]  # fmt: skip
    found = {"faults": rows, "correct": {"passed": True, "failed": [], "gauges": 28}, "seconds": 1.0}
    told = shown(lambda: audit.show_selftest(found))
    assert column(told) == "".join(str(row["fault"]) for row in rows)
    assert column(told, 1) == "".join(str(row["check"]) for row in rows)
    assert "…" not in told
    bound = {"epsilon": 123456.789, "confidence": 0.95, "assumption": f"scores_of_{ONE}_are_normal"}
    gauge = {"name": "noise", "passed": True, "silo": ONE, "explanation": ""}
    verdict = {"lower_bounds": dict.fromkeys(audit._NAMES, bound), "gauges": [gauge], "verdict": "not-refuted",
               "claimed_epsilon": 1.0, "delta": 1e-5, "reasons": ["it held"]}  # fmt: skip
    told = shown(lambda: audit.show_audit(verdict))
    assert column(told, 3) == 4 * str(bound["assumption"])
    assert column(told, 1) == 4 * "123,456.7890"
    assert "…" not in told


def test_scenarios_and_pictures(shown: Callable[[Callable[[], object]], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_summaries", lambda: dict.fromkeys(NAMES, "a summary " * 12))
    told = shown(lambda: listing.show(printing.out))
    assert [line.split()[0] for line in told.splitlines() if line.startswith("northern")] == list(NAMES)
    assert "…" not in told


def test_what_a_report_was_verified_by(shown: Callable[[Callable[[], object]], str]) -> None:
    found = [(f"ledger {name}", "5 entries, all as they were written; its key is the roster's " * 2) for name in NAMES]
    told = shown(lambda: report.out.print(report._found(found)))
    assert "".join(line[:LONGEST].strip() for line in told.splitlines()).replace("\n", "").count("northern-univ") == 2
    assert "…" not in told
