"""A run whose lots grew, from its start to what is told of it: every figure is of each step at its own rate."""

from __future__ import annotations

import json
import tomllib
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from fedmodel.config import read_scenario
from fedmodel.crypto import SigningKey
from fedmodel.errors import ClaimRefuted, FedmodelError, LedgerTampered
from fedmodel.ledger import Entry, Ledger, Run, Scope, Standing, read_ledger
from fedmodel.plans import planned_event
from fedmodel.privacy import accounting
from fedmodel.privacy.events import event_to_json
from scenarios.report import build, deployed, gather
from scenarios.report.page.render import render
from scenarios.report.verifier import planned, rounds, verify
from scenarios.runs import inspection
from scenarios.runs import reported as of_server
from scenarios.runs.ledgers import SiloLedger
from tests.deployments import RUN
from tests.deployments import deployed as deployed_run
from tests.federations import Federation
from tests.ledgers import make_budget
from tests.once import once
from tests.runs import MASKED, copied, simulated
from tests.scenarios.report.test_build import page
from tests.scenarios.report.test_deployed import anchors, copy_of, own_of, run_of, sign_again
from tests.scenarios.report.test_deployed import page as any_page

GROWN = ("rounds=3", "training.lots=[{from_round=2,times=1.2},{from_round=3,times=2.0}]")
EACH = [(0.5, 2), (0.6, 2), (1.0, 2)]


