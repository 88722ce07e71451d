"""A run whose noise is an experiment's: nowhere deployed, and no figure of it stands anywhere without its label."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from clients import policy
from clients.sentences import sentences
from clients.silo import Silo
from fedmodel import plans
from fedmodel.config import CsvForm, Scenario, SiloFile, read_scenario, scenario_from_json
from fedmodel.errors import ClaimRefuted, ConfigError, PolicyRefused, PrivacyError
from fedmodel.learning.models import parameters_of
from fedmodel.privacy import accounting
from fedmodel.privacy.events import EPSILON_IF_HIDDEN, EXPERIMENT, IF_HIDDEN, if_secret
from fedmodel.privacy.rounding import up
from fedmodel.provision import (
    SIMULATED,
    check_deployable,
    joint_law,
    law_of,
    provision,
    read_identity,
    scenario_hash,
)
from fedmodel.wire import TrainRequest
from scenarios.audit.planning import planned
from scenarios.cli.main import app
from scenarios.face.run import Run
from scenarios.models.export import export
from scenarios.report import build, sections
from scenarios.report.page import registry
from scenarios.report.page.render import render
from scenarios.report.verifier.verify import verify
from scenarios.runs.progress import line_in_words
from scenarios.runs.summary import row_of
from scenarios.simulation.engines import chosen
from server.metrics import epsilons_of
from tests.conftest import TINY
from tests.fakes import trained
from tests.runs import copied, simulated
from tests.scenarios.report.test_deployed import sign_again

ASKED = "privacy.noise=experiment"


@pytest.fixture
def scenario(tiny_file: Path) -> Scenario:
    return read_scenario(str(tiny_file), [ASKED])


@pytest.fixture(scope="module", params=["in-process", "vectorised"])
def ended(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run that has ended, with its report, and what was printed of it; nobody changes it."""
    folder = tmp_path_factory.mktemp("experiment")
    (folder / "tiny.toml").write_text(TINY, encoding="utf-8")
    arguments = ["simulate", str(folder / "tiny.toml"), "--set", ASKED, "--engine", request.param]
    told = CliRunner().invoke(app, [*arguments, "--out", str(folder / "run"), "--report"], catch_exceptions=False)
    assert told.exit_code == 0, told.output
    return folder / "run", told.output


def rows_of(run_dir: Path) -> list[dict[str, Any]]:
    """Return the rows of a run's summary."""
    rows: list[dict[str, Any]] = json.loads((run_dir / "summary.json").read_bytes())["privacy"]
    return rows


def test_it_is_nobodys_default_whatever_the_engine_and_needs_a_seed(tiny: Scenario, scenario: Scenario) -> None:
    assert tiny.privacy.noise == "os"
    assert chosen(tiny) == chosen(scenario)
    document = scenario.model_dump(exclude_none=True)
    document.pop("seed")
    with pytest.raises(ConfigError, match=r'privacy\.noise = "experiment" needs a seed'):
        scenario_from_json(json.dumps(document))


def test_a_deployed_silo_refuses_it_whatever_its_law_says(scenario: Scenario) -> None:
    law = law_of(scenario, "north", bytes(32))
    policy.check_baseline(scenario, simulated=True)
    policy.check_event(law, plans.planned_event(scenario.plan("north")), simulated=True)
    with pytest.raises(PolicyRefused, match=r"no key of silo\.toml allows it"):
        policy.check_baseline(scenario, simulated=False)
    with pytest.raises(PolicyRefused, match="this silo is deployed"):
        policy.check_event(law, plans.planned_event(scenario.plan("north")))
    for refused in (lambda: joint_law([scenario], "north", bytes(32)), lambda: check_deployable(scenario)):
        with pytest.raises(ConfigError, match=r"experiment.* protects nobody, and no deployed silo"):
            refused()
    with pytest.raises(ConfigError, match="claims nothing that an audit could refute"):
        read_scenario("quickstart", [ASKED, "seed=1", 'audit={canaries="probe",count=9}'])
    with pytest.raises(ConfigError, match=r"claims nothing that could be refuted|an audit could refute"):
        planned(scenario, 1000, "probe", 1e-3)


def test_a_law_of_a_deployed_silo_cannot_name_it_and_that_of_a_simulated_one_says_what_it_is(
    scenario: Scenario,
) -> None:
    law = law_of(scenario, "north", bytes(32))
    assert any("EXPERIMENT" in said for said in sentences(law))
    document = law.model_dump() | {"connection": {"address": "server.example:9092"}}
    with pytest.raises(ValueError, match=r'noise_sources names "experiment".*take it out'):
        SiloFile.model_validate(document)


