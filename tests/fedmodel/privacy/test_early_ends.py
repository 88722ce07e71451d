"""A run that ended early costs its whole plan, in every output: whoever ended it may have looked at its releases."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedmodel.config import Scenario, read_scenario
from fedmodel.crypto import SigningKey
from fedmodel.errors import ClaimRefuted, LedgerError
from fedmodel.ledger import Asked, Ledger, Scope
from fedmodel.plans import planned_event
from fedmodel.privacy.accounting import advantage, epsilon, gdp_mu, odometer
from fedmodel.privacy.events import event_to_json
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from fedmodel.privacy.rounding import up
from scenarios.cli.tables import show_run
from scenarios.report import build
from scenarios.runs import inspection
from scenarios.runs.claims import early
from scenarios.runs.summary import row_of, rows_reported
from server.run_files import CHARGES
from tests.ledgers import budget_of, make_budget
from tests.runs import MASKED, simulated
from tests.scenarios.cli.test_main import Run
from tests.scenarios.report.test_build import forge, told

PLAN, TAKEN, DELTA = DpSgdEvent(2.0, 1.0, 0.5, 16, 10), 2, 1e-3
WHOLE, STEPS = epsilon([PLAN], DELTA), epsilon([replace(PLAN, steps=TAKEN)], DELTA)
SETTINGS = ("rounds=8", "stop_below_loss=100.0")  # eight rounds of two steps; the first loss ends it


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulated(tmp_path_factory.mktemp("ended"), MASKED, *SETTINGS)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, ended: Path) -> Run:
    monkeypatch.setenv("COLUMNS", "200")
    shutil.copytree(ended, tmp_path / "r")
    return Run(monkeypatch, capsys, tmp_path)


def summary(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "summary.json").read_text(encoding="utf-8")))


def test_the_two_figures_are_far_apart() -> None:
    assert WHOLE > 3 * STEPS
    assert STEPS < odometer(PLAN, TAKEN, DELTA).epsilon < WHOLE


def test_summary_tells_the_plans_epsilon_and_what_follows_from_it(ended: Path) -> None:
    found = summary(ended)
    assert found["ended_early"] == "the loss is under 100"
    for row in found["privacy"]:
        assert (row["epsilon"], row["epsilon_of_steps_taken"]) == (WHOLE, STEPS)
        assert (row["steps"], row["steps_reserved"]) == (TAKEN, PLAN.steps)
        assert row["mu"] == gdp_mu([PLAN], inspection.MU_FLOOR, 1e-3)
        assert row["advantage"] == advantage([PLAN], 1e-3)
        read = odometer(PLAN, TAKEN, DELTA)
        assert row["odometer"] == {"epsilon": read.epsilon, "delta": DELTA, "steps": read.checkpoint}


def test_every_round_tells_the_plans_epsilon(ended: Path) -> None:
    lines = [json.loads(line) for line in (ended / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [set(line["epsilon"].values()) for line in lines] == [{epsilon([PLAN], DELTA, 1e-3)}]


def test_the_terminal_tells_the_plans_epsilon_and_labels_the_other(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    show_run(summary(run.folder / "r"), run.folder / "r")
    out = capsys.readouterr().out
    rows = [line for line in out.splitlines() if "north" in line and up(WHOLE) in line]
    assert len(rows) == 1
    assert up(STEPS) not in rows[0]
    assert f"it would be {up(STEPS)}, had the length been fixed in advance" in " ".join(out.split())


def test_budget_show_tells_the_plans_epsilon(run: Run) -> None:
    ledger = "r/ledgers/north.sqlite"
    (scope,) = run.json("budget", "show", ledger)["scopes"]
    assert (scope["epsilon"], scope["epsilon_of_plans"], scope["epsilon_of_steps_taken"]) == (WHOLE, WHOLE, STEPS)
    assert scope["advantage"] == pytest.approx(advantage([PLAN]))
    (one,) = scope["runs"]
    assert (one["epsilon"], one["epsilon_reserved"], one["epsilon_of_steps_taken"]) == (WHOLE, WHOLE, STEPS)
    assert (one["steps"], one["reserved_steps"], one["held_steps"]) == (TAKEN, PLAN.steps, PLAN.steps - TAKEN)
    assert run("budget", "show", ledger) == 0
    said = " ".join(run.out.split())
    assert f"all of it is within epsilon {up(WHOLE)}" in said
    assert f"it would be {up(STEPS)}, had every plan and its length been fixed in advance" in said


def test_report_page_and_registry_tell_the_plans_epsilon(run: Run) -> None:
    assert run("report", "build", "r") == 0
    folder = run.folder / "r"
    report = build.read_report(folder).report
    assert report.claim.epsilon == report.scope.largest_bound == WHOLE
    for claim in report.claim.silos:
        assert (claim.epsilon, claim.epsilon_all_runs, claim.epsilon_of_steps_taken) == (WHOLE, WHOLE, STEPS)
        assert (claim.steps, claim.steps_reserved) == (TAKEN, PLAN.steps)
        assert claim.odometer is not None
        assert STEPS < claim.odometer.epsilon < WHOLE
    for row in report.accounting.silos:
        assert (row.pld, row.rdp > WHOLE) == (WHOLE, True)
        assert row.curve[20].epsilon == pytest.approx(WHOLE, rel=1e-12)
        assert row.curve[20].delta == pytest.approx(DELTA, rel=1e-2)
    for budget in report.scope.budgets:
        assert (budget.bound, budget.spent) == (WHOLE, STEPS)
        assert [(one.epsilon, one.epsilon_of_steps_taken) for one in budget.runs] == [(WHOLE, STEPS)]
    assert f"(epsilon {up(WHOLE)}," in report.claim.sentence
    assert report.claim.early is not None
    assert f"{up(STEPS)}, had the length been fixed in advance" in report.claim.early
    assert "their deltas add" in report.claim.early
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert f"In figures: epsilon <strong>{up(WHOLE, 2)}</strong>" in page
    assert f"Of the steps taken it would be {up(STEPS, 2)}, had the length been fixed in advance." in page
    assert "By an odometer, epsilon" in page
    assert "their deltas add" in page
    entry = (folder / "registry.yaml").read_text(encoding="utf-8")
    assert f"epsilon: {WHOLE}" in entry
    assert f"bound_on_output_distance: {WHOLE}" in entry
    assert run("report", "verify", "r") == 6  # all of it follows, and nobody outside vouches for the keys


@pytest.mark.parametrize("where", ["claim", "silo", "accounting"])
def test_a_report_that_quotes_the_steps_figure_is_refuted(run: Run, where: str) -> None:
    assert run("report", "build", "r") == 0
    folder = run.folder / "r"
    report = told(folder)["report"]
    part, name = {
        "claim": (report["claim"], "epsilon"),
        "silo": (report["claim"]["silos"][0], "epsilon"),
        "accounting": (report["accounting"]["silos"][0], "pld"),
    }[where]
    assert part[name] == WHOLE
    part[name] = STEPS
    forge(folder, report)
    assert run("report", "verify", "r") == 3
    assert f"{STEPS} stands, {WHOLE} follows" in run.err


def test_a_summary_that_quotes_the_steps_figure_is_refuted(run: Run) -> None:
    folder = run.folder / "r"
    found = summary(folder)
    for row in found["privacy"]:
        row["epsilon"] = STEPS
    (folder / "summary.json").write_text(json.dumps(found), encoding="utf-8")
    with pytest.raises(ClaimRefuted, match="privacy"):
        build.gather(folder)


def test_the_claim_does_not_hang_on_where_the_run_ended(tmp_path: Path, run: Run) -> None:
    (tmp_path / "o").mkdir()
    simulated(tmp_path / "o", MASKED, "rounds=8")
    assert run("report", "build", "r") == run("report", "build", "o/run") == 0
    paths = [one["path"] for one in run.json("report", "diff", "r", "o/run")["changes"]]
    assert "claim.silos[north].epsilon_of_steps_taken" in paths
    assert "claim.early" in paths
    assert not [path for path in paths if path in ("claim.epsilon", "claim.silos[north].epsilon", "claim.meaning")]


# Ends of other kinds


def test_a_run_that_was_closed_still_costs_its_whole_plan(tmp_path: Path) -> None:
    """Ctrl-C, and a person who gives back what it will not take."""
    key = SigningKey(bytes([7]) * 32)
    with Ledger(tmp_path / "north.sqlite", "north", key, tmp_path / "north.head") as ledger:
        make_budget(ledger, Scope("hearts", "record", 1, DELTA, 30.0, 2))
        ledger.reserve(Asked(budget_of(ledger, "hearts/record"), "r1", PLAN, 2))
        ledger.reserve(Asked(budget_of(ledger, "hearts/record"), "r2", PLAN, 2))
        ledger.charge("r1", 1, TAKEN, "k1")
        ledger.release("r1", "interrupted")
        ledger.release("r2", "never begun")
    (scope,) = inspection.spent(tmp_path / "north.sqlite")["scopes"]
    first, second = scope["runs"]
    assert (first["epsilon"], first["epsilon_reserved"], first["epsilon_of_steps_taken"]) == (WHOLE, WHOLE, STEPS)
    assert (first["steps"], first["reserved_steps"], first["held_steps"]) == (TAKEN, PLAN.steps, 0)
    assert (second["epsilon"], second["epsilon_reserved"], second["held_steps"]) == (0.0, 0.0, 0)
    assert (scope["epsilon"], scope["epsilon_of_plans"], scope["epsilon_of_steps_taken"]) == (30.0, WHOLE, STEPS)


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    (tmp_path / "s.toml").write_text(MASKED, encoding="utf-8")
    return read_scenario(str(tmp_path / "s.toml"), ["rounds=8"])


def reported(folder: Path, scenario: Scenario, rounds: int) -> list[dict[str, Any]]:
    plan = scenario.plan("north")
    event = replace(planned_event(plan), steps=plan.steps_per_round)
    said = {"north": {"rounds": rounds, "event": event_to_json(event)}}
    (folder / CHARGES).write_text(json.dumps(said), encoding="utf-8")
    return rows_reported(scenario, folder)


def test_a_deployed_server_tells_the_plan_that_its_scenario_reserves(tmp_path: Path, scenario: Scenario) -> None:
    north, south, _ = reported(tmp_path, scenario, 1)
    assert (north["epsilon"], north["epsilon_of_steps_taken"], north["source"]) == (WHOLE, STEPS, "reported")
    assert (north["steps"], north["steps_reserved"]) == (TAKEN, PLAN.steps)
    assert (south["epsilon"], south["steps"], south["steps_reserved"]) == (0.0, 0, 0)
    assert reported(tmp_path, scenario, 8)[0]["odometer"] is None
    assert reported(tmp_path, scenario, 0)[0]["epsilon"] == 0.0


def test_more_steps_than_were_reserved_are_refused(tmp_path: Path, scenario: Scenario) -> None:
    with pytest.raises(LedgerError, match="18 steps were charged, more than its plan has"):
        reported(tmp_path, scenario, 9)
    with pytest.raises(LedgerError, match="1 steps were charged"):
        row_of(scenario.plan("north"), DELTA, [], [1])


def row(silo: str, steps: int, reserved: int, read: float | None = None) -> dict[str, Any]:
    found = None if read is None else {"epsilon": read, "delta": 1e-3, "steps": 5}
    return {
        "silo": silo,
        "steps": steps,
        "steps_reserved": reserved,
        "epsilon_of_steps_taken": steps / 10,
        "odometer": found,
    }


def test_what_is_said_of_an_early_end_is_of_the_silos_that_took_less() -> None:
    assert early([row("a", 8, 8), row("b", 0, 0)]) is None
    said = early([row("a", 8, 8), row("b", 4, 8, 0.51), row("c", 6, 8, 0.8)])
    assert said is not None
    assert "reserved at b and c:" in said
    assert "it would be 0.6000" in said
    assert "epsilon 0.8000 at delta 0.001 holds" in said
    # Where an odometer says nothing smaller for one of them, it is not told for all.
    assert "odometer" not in str(early([row("b", 4, 8, 0.51), row("c", 7, 8)]))