@pytest.fixture(scope="session")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run under masks with its report, that nobody changes: lots at rate 0.5, 0.6 and 1, a round each."""

    def made(folder: Path) -> None:
        build.build(simulated(folder, MASKED, *GROWN), page)

    return once(tmp_path_factory, "grown", made) / "run"


@pytest.fixture
def run(grown: Path, tmp_path: Path) -> Path:
    return copied(grown, tmp_path / "run")


def own(folder: Path) -> Run:
    return own_run(read_ledger(folder / "ledgers" / "north.sqlite"))


def own_run(standing: Standing) -> Run:
    (found,) = standing.runs.values()
    return found


def summary_row(folder: Path) -> dict[str, Any]:
    row: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["privacy"][0]
    return row


def test_all_that_is_told_follows_from_every_phase_in_the_ledger(grown: Path) -> None:
    held, row, report = own(grown), summary_row(grown), build.read_report(grown).report
    assert [(part.sample_rate, part.steps) for part in held.parts] == EACH
    epsilon = accounting.epsilon(held.parts, 1e-3)
    claim, (budget, *_) = report.claim.silos[0], report.scope.budgets
    assert row["epsilon"] == claim.epsilon == budget.runs[0].epsilon == epsilon
    assert (row["steps"], row["steps_reserved"]) == (claim.steps, claim.steps_reserved) == (6, 6)
    assert [(one["sample_rate"], one["steps"]) for one in row["parts"]] == EACH
    assert [(one.sample_rate, one.steps) for one in budget.runs[0].parts] == EACH
    assert (budget.runs[0].steps, budget.runs[0].reserved_steps, budget.runs[0].rounds) == (6, 6, 3)
    told = report.mechanism.silos[0]
    assert (told.steps_planned, told.steps_charged, told.rounds_charged) == (6, 6, 3)
    assert [(one.from_round, one.sample_rate_realised, one.steps_charged, one.denominator) for one in told.phases] == [
        (1, 0.5, 2, 10), (2, held.parts[1].realised_sample_rate, 2, 12), (3, 1.0, 2, 20)
    ]  # fmt: skip
    assert "expected to be 1.2 times from round 2 on and 2 times from round 3 on as large" in report.mechanism.sampling
    found = verify.verify(grown)
    assert found.claim.startswith("epsilon at most ")
    assert "figures" in dict(found.items)
    build.verify(grown)


def test_the_page_has_a_row_for_each_phase(grown: Path) -> None:
    html = render(build.read_report(grown).report, {})
    assert "north, from round 3 on" in html
    assert "by phase" in html


@pytest.mark.parametrize("what", ["epsilon", "sample rate", "steps"])
def test_a_summary_that_counts_a_phase_at_the_smallest_rate_is_refuted(what: str, run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    row, held = summary["privacy"][0], own(run)
    if what == "epsilon":
        row["epsilon"] = accounting.epsilon([held.parts[0].times(6)], 1e-3)
    elif what == "sample rate":
        row["parts"][2]["sample_rate"] = 0.5
    else:
        row["steps"] = 2
    (run / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    with pytest.raises(ClaimRefuted, match="privacy"):
        build.gather(run)


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_round_has_to_be_charged_to_its_own_phase(part: int, grown: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both verifiers look: a last round, of all records, that is charged to a part of smaller lots is not paid for."""
    charge = Standing._take_charge

    def moved(self: Standing, entry: Entry) -> None:
        charge(self, entry)
        held = self.runs[str(entry.run)].charges
        held[entry.sequence] = held[entry.sequence]._replace(part=min(part, held[entry.sequence].part))

    monkeypatch.setattr(Standing, "_take_charge", moved)
    scenario = tomllib.loads((grown / "scenario.toml").read_text(encoding="utf-8"))
    lines = [json.loads(line) for line in (grown / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    held: dict[str, Run | int | None] = {
        silo: own_run(read_ledger(grown / "ledgers" / f"{silo}.sqlite")) for silo in ("north", "south", "west")
    }
    for check in (
        lambda: build.gather(grown),
        lambda: rounds.check_charged(lines, held, planned.firsts(scenario)),
    ):
        with nullcontext() if part == 2 else pytest.raises(LedgerTampered, match=rf"in round {part + 2}.* no charge"):
            check()


def test_a_forecast_is_of_whole_runs(grown: Path, tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(MASKED, encoding="utf-8")
    scenario = read_scenario(str(tmp_path / "s.toml"), GROWN)
    told = inspection.forecast(grown / "ledgers" / "north.sqlite", scenario, None)
    assert (told["runs"], told["rounds"], told["rounds_of_a_run"]) == (0, 0, 3)
    assert told["epsilon_of_a_run"] == accounting.epsilon(own(grown).parts, 1e-3)
    quiet = scenario.model_copy(update={"privacy": scenario.privacy.model_copy(update={"noise_multiplier": 2e3})})
    roomy = tmp_path / "north.sqlite"
    key = SigningKey(bytes([7]) * 32)
    with Ledger(roomy, "north", key, tmp_path / "north.head") as ledger:
        make_budget(ledger, Scope(scenario.data.data_set, "record", 1, 1e-3, 30.0, 2))
    told = inspection.forecast(roomy, quiet, "north")
    assert told["runs"] > 1
    assert told["rounds"] == 3


# Deployed: what the server knows of it


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    """A federation whose server made its report of such a run, and north its own."""
    made = deployed_run(tmp_path_factory, GROWN).copy(tmp_path_factory.mktemp("growing") / "kits")
    made.unlock("server")
    made.unlock("north")
    deployed.server_report(made.kit("server"), RUN, any_page)
    deployed.silo_report(made.kit("north"), copy_of(made, "north"), any_page)
    return made


def test_a_servers_report_tells_what_the_silos_ledgers_tell(reported: Federation) -> None:
    folder = run_of(reported)
    charges = json.loads((folder / "charges.json").read_bytes())
    assert charges["north"]["rounds"] == [1, 1, 1]
    servers, silos = (build.read_report(one).report for one in (folder, own_of(reported, "north")))
    for ours, theirs in ((servers.claim.silos[0], silos.claim.silos[0]), (servers.claim.silos[1], None)):
        held = read_ledger(reported.kit(ours.silo) / "ledgers" / f"{ours.silo}.sqlite")
        assert ours.epsilon == accounting.epsilon(own_run(held).parts, ours.delta)
        assert (ours.steps, ours.steps_reserved) == (6, 6)
        assert theirs is None or (theirs.epsilon, theirs.steps) == (ours.epsilon, 6)
    assert [one.steps_charged for one in servers.mechanism.silos[1].phases] == [2, 2, 2]
    found = verify.verify(folder, anchors(reported).authority)
    assert "follow from what they reported" in dict(found.items)["figures"]
    verify.verify(own_of(reported, "north"), anchors(reported).authority)


CHARGED = {
    "fewer of the largest": [1, 1, 0],
    "of another phase": [1, 2, 0],
    "none said": 3,
    "too few phases": [2, 1],
    "less than none": [1, 1, -1],
}


@pytest.mark.parametrize("case", CHARGED)
def test_rounds_that_were_not_reported_as_they_were_summed_are_refused(
    case: str, reported: Federation, tmp_path: Path
) -> None:
    kits = reported.copy(tmp_path / "kits")
    folder = run_of(kits)
    charges = json.loads((folder / "charges.json").read_bytes())
    charges["south"]["rounds"] = CHARGED[case]
    (folder / "charges.json").write_text(json.dumps(charges), encoding="utf-8")
    with pytest.raises(FedmodelError):
        build.gather(folder)
    sign_again(folder, build.read_report(folder).report, kits.unlock("server").identity)
    with pytest.raises(FedmodelError):
        verify.verify(folder)


@pytest.mark.parametrize(("charged", "missing"), [([3, 2], 0), ([5, 2], 0), ([5, 0], 2), ([5, 1], 2), ([2, 5], 1)])
def test_what_was_reported_of_one_phase_pays_for_no_round_of_another(
    charged: list[int], missing: int, tmp_path: Path
) -> None:
    """Three sums of the first five rounds and two of the last five: as many charges of one phase are not enough."""
    (tmp_path / "s.toml").write_text(MASKED, encoding="utf-8")
    scenario = read_scenario(str(tmp_path / "s.toml"), ["rounds=10", "training.lots=[{from_round=6,times=2.0}]"])
    silos, ledgers = list(scenario.federation.silos), {}
    for silo in silos:
        event = planned_event(scenario.plan(silo)).times(scenario.plan(silo).steps_per_round)
        said = {"event": event_to_json(event), "rounds": charged if silo == "south" else [5, 5]}
        held, standing = of_server._run(tmp_path, scenario, silo, said), Standing()
        standing.runs = {"1": held}
        ledgers[silo] = SiloLedger(silo, (), standing, b"", None, True, True, (), True, 0, run="1", reported=True)
    lines = [
        {"round": number, "cohort": silos, "dropouts": {}, "summed": len(silos)}
        | ({} if number in (1, 2, 3, 6, 7) else {"failed": True})
        for number in range(1, 11)
    ]
    refused = pytest.raises(LedgerTampered, match=rf"^silo south: .* part {missing} of what the run reserves")
    with refused if missing else nullcontext():
        gather._check_charged(scenario, gather.METRICS, lines, ledgers, copy=False)