def test_a_deployed_silo_trains_nothing_with_it_whoever_let_it_come_this_far(
    scenario: Scenario, tmp_path: Path
) -> None:
    provision(scenario, tmp_path / "f")
    kit = tmp_path / "f" / "silos" / "north"
    event = plans.planned_event(scenario.plan("north"))
    model_P = np.zeros(parameters_of(scenario.model, scenario.data.shape), np.float32)
    assert (tmp_path / "f" / SIMULATED).exists()
    assert np.any(trained(Silo("north", scenario, "1", "cpu", tmp_path / "f", kit), event, TrainRequest(1, model_P)))
    with pytest.raises(PrivacyError, match="at a deployed silo"):
        trained(Silo("north", scenario, "1", "cpu", kit, kit), event, TrainRequest(1, model_P))


def test_a_scenario_that_does_not_name_it_has_the_hash_that_it_had(tiny: Scenario, scenario: Scenario) -> None:
    assert EXPERIMENT not in tiny.model_dump_json()
    assert scenario_hash(tiny) != scenario_hash(scenario)


def test_no_figure_of_a_row_reads_as_a_promise(scenario: Scenario) -> None:
    plan = scenario.plan("north")
    event = plans.planned_event(plan)
    row = row_of(plan, plan.delta, [event], [2])
    assert [row[name] for name in ("epsilon", "epsilon_of_steps_taken", "odometer", "mu", "advantage")] == [None] * 5
    assert row[EPSILON_IF_HIDDEN] == accounting.epsilon([event], plan.delta)
    assert row["protects"] is False
    assert EPSILON_IF_HIDDEN not in row_of(plan, plan.delta, [], [0])
    assert if_secret([event])
    assert not if_secret([])


def test_a_run_says_everywhere_that_it_protects_nobody_and_labels_its_epsilon(ended: tuple[Path, str]) -> None:
    run_dir, printed = ended
    rows, printed = rows_of(run_dir), " ".join(printed.split())
    would = max(row[EPSILON_IF_HIDDEN] for row in rows)
    assert "This run protects nobody: its noise was an experiment's" in printed
    assert IF_HIDDEN in printed
    assert all(row["epsilon"] is None and not row["protects"] for row in rows)
    report = build.verify(run_dir).report
    assert (report.claim.protects, report.claim.epsilon, report.scope.largest_bound) == (False, None, None) or (
        report.run.booked and not report.claim.protects and report.claim.epsilon is None
    )
    assert report.claim.epsilon_if_noise_were_secret == pytest.approx(would, rel=1e-3)
    assert f"Epsilon would be {up(report.claim.epsilon_if_noise_were_secret)} at delta" in report.claim.sentence
    assert report.claim.sentence.endswith(f"{IF_HIDDEN}.")
    page = (run_dir / "report.html").read_text(encoding="utf-8")
    assert "its noise was an experiment’s" in page
    assert IF_HIDDEN in page
    for promise in ("is protected", "differentially private for every"):
        assert promise not in page
    assert "bound_on_output_distance: null" in (run_dir / "registry.yaml").read_text(encoding="utf-8")
    assert b"experiment" in (run_dir / "model.safetensors").read_bytes()
    line = json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[-1])
    assert IF_HIDDEN in line_in_words(line)
    run = Run.read(run_dir)
    assert run.epsilon == float("inf")
    assert run.epsilon_if_noise_were_secret == would
    assert f"epsilon would be {up(would)}" in repr(run)
    assert repr(run).count(IF_HIDDEN) == 1
    assert IF_HIDDEN in run._repr_html_()
    assert "It protects nobody" in run._repr_html_()


BOUNDS = ("pld", "prv", "rdp", "curve", "mu", "advantage", "odometer", "bound", "spent", "largest_bound")
"""Keys, besides those that begin with "epsilon", whose figures read as a promise."""


def bare(document: Any, path: str = "") -> list[str]:
    """Return where in a document a figure stands that reads as a promise: a number over 0, or what holds one."""
    if isinstance(document, list):
        return [found for place, one in enumerate(document) for found in bare(one, f"{path}[{place}]")]
    if not isinstance(document, dict):
        return []
    found = []
    for key, value in document.items():
        if key in BOUNDS or (key.startswith("epsilon") and key != EPSILON_IF_HIDDEN):
            found += [f"{path}.{key}"] if figures_in(value) else []
        elif key not in ("divergence", EPSILON_IF_HIDDEN):  # of Rényi's, by which a budget is charged
            found += bare(value, f"{path}.{key}")
    return found


def figures_in(value: Any) -> bool:
    """Return whether a value is a number over 0, or holds one."""
    if isinstance(value, dict | list):
        return any(map(figures_in, value.values() if isinstance(value, dict) else value))
    return isinstance(value, int | float) and value > 0


