"""An audit of adapters on a base: canaries beside them see the mechanism, and the model on the base is attacked."""

from __future__ import annotations

import json
import math
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fedmodel.canaries.observations import read_observations
from fedmodel.config import read_scenario, scenario_to_toml
from fedmodel.kinds import bases
from scenarios.audit.black_box import final_model, first_model, loss_scores
from scenarios.audit.evaluate import evaluate
from scenarios.audit.planning import planned
from scenarios.cli.main import app
from scenarios.report.anchors import verify_command
from scenarios.runs.audit_entries import enter_plan, enter_seen
from scenarios.simulation.simulate import check_scenario, placed, run_folder, simulate
from tests.bases import scenario_on
from tests.drawing import same_bytes

__all__ = ["same_bytes"]


@pytest.mark.slow
@pytest.mark.usefixtures("same_bytes")
def test_a_claim_of_adapters_at_several_lengths_is_not_refuted_and_whoever_has_the_base_finds_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = scenario_on(
        tmp_path,
        model={"lengths": [3, 5]},
        privacy={"noise_multiplier": 3.0, "epsilon": None, "sample_rate": 1.0, "expected_batch_size": 20},
        training={"local_steps": 2, "max_physical_batch": 64},
        data={"held_out": 0.5, "partition": {"kind": "iid", "min_records": 20}},
    )
    lines = [
        {"text": f"{word} {number}"[: 2 + number % 7], "label": word}
        for number in range(70)
        for word in ("good", "bad")
    ]
    (tmp_path / "texts" / "all.jsonl").write_text("\n".join(map(json.dumps, lines)))
    words = [
        "audit",
        "run",
        str(path),
        "--set",
        "rounds=4",
        "--canaries",
        "600",
        "--out",
        "run",
        "--json",
    ]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["verdict"] == "not-refuted", found["reasons"]
    assert {one["name"] for one in found["unmeasured"]} == {"denominator"}  # of full lots
    assert all(gauge["passed"] for gauge in found["gauges"])
    assert found["membership"].keys() == {"loss_threshold", "rmia", "note"}
    assert 0 < max(found["lower_bounds"][name]["epsilon"] for name in found["lower_bounds"]) < found["claimed_epsilon"]
    bases.lie_at({}, tmp_path)  # as whoever is handed the folder has it
    for more, whole in ((["--base", "base"], True), ([], False)):
        told = json.loads(CliRunner().invoke(app, ["report", "verify", "run", "--json", *more]).output)
        assert (told["valid"], told["audit_evaluated"]) == (True, whole)
        bases.lie_at({}, tmp_path)
    (tmp_path / "base" / "tokenizer.json").write_bytes(b"{}")
    refused = CliRunner().invoke(app, ["report", "verify", "run", "--base", "base"])
    assert "--base base: is the base of SHA-256" in str(refused.exception)


def test_the_command_that_verifies_an_audit_names_the_base(tmp_path: Path) -> None:
    """Without it the audit is not evaluated again, and the command that is printed at the end would end with 6."""
    run_dir = tmp_path / "run"
    (run_dir / "server").mkdir(parents=True)
    scenario = placed(read_scenario(str(scenario_on(tmp_path))))
    (run_dir / "scenario.toml").write_text(scenario_to_toml(scenario), encoding="utf-8")
    plain = f"fedmodel report verify {run_dir} --authority FINGERPRINT"
    assert verify_command(run_dir) == plain  # a run that was not audited
    (run_dir / "audit.json").write_text("{}", encoding="utf-8")
    assert verify_command(run_dir) == f"{plain} --base {tmp_path / 'base'}"
    bases.lie_at({}, tmp_path)
    assert verify_command(run_dir) == f"{plain} --base FOLDER"
    (run_dir / "scenario.toml").write_text(scenario_to_toml(read_scenario("quickstart")), encoding="utf-8")
    assert verify_command(run_dir) == plain


@pytest.mark.slow
@pytest.mark.usefixtures("same_bytes")
def test_an_audit_of_next_tokens_tells_the_exposure_that_its_scores_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = scenario_on(
        tmp_path,
        "decoder",
        model={"task": "causal-lm", "targets": ["c_attn"]},
        privacy={"noise_multiplier": 3.0, "epsilon": None, "sample_rate": 1.0, "expected_batch_size": 4},
        data={"task": "next-token", "labels": None, "held_out": 0.5, "partition": {"kind": "iid", "min_records": 6}},
    )
    scenario, plan = planned(placed(read_scenario(str(path))), 60, "loss", 0.05)
    with run_folder(scenario, tmp_path / "run") as run_dir:
        parameters = check_scenario(scenario)
        simulate(scenario, parameters, "in-process", "cpu", run_dir, nullcontext(), lambda: enter_plan(plan, run_dir))
    enter_seen(tmp_path / "run")
    found = evaluate(scenario, tmp_path / "run")
    scores = found["scores"]
    ranks = [1 + sum(other >= one for other in scores["excluded"]) for one in scores["included"]]
    most = math.log2(len(scores["excluded"]) + 1)
    told = found["exposure"]
    assert (told["canaries"], told["among"]) == (len(scores["included"]), len(scores["excluded"]))
    assert told["largest"] == pytest.approx(most - math.log2(min(ranks)))
    assert told["mean"] == pytest.approx(most - sum(map(math.log2, ranks)) / len(ranks))
    first = loss_scores(scenario, first_model(scenario, tmp_path / "run"))
    coins = np.concatenate(
        [read_observations(tmp_path / "run" / "silos" / one.silo, one.silo).coins_K for one in plan.silos]
    )
    ranks = [1 + int((first[~coins] >= one).sum()) for one in first[coins]]
    assert told["before"]["largest"] == pytest.approx(most - math.log2(min(ranks)))
    assert told["before"]["mean"] == pytest.approx(most - sum(map(math.log2, ranks)) / len(ranks))
    last = loss_scores(scenario, final_model(scenario, tmp_path / "run"))
    assert not np.allclose(first, last)
