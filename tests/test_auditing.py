"""An audited run: what was fixed before it cannot be changed after it, and its verdict follows from what was seen."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from fedmodel.audit import observations
from fedmodel.audit.plan import LEAST_POWER, Plan, SiloCanaries, make_plan, plan_hash, with_power
from fedmodel.config import Scenario, read_scenario
from fedmodel.errors import ConfigError, LedgerTampered
from fedmodel.ledger import verify_ledger
from fedmodel.noise import OsNoise
from scenarios import audit_cli, auditing, cli, runner
from tests.conftest import TINY

# Three silos, full lots, eight steps.
SETTINGS = ["rounds=4", "privacy.sample_rate=1.0", "privacy.expected_batch_size=20", "privacy.noise_multiplier=3.0"]
SILOS = ("north", "south", "west")


@pytest.fixture(scope="module")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scenario") / "tiny.toml"
    path.write_text(TINY)
    return path


def audited(
    path: Path, out: Path, *settings: str, kind: Literal["probe", "loss"] = "probe", canaries: int = 600
) -> tuple[Scenario, Plan]:
    """Run the small scenario with canaries, up to what was seen."""
    scenario, plan = auditing.planned(read_scenario(str(path), [*SETTINGS, *settings]), canaries, kind, 0.05)
    with runner.run_folder(scenario, out) as run_dir:
        runner.simulate(
            scenario,
            runner.check_scenario(scenario),
            "in-process",
            "cpu",
            run_dir,
            nullcontext(),
            lambda: auditing.enter_plan(plan, run_dir),
        )
    return scenario, plan


@pytest.fixture(scope="module")
def run(tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Scenario, Plan, Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("audited") / "run"
    scenario, plan = audited(tiny_path, out)
    found = auditing.evaluate(scenario, out)
    auditing.sign_off(out, found)
    return scenario, plan, out, found


@pytest.fixture
def copied(run: tuple[Scenario, Plan, Path, dict[str, Any]], tmp_path: Path) -> tuple[Scenario, Path]:
    shutil.copytree(run[2], tmp_path / "run")
    return run[0], tmp_path / "run"


def test_correct_code_is_not_refuted_and_every_gauge_holds(run: tuple[Scenario, Plan, Path, dict[str, Any]]) -> None:
    _, plan, _, found = run
    assert found["verdict"] == "not-refuted"
    assert found["power"] == plan.power >= LEAST_POWER
    assert [gauge for gauge in found["gauges"] if not gauge["passed"]] == []
    assert {gauge["silo"] for gauge in found["gauges"]} == {None, *SILOS}
    assert found["guesses"] == {
        "canaries": 600, "made": plan.guesses, "correct": found["guesses"]["correct"], "needed": plan.needed,
    }  # fmt: skip
    assert plan.guesses / 2 < found["guesses"]["correct"] < plan.needed
    assert list(found["lower_bounds"]) == ["steinke", "fdp", "clopper_pearson", "gaussian"]
    for bound in found["lower_bounds"].values():
        assert 0 <= bound["epsilon"] < found["claimed_epsilon"]
        assert bound["confidence"] == 0.95
    assert found["lower_bounds"]["gaussian"]["assumption"] == "under a Gaussian score model"
    assert found["lower_bounds"]["gaussian"]["epsilon"] > 0.5
    assert len(found["scores"]["included"]) + len(found["scores"]["excluded"]) == 600
    # What is not measured is said, and is what full lots cannot show.
    assert {one["name"] for one in found["unmeasured"]} == {"denominator"}


def test_the_claim_is_the_ledgers(run: tuple[Scenario, Plan, Path, dict[str, Any]]) -> None:
    _, plan, out, found = run
    summary = json.loads((out / "summary.json").read_text())
    assert found["claimed_epsilon"] == max(row["epsilon"] for row in summary["privacy"])
    # The model that is released is the scenario's own, without a block.
    assert summary["parameters"] == 5
    assert plan.epsilon == pytest.approx(found["claimed_epsilon"])
    assert plan.mu == pytest.approx(8**0.5 / 3, rel=1e-3)


def test_ledgers_are_told_of_the_plan_before_anything_is_charged(
    run: tuple[Scenario, Plan, Path, dict[str, Any]],
) -> None:
    _, plan, out, _ = run
    for silo in SILOS:
        entries = verify_ledger(out / "ledgers" / f"{silo}.sqlite").entries
        told = [(entry.sequence, entry.content) for entry in entries if entry.kind == "audit"]
        charges = [entry.sequence for entry in entries if entry.kind == "charge"]
        assert [content["subject"] for _, content in told] == ["audit-plan", "audit-result"]
        assert told[0][0] < charges[0]
        assert told[1][0] > charges[-1]
        assert told[0][1]["plan"] == plan.hash
        assert told[1][1]["document"] == auditing.result_hash(out)


def test_the_same_folder_gives_the_same_findings(run: tuple[Scenario, Plan, Path, dict[str, Any]]) -> None:
    scenario, _, out, found = run
    assert auditing.evaluate(scenario, out) == found
    assert json.loads((out / "audit.json").read_text()) == found


def edit(path: Path, change: Any) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("harm", "refusal"),
    [
        (lambda run: edit(run / "audit-plan.json", lambda plan: plan.update(needed=10_000)), "is not the plan that"),
        (lambda run: edit(run / "audit-plan.json", lambda plan: plan.update(guesses=2)), "is not the plan that"),
        (lambda run: edit(run / "audit-plan.json", lambda plan: plan.update(more=1)), "not as it was written"),
        (lambda run: edit(run / "audit-plan.json", lambda plan: plan.pop("silos")), "not as it was written"),
        (lambda run: (run / "audit-plan.json").write_text("{"), "not as it was written"),
        (
            lambda run: edit(run / "silos/north/audit/coins", lambda told: told.update(coins=told["coins"][::-1])),
            "coins are not those",
        ),
        (lambda run: (run / "silos/north/audit/release-00004.npz").unlink(), "is not what its ledger was told of"),
        (
            lambda run: shutil.copy(
                run / "silos/west/audit/release-00002.npz", run / "silos/north/audit/release-00002.npz"
            ),
            "is not what its ledger was told of",
        ),
    ],
    ids=["needed", "guesses", "a key more", "silos", "no JSON", "coins", "a release lost", "a release swapped"],
)
def test_what_was_changed_after_the_run_is_noticed(harm: Any, refusal: str, copied: tuple[Scenario, Path]) -> None:
    scenario, out = copied
    harm(out)
    with pytest.raises(LedgerTampered, match=refusal):
        auditing.evaluate(scenario, out)


def test_a_plan_that_came_after_a_charge_is_none(tiny_path: Path, tmp_path: Path) -> None:
    scenario, plan = auditing.planned(read_scenario(str(tiny_path), [*SETTINGS, "rounds=1"]), 600, "probe", 0.05)

    def toss() -> None:
        for silo in SILOS:
            observations.toss(tmp_path / "run" / "silos" / silo, 200)

    with runner.run_folder(scenario, tmp_path / "run") as out:
        runner.simulate(scenario, 5, "in-process", "cpu", out, nullcontext(), toss)
    for silo in SILOS:
        shutil.rmtree(out / "silos" / silo / "audit")
    auditing.enter_plan(plan, out)
    with pytest.raises(LedgerTampered, match="not of one before its first charge"):
        auditing.evaluate(scenario, out)


def test_a_run_without_a_plan_was_not_audited(copied: tuple[Scenario, Path]) -> None:
    scenario, out = copied
    (out / "audit-plan.json").unlink()
    with pytest.raises(ConfigError, match="was not audited"):
        auditing.evaluate(scenario, out)


def invoke(*words: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["fedmodel", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    told = capfd.readouterr()
    return int(ended.value.code or 0), told.out, told.err


@pytest.fixture
def sets() -> list[str]:
    return [word for setting in SETTINGS for word in ("--set", setting)]


def test_audit_run_answers_and_ends_with_0(
    tiny_path: Path, tmp_path: Path, sets: list[str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("audit", "run", str(tiny_path), *sets, "--canaries", "600", "--out", str(tmp_path / "run"), "--json")
    status, told, _ = invoke(*words, capfd=capfd, monkeypatch=monkeypatch)
    found = json.loads(told)
    assert status == 0
    assert found.keys() >= {"claimed_epsilon", "lower_bounds", "power", "gauges", "verdict", "plan_hash"}
    assert found["verdict"] == "not-refuted"


def test_half_the_noise_is_refuted_and_ends_with_3(
    tiny_path: Path, tmp_path: Path, sets: list[str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = OsNoise.gaussian

    def quieter(self: OsNoise, size: int, std: float, device: torch.device) -> Tensor:
        return real(self, size, std / 2, device)

    monkeypatch.setattr(OsNoise, "gaussian", quieter)
    words = ("audit", "run", str(tiny_path), *sets, "--canaries", "600", "--out", str(tmp_path / "run"))
    status, told, _ = invoke(*words, capfd=capfd, monkeypatch=monkeypatch)
    assert status == 3
    assert "refute the claim" in told
    assert "noise_std" in told
    found = json.loads((tmp_path / "run" / "audit.json").read_text())
    assert found["verdict"] == "refuted"
    assert found["guesses"]["correct"] >= found["guesses"]["needed"]
    assert found["lower_bounds"]["fdp"]["epsilon"] > found["claimed_epsilon"]


def test_too_little_power_is_inconclusive_and_nothing_is_run(
    tiny_path: Path, tmp_path: Path, sets: list[str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (str(tiny_path), *sets, "--canaries", "30")
    status, told, error = invoke("audit", "plan", *words, "--json", capfd=capfd, monkeypatch=monkeypatch)
    assert status == 5
    assert json.loads(told)["power"] < LEAST_POWER
    assert "raise --canaries" in error
    out = tmp_path / "run"
    status, _, _ = invoke("audit", "run", *words, "--out", str(out), capfd=capfd, monkeypatch=monkeypatch)
    assert status == 5
    assert not out.exists()


def test_a_verdict_of_too_little_power_is_never_a_pass(run: tuple[Scenario, Plan, Path, dict[str, Any]]) -> None:
    plan = run[1]
    assert auditing.verdict_of(plan, 0, [])[0] == "not-refuted"
    assert auditing.verdict_of(replace(plan, power=0.79), 0, [])[0] == "inconclusive"
    assert auditing.verdict_of(replace(plan, power=0.79), plan.needed, [])[0] == "refuted"
    assert auditing.verdict_of(plan, plan.needed - 1, [])[0] == "not-refuted"
    assert auditing.verdict_of(plan, plan.needed, [])[0] == "refuted"
    verdict, reasons = auditing.verdict_of(plan, 0, ["the noise is half"])
    assert (verdict, reasons) == ("refuted", ["a gauge failed: the noise is half"])
    assert [audit_cli.exit_status(one) for one in ("not-refuted", "refuted", "inconclusive")] == [0, 3, 5]


@pytest.mark.parametrize(
    ("settings", "canaries", "refusal"),
    [
        (["privacy.noise=seeded-unsafe"], 600, "claims nothing that could be refuted"),
        (["audit.count=9"], 600, "has an \\[audit\\] section already"),
        ([], 9, "where 4 to 10,000 are possible"),
        ([], 12, "too few to tell anything"),
        ([], 300_000, "where 4 to 10,000 are possible"),
    ],
    ids=["seeded", "has one", "too few each", "too few", "too many"],
)
def test_what_cannot_be_audited_is_refused(settings: list[str], canaries: int, refusal: str, tiny_path: Path) -> None:
    with pytest.raises(ConfigError, match=refusal):
        auditing.planned(read_scenario(str(tiny_path), [*SETTINGS, *settings]), canaries, "probe", 0.05)


@pytest.mark.parametrize(
    "settings",
    [
        ["privacy.unit=client", "privacy.max_records=4", "privacy.noise_multiplier=12.0"],
        [
            "privacy.unit=person",
            "privacy.max_records=3",
            "data.records_per_person=3",
            "privacy.noise_multiplier=9.0",
            "data.partition.min_records=5",
        ],
        ["privacy.sample_rate=0.5", "privacy.unit=client", "privacy.max_records=4", "privacy.noise_multiplier=8.0"],
    ],
    ids=["clients", "persons", "clients in lots"],
)
def test_a_canary_is_one_unit_of_privacy(settings: list[str], tiny_path: Path, tmp_path: Path) -> None:
    scenario, plan = audited(tiny_path, tmp_path / "run", *settings, "privacy.expected_batch_size=4")
    found = auditing.evaluate(scenario, tmp_path / "run")
    assert [gauge for gauge in found["gauges"] if not gauge["passed"]] == []
    assert found["guesses"]["correct"] < plan.needed
    rate = scenario.privacy.sample_rate
    means = [gauge for gauge in found["gauges"] if gauge["name"] == "canary_mean"]
    # As many records as the unit has, each drawn with the rate: far from what one record would add.
    assert [gauge["expected"] for gauge in means] == pytest.approx([plan.silos[0].max_records * rate] * 3)
    assert plan.silos[0].max_records in (3, 4)


@pytest.mark.parametrize(
    "settings",
    [
        ["training.optimizer=adam", "training.learning_rate=0.05", "training.keep_optimizer_state=true"],
        ["training.momentum=0.9", "training.keep_optimizer_state=true", "training.max_physical_batch=7"],
        ["privacy.sample_rate=0.5", "training.local_steps=3", "federation.cohort=2"],
    ],
    ids=["adam", "momentum", "cohorts"],
)
def test_however_a_scenario_trains_the_canaries_see_the_mechanism(
    settings: list[str], tiny_path: Path, tmp_path: Path
) -> None:
    scenario, plan = audited(tiny_path, tmp_path / "run", *settings)
    found = auditing.evaluate(scenario, tmp_path / "run")
    assert [gauge for gauge in found["gauges"] if not gauge["passed"]] == []
    assert plan.guesses * 0.6 < found["guesses"]["correct"] < plan.needed


def test_loss_canaries_are_attacked_through_the_final_model_alone(tiny_path: Path, tmp_path: Path) -> None:
    """What they could find is found out by training at half the noise: here next to nothing, and that is said."""
    scenario, plan = audited(tiny_path, tmp_path / "run", kind="loss", canaries=60)
    assert (plan.kind, plan.runs) == ("loss", 5)
    assert plan.power < LEAST_POWER
    found = auditing.evaluate(scenario, tmp_path / "run")
    assert found["verdict"] == "inconclusive"
    assert {gauge["name"] for gauge in found["gauges"]} >= {"lot_rate", "charged_before_release", "charged_steps"}
    assert {one["name"] for one in found["unmeasured"]} >= {"noise_std", "canary_mean"}
    assert len(found["scores"]["included"]) + len(found["scores"]["excluded"]) == 60


# The plan itself


@pytest.fixture(scope="module")
def silos() -> list[SiloCanaries]:
    return [SiloCanaries(silo, 250, 6.56, 1.0, 40, 1, 3.0, 1e-3, 40**0.5 / 6.56) for silo in SILOS]


def test_an_odd_number_of_canaries_has_no_more_guesses_than_canaries(silos: list[SiloCanaries]) -> None:
    odd = [replace(one, canaries=333) for one in silos]
    assert make_plan("ab" * 32, "probe", odd).guesses <= 998


def test_a_plan_is_the_same_again_and_its_hash_covers_all_of_it(silos: list[SiloCanaries]) -> None:
    plan = make_plan("ab" * 32, "probe", silos)
    assert make_plan("ab" * 32, "probe", silos) == plan
    document = plan.document()
    for key in document:
        assert plan_hash({**document, key: "another"}) != plan.hash
    changed = json.loads(json.dumps(document))
    changed["silos"][1]["noise_multiplier"] += 1e-9
    assert plan_hash(changed) != plan.hash


def test_power_is_what_simulated_attacks_achieve(silos: list[SiloCanaries]) -> None:
    """At the claimed noise the plan refutes (nearly) never; at half of it as often as it says."""
    plan = make_plan("ab" * 32, "probe", silos)
    assert plan.power > 0.95
    rng = np.random.default_rng(1)
    for less, expected in ((1.0, 0.0), (0.5, plan.power)):
        refuted = 0
        for _ in range(200):
            coins = rng.random(750) < 0.5
            sums = 40.0 * coins + rng.normal(0, less * 6.56 * 40**0.5, 750)
            ranked = coins[np.argsort(sums)]
            half = plan.guesses // 2
            refuted += int((~ranked[:half]).sum() + ranked[-half:].sum()) >= plan.needed
        assert abs(refuted / 200 - expected) <= 5 * (expected * (1 - expected) / 200 + 0.01 / 200) ** 0.5


def test_power_of_trained_runs_is_read_off_a_normal_distribution(silos: list[SiloCanaries]) -> None:
    plan = make_plan("ab" * 32, "loss", silos)
    assert with_power(plan, [plan.needed + 40, plan.needed + 42]).power > 0.999
    assert with_power(plan, [plan.needed - 40, plan.needed - 42]).power < 0.001
    assert with_power(plan, [plan.needed - 6, plan.needed + 5]).power == pytest.approx(0.5, abs=0.01)