def test_no_figure_stands_bare_in_any_of_its_files(ended: tuple[Path, str]) -> None:
    run_dir, _ = ended
    assert bare([{"epsilon": {"north": 1.5}, "a": {"curve": [{"epsilon": 1}], "mu": None}}]) == [
        "[0].epsilon", "[0].a.curve"
    ]  # fmt: skip
    report = json.loads((run_dir / "report.json").read_bytes())["report"]
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert bare(report) == bare(lines) == bare(json.loads((run_dir / "summary.json").read_bytes())) == []
    would = max(row[EPSILON_IF_HIDDEN] for row in rows_of(run_dir))
    assert all(figure == pytest.approx(would, rel=1e-2) for line in lines for figure in epsilons_of(line))
    assert all(one["prv_reason"] == "noise came from a seed" for one in report["accounting"]["silos"])
    log = (run_dir / "server.log").read_text(encoding="utf-8")
    assert report["run"].get("booked") or f"what is told as epsilon would hold {IF_HIDDEN}" in log
    assert "With the other runs" not in (run_dir / "registry.yaml").read_text(encoding="utf-8")
    assert "none of them has a figure here" in (run_dir / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("noise", [EXPERIMENT, "seeded-unsafe", "os"])
def test_no_command_on_a_budget_tells_a_figure_of_seeded_noise_without_the_label(noise: str, tmp_path: Path) -> None:
    run_dir = simulated(tmp_path, TINY, f"privacy.noise={noise}")
    ledger, promised = str(run_dir / "ledgers" / "north.sqlite"), noise == "os"
    for said in (["show", ledger], ["forecast", ledger, str(run_dir / "scenario.toml")]):
        told = CliRunner().invoke(app, ["budget", *said], catch_exceptions=False).output
        words = " ".join(told.split())
        assert ("whoever knows the seed can remove it. No figure here protects anybody." in words) is not promised
        assert (IF_HIDDEN in words) is not promised
        assert any(one in words for one in ("is within epsilon", "costs epsilon", "no attack")) is promised
        if said[0] == "forecast":
            assert re.search(r"costs? epsilon [0-9.]+ at delta 0\.001 per record(?![a-z ]*of at most)", words)
        found = json.loads(CliRunner().invoke(app, ["budget", *said, "--json"], catch_exceptions=False).output)
        assert bool(bare(found)) is promised
        assert (EPSILON_IF_HIDDEN in json.dumps(found)) is not promised


def test_a_report_from_before_has_figures_and_verifies_as_it_was(ended: tuple[Path, str], tmp_path: Path) -> None:
    """Both verifiers take it, and the one that computes them again finds a figure that does not follow."""
    run_dir = copied(ended[0], tmp_path / "run")
    report, key = build.read_report(run_dir).report, read_identity(run_dir / "server")
    rows = tuple(row.model_copy(update={"rdp_order": 2}) for row in report.accounting.silos)
    stored = report.accounting.model_copy(update={"silos": rows})
    before = sections.counted(build.read_run(run_dir, report), stored)
    assert all(row.pld is not None and row.curve for row in before.silos)
    built = report.built.model_copy(update={"page": "0" * 64})
    (run_dir / registry.NAME).write_text(registry.to_yaml(report, before=True), encoding="utf-8")
    sign_again(run_dir, report.model_copy(update={"built": built, "accounting": before}), key)
    build.verify(run_dir)
    verify(run_dir)
    less = before.model_copy(update={"silos": (before.silos[0].model_copy(update={"pld": 0.5}), *before.silos[1:])})
    sign_again(run_dir, report.model_copy(update={"built": built, "accounting": less}), key)
    for check in (build.verify, *([] if report.run.booked else [verify])):
        with pytest.raises(ClaimRefuted, match=r"accounting\.silos\[.*\]\.pld"):
            check(run_dir)


def test_the_card_of_its_model_has_no_figure_without_the_label(ended: tuple[Path, str], tmp_path: Path) -> None:
    run_dir, _ = ended
    export(run_dir, "safetensors", tmp_path / "out", None, None, CsvForm())
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "This run protects nobody: its noise was an experiment's" in card
    assert "differential-privacy" not in card
    for row in rows_of(run_dir):
        assert f"| {row['silo']} | {up(row[EPSILON_IF_HIDDEN])} {IF_HIDDEN} |" in card


def test_verifiers_say_what_it_is_and_refuse_a_figure_that_does_not_follow(
    ended: tuple[Path, str], tmp_path: Path
) -> None:
    run_dir, _ = ended
    found = verify(run_dir)
    if (run_dir / "book.jsonl").exists():
        assert found.claim == "NOT computed again"
    else:
        assert found.claim.startswith("nothing: noise was an experiment's, from a seed; epsilon would be ")
        assert found.claim.endswith(IF_HIDDEN)
    for change in ({EPSILON_IF_HIDDEN: 0.5}, {"epsilon": 0.5}):
        other = copied(run_dir, tmp_path / next(iter(change)))
        summary = json.loads((other / "summary.json").read_bytes())
        summary["privacy"][0] |= change
        (other / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
        with pytest.raises(ClaimRefuted, match=r"privacy\[0\]"):
            build.build(other, render)
