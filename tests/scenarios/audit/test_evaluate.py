"""An audited run: what was fixed before it cannot be changed after it, and its verdict follows from what was seen."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor

from fedmodel.audit.plan import LEAST_POWER, Plan, SiloCanaries, make_plan, plan_hash, with_power
from fedmodel.canaries import observations
from fedmodel.config import Scenario, read_scenario
from fedmodel.errors import ClaimRefuted, ConfigError, LedgerError, LedgerTampered
from fedmodel.ledger import verify_ledger
from fedmodel.privacy.noise import OsNoise
from scenarios.audit import evaluate, planning
from scenarios.cli import audit, main
from scenarios.report import audited as audited_again
from scenarios.report.audited import attack_again
from scenarios.runs import audit_entries
from scenarios.simulation import simulate
from server.strategies import why_not_followed
from server.strategies.fedavg import FedAvg
from tests.conftest import TINY
from tests.drawing import same_bytes

# Three silos, full lots, eight steps.
SETTINGS = ["rounds=4", "privacy.sample_rate=1.0", "privacy.expected_batch_size=20", "privacy.noise_multiplier=3.0"]
SILOS = ("north", "south", "west")
ROBUST = ("encryption.secure_aggregation=off", "federation.min_silos=3")

pytestmark = pytest.mark.usefixtures("same_bytes")


@pytest.fixture(scope="module")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scenario") / "tiny.toml"
    path.write_text(TINY)
    return path


def audited(
    path: Path, out: Path, *settings: str, kind: Literal["probe", "loss"] = "probe", canaries: int = 600
) -> tuple[Scenario, Plan]:
    """Run the small scenario with canaries, up to what was seen."""
    scenario, plan = planning.planned(read_scenario(str(path), [*SETTINGS, *settings]), canaries, kind, 0.05)
    with simulate.run_folder(scenario, out) as run_dir:
        simulate.simulate(
            scenario,
            simulate.check_scenario(scenario),
            "in-process",
            "cpu",
            run_dir,
            nullcontext(),
            lambda: audit_entries.enter_plan(plan, run_dir),
        )
    audit_entries.enter_seen(out)
    return scenario, plan


@pytest.fixture(scope="module")
def run(tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Scenario, Plan, Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("audited") / "run"
    with same_bytes():
        scenario, plan = audited(tiny_path, out)
    found = evaluate.evaluate(scenario, out)
    audit_entries.sign_off(out, found)
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
    for name, bound in found["lower_bounds"].items():
        # The Gaussian one is as close as its confidence lets it be: of other bytes it is over the claim once in twenty.
        assert 0 <= bound["epsilon"] < found["claimed_epsilon"] * (1.3 if name == "gaussian" else 1)
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
        by_subject = {content["subject"]: (sequence, content) for sequence, content in told}
        assert [*by_subject] == ["audit-plan", "run-countersigned", "audit-seen", "audit-result"]
        assert len(told) == len(by_subject)
        assert by_subject["audit-plan"][0] < charges[0]
        assert by_subject["run-countersigned"][0] > charges[-1]
        assert by_subject["audit-plan"][1]["plan"] == plan.hash
        assert by_subject["audit-result"][1]["document"] == audit_entries.result_hash(out)


def test_the_same_folder_gives_the_same_findings(run: tuple[Scenario, Plan, Path, dict[str, Any]]) -> None:
    scenario, _, out, found = run
    assert evaluate.evaluate(scenario, out) == found


def test_what_a_reader_lacks_is_said_and_all_else_is_held_to_what_was_seen(
    run: tuple[Scenario, Plan, Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario, _, out, told = run
    found = json.loads(json.dumps(told))

    def again(by: Scenario = scenario, **says: Any) -> str:
        return attack_again(SimpleNamespace(scenario=by, run_dir=out, audit={**found, **says}))  # type: ignore[arg-type]

    other = {"note": "another"}
    assert again() == ""
    with pytest.raises(ClaimRefuted, match="membership"):
        again(membership=other)
    monkeypatch.setattr(audited_again, "why_not_here", lambda *_: "that needs what is elsewhere")
    monkeypatch.setattr(evaluate, "membership", lambda *_: pytest.fail("the records were read"))
    partly = "evaluated again, but NOT what it inferred of membership: that needs what is elsewhere"
    assert again() == again(membership=other) == partly
    for says in ({"guesses": {**found["guesses"], "correct": 1}}, {"verdict": "refuted"}, {"gauges": []}):
        with pytest.raises(ClaimRefuted, match=next(iter(says))):
            again(**says)
    by_loss = scenario.model_copy(update={"audit": scenario.audit.model_copy(update={"canaries": "loss"})})  # type: ignore[union-attr]
    assert again(by_loss) == "NOT evaluated again: that needs what is elsewhere"
    assert json.loads((out / "audit.json").read_text()) == found


def edit(path: Path, change: Any) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("harm", "refusal"),
    [
        (lambda run: edit(run / "audit-plan.json", lambda plan: plan.update(needed=10_000)), "tests otherwise"),
        (lambda run: edit(run / "audit-plan.json", lambda plan: plan.update(guesses=2)), "tests otherwise"),
        (lambda run: edit(run / "audit-plan.json", lambda plan: plan.update(more=1)), "not as it was written"),
        (lambda run: edit(run / "audit-plan.json", lambda plan: plan.pop("silos")), "not as it was written"),
        (lambda run: (run / "audit-plan.json").write_text("{"), "not as it was written"),
        (lambda run: edit(run / "audit-plan.json", lambda plan: plan.update(power=float("nan"))), "not as it was"),
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
        (lambda run: shutil.rmtree(run / "server/audit"), "is not what its ledger was told of"),
        (
            lambda run: shutil.copy(run / "server/audit/mean-00001.npy", run / "server/audit/mean-00002.npy"),
            "what the server opened, is not what its ledger was told of",
        ),
        (
            lambda run: shutil.copy(run / "server/audit/mean-00004.npy", run / "server/audit/mean-00005.npy"),
            "is not what its ledger was told of",
        ),
    ],
    ids=[
        *("needed", "guesses", "a key more", "silos", "no JSON", "NaN", "coins", "a release lost", "a release swapped"),
        *("means lost", "a mean swapped", "a mean more"),
    ],
)
def test_what_was_changed_after_the_run_is_noticed(harm: Any, refusal: str, copied: tuple[Scenario, Path]) -> None:
    scenario, out = copied
    harm(out)
    with pytest.raises(LedgerTampered, match=refusal):
        evaluate.evaluate(scenario, out)


def test_a_plan_that_came_after_a_charge_is_none(tiny_path: Path, tmp_path: Path) -> None:
    scenario, plan = planning.planned(read_scenario(str(tiny_path), [*SETTINGS, "rounds=1"]), 600, "probe", 0.05)

    def toss() -> None:
        for silo in SILOS:
            observations.toss(tmp_path / "run" / "silos" / silo, 200)

    with simulate.run_folder(scenario, tmp_path / "run") as out:
        simulate.simulate(scenario, 5, "in-process", "cpu", out, nullcontext(), toss)
    for silo in SILOS:
        shutil.rmtree(out / "silos" / silo / "audit")
    audit_entries.enter_plan(plan, out)
    audit_entries.enter_seen(out)
    with pytest.raises(LedgerTampered, match="not of one before its first charge"):
        evaluate.evaluate(scenario, out)


@pytest.mark.parametrize("when", ["before the run", "never", "twice"])
def test_what_was_seen_is_told_once_and_after_the_run(when: str, tiny_path: Path, tmp_path: Path) -> None:
    scenario, plan = planning.planned(read_scenario(str(tiny_path), [*SETTINGS, "rounds=1"]), 600, "probe", 0.05)

    def enter() -> None:
        audit_entries.enter_plan(plan, tmp_path / "run")
        if when == "before the run":
            audit_entries.enter_seen(tmp_path / "run")

    with simulate.run_folder(scenario, tmp_path / "run") as out:
        simulate.simulate(scenario, 5, "in-process", "cpu", out, nullcontext(), enter)
    for _ in range(2 if when == "twice" else 0):
        audit_entries.enter_seen(out)
    with pytest.raises(LedgerTampered, match="was not told once, after the run, of what its audit saw"):
        evaluate.evaluate(scenario, out)


def test_a_strategy_that_says_nothing_of_coordinates_is_not_followed() -> None:
    class Norm(FedAvg):
        BY_COORDINATE = False

    assert "may move a coordinate of the model by others" in str(why_not_followed(Norm.__new__(Norm)))


def test_a_run_without_a_plan_was_not_audited(copied: tuple[Scenario, Path]) -> None:
    scenario, out = copied
    (out / "audit-plan.json").unlink()
    with pytest.raises(ConfigError, match="was not audited"):
        evaluate.evaluate(scenario, out)


def invoke(*words: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["fedmodel", *words])
    with pytest.raises(SystemExit) as ended:
        main.main()
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


def test_a_tenth_of_the_noise_is_refuted_and_ends_with_3(
    tiny_path: Path, tmp_path: Path, sets: list[str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of it is refuted as often as the plan's power says, a tenth always.

    At a tenth a canary's two scores are 9.4 standard deviations apart, so any of 600 is on the wrong side of the middle
    with probability 2e-3 at most, and ten wrong guesses are needed to miss: under 1e-27.
    """
    real = OsNoise.gaussian

    def quieter(self: OsNoise, size: int, std: float, device: torch.device) -> Tensor:
        return real(self, size, std / 10, device)

    monkeypatch.setattr(OsNoise, "gaussian", quieter)
    words = ("audit", "run", str(tiny_path), *sets, "--canaries", "600", "--out", str(tmp_path / "run"))
    status, told, _ = invoke(*words, capfd=capfd, monkeypatch=monkeypatch)
    assert status == 3
    assert "refute the claim" in " ".join(told.split())  # where a line breaks hangs on the figures in it
    assert "noise_std" in told
    found = json.loads((tmp_path / "run" / "audit.json").read_text())
    assert found["verdict"] == "refuted"
    assert found["guesses"]["correct"] >= found["guesses"]["needed"]
    assert found["lower_bounds"]["fdp"]["epsilon"] > found["claimed_epsilon"]


def test_too_little_power_is_inconclusive_and_nothing_is_run(
    tiny_path: Path, tmp_path: Path, sets: list[str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (str(tiny_path), *sets, "--canaries", "60")
    status, told, error = invoke("audit", "plan", *words, "--json", capfd=capfd, monkeypatch=monkeypatch)
    assert status == 5
    assert json.loads(told)["power"] < LEAST_POWER
    assert "raise --canaries, or where more of them change nothing take larger lots in fewer rounds" in error
    out = tmp_path / "run"
    status, _, _ = invoke("audit", "run", *words, "--out", str(out), capfd=capfd, monkeypatch=monkeypatch)
    assert status == 5
    assert not out.exists()


def test_a_step_of_the_servers_that_is_not_the_declared_one_refutes_no_epsilon_and_is_no_pass(
    run: tuple[Scenario, Plan, Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario, _, out, _ = run
    apply = FedAvg.apply
    monkeypatch.setattr(FedAvg, "apply", lambda self, model_P, mean_P, state: apply(self, model_P, mean_P / 2, state))
    found = evaluate.evaluate(scenario, out)
    assert [gauge["name"] for gauge in found["gauges"] if not gauge["passed"]] == ["model_moves"]
    (reason,) = found["reasons"]
    assert found["verdict"] == "inconclusive"
    assert reason.startswith("the server's step is not that of the declared strategy, on which no epsilon hangs")


def test_a_verdict_of_too_little_power_is_never_a_pass(run: tuple[Scenario, Plan, Path, dict[str, Any]]) -> None:
    plan = run[1]

    def verdict(correct: int, *failed: str, power: float = 1.0, unfit: str = "", void: str = "") -> str:
        return evaluate.verdict_of(
            plan, correct, failed, power=power, unfit=[unfit] if unfit else [], void=void
        )[0]  # fmt: skip

    assert verdict(0) == "not-refuted"
    assert verdict(0, power=0.79) == "inconclusive"
    assert verdict(plan.needed, power=0.79) == "refuted"
    assert verdict(plan.needed - 1) == "not-refuted"
    assert verdict(plan.needed) == "refuted"
    assert verdict(0, "the noise is half") == "refuted"
    assert verdict(0, unfit="nothing was measured") == "inconclusive"
    assert verdict(plan.needed, unfit="nothing was measured") == "refuted"
    # More steps than were planned: so many right guesses are no evidence, and a failed gauge is.
    assert verdict(plan.needed, void="it took more steps") == "inconclusive"
    assert verdict(0, "the noise is half", void="it took more steps") == "refuted"
    assert [audit.exit_status(one) for one in ("not-refuted", "refuted", "inconclusive")] == [0, 3, 5]


@pytest.mark.parametrize(
    ("settings", "canaries", "refusal"),
    [
        (["privacy.noise=seeded-unsafe"], 600, "claims nothing that could be refuted"),
        ([*ROBUST, "federation.strategy=median"], 600, "'median' makes of updates something else than their mean"),
        ([*ROBUST, "federation.strategy=krum"], 600, "audit with 'fedavg' and without strategy_options"),
        (["audit.count=9"], 600, "has an \\[audit\\] section, which says"),
        ([], 59, "where 20 to 10,000 are possible"),
        ([], 12, "where 20 to 10,000 are possible"),
        ([], 300_000, "where 20 to 10,000 are possible"),
    ],
    ids=["seeded", "median", "krum", "has one", "too few each", "too few", "too many"],
)
def test_what_cannot_be_audited_is_refused(settings: list[str], canaries: int, refusal: str, tiny_path: Path) -> None:
    with pytest.raises(ConfigError, match=refusal):
        planning.planned(read_scenario(str(tiny_path), [*SETTINGS, *settings]), canaries, "probe", 0.05)


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
    found = evaluate.evaluate(scenario, tmp_path / "run")
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
    found = evaluate.evaluate(scenario, tmp_path / "run")
    assert [gauge for gauge in found["gauges"] if not gauge["passed"]] == []
    assert plan.guesses * 0.6 < found["guesses"]["correct"] < plan.needed


def test_loss_canaries_are_attacked_through_the_final_model_alone(tiny_path: Path, tmp_path: Path) -> None:
    """What they could find is found out by training at half the noise: here next to nothing, and that is said."""
    scenario, plan = audited(tiny_path, tmp_path / "run", kind="loss", canaries=60)
    assert (plan.kind, plan.runs) == ("loss", 5)
    assert plan.power < LEAST_POWER
    found = evaluate.evaluate(scenario, tmp_path / "run")
    assert found["verdict"] == "inconclusive"
    assert {gauge["name"] for gauge in found["gauges"]} >= {"lot_rate", "charged_before_release", "charged_steps"}
    assert {one["name"] for one in found["unmeasured"]} >= {"noise_std", "canary_mean"}
    assert len(found["scores"]["included"]) + len(found["scores"]["excluded"]) == 60
    assert "exposure" not in found  # of a class of a row


@pytest.mark.parametrize(("kind", "learnt", "told"), [
    ("loss", "next-token", 2.0), ("probe", "next-token", None), ("loss", "classification", None),
])  # fmt: skip
def test_exposure_is_of_canaries_that_a_model_of_next_tokens_had_as_records(
    kind: str, learnt: str, told: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And beside it that of the same ones in the model that the run began with."""
    scenario, plan = SimpleNamespace(data=SimpleNamespace(learnt=learnt)), SimpleNamespace(kind=kind)
    scores_M, coins_M = np.array([9.0, 1.0, 2.0, 3.0]), np.array([True, False, False, False])
    first = {"run": np.array([2.5, 1.0, 2.0, 3.0])}
    monkeypatch.setattr(evaluate, "first_model", lambda _, run_dir: str(run_dir))
    monkeypatch.setattr(evaluate, "loss_scores", lambda _, model: first[model])
    found = evaluate._exposed(scenario, plan, scores_M, coins_M, Path("run"))  # type: ignore[arg-type]
    assert found.get("exposure", {}).get("largest") == told
    assert found.get("exposure", {}).get("before") == (told and {"mean": 1.0, "largest": 1.0})
    none_in = evaluate._exposed(scenario, plan, scores_M, np.zeros(4, np.bool_), Path("run"))  # type: ignore[arg-type]
    assert none_in == {}
    monkeypatch.setattr(evaluate, "first_model", mock.Mock(side_effect=ConfigError("it is gone")))
    without = evaluate._exposed(scenario, plan, scores_M, coins_M, Path("run"))  # type: ignore[arg-type]
    assert (without.get("exposure", {}).get("largest"), "before" in without.get("exposure", {})) == (told, False)


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"needed": 10_000}, "tests otherwise"),
        ({"power": 1.0, "guesses": 20, "needed": 21}, "says a power of 1"),
        ({"least_power": 0.01}, "tests otherwise"),
        ({"less_noise": 0.1}, "tests otherwise"),
        ({"statistic": "mine"}, "tests otherwise"),
        ({"significance": 0.999}, "guesses at significance 0.999"),
        ({"guesses": 1}, "has 1 guesses"),
        ({"guesses": 602}, "has 602 guesses"),
        ({"runs": 10**9}, "says 1000000000 runs"),
        ({"kind": "loss"}, "is of another scenario"),
        ({"scenario": "00" * 32}, "is of another scenario"),
        ({"mu": 3.0}, "claims other figures for silo south"),
        ({"noise_multiplier": 30.0}, "claims other figures for silo south"),
        ({"steps": 9}, "other silos, canaries or steps"),
        ({"canaries": 100}, "other silos, canaries or steps"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_plan_that_could_not_refute_is_refused_though_it_was_entered(
    change: dict[str, Any], refusal: str, run: tuple[Scenario, Plan, Path, dict[str, Any]]
) -> None:
    scenario, plan, _, _ = run
    planning.check_plan(scenario, plan)
    if change.keys() <= {"mu", "noise_multiplier", "steps", "canaries"}:
        silos = (plan.silos[0], replace(plan.silos[1], **change), plan.silos[2])
        changed = replace(plan, silos=silos)
    else:
        changed = replace(plan, **change)
    with pytest.raises(LedgerTampered, match=refusal):
        planning.check_plan(scenario, changed)


def test_a_run_is_signed_off_once(copied: tuple[Scenario, Path]) -> None:
    scenario, out = copied
    before = (out / "audit.json").read_bytes()
    with pytest.raises(LedgerError, match="a run is audited once"):
        audit_entries.sign_off(out, {**evaluate.evaluate(scenario, out), "verdict": "another"})
    assert (out / "audit.json").read_bytes() == before


def test_a_plan_that_could_refute_nothing_passes_nothing(run: tuple[Scenario, Plan, Path, dict[str, Any]]) -> None:
    _, plan, out, _ = run
    seen = [observations.read_observations(out / "silos" / silo, silo) for silo in SILOS]
    assert evaluate._power(plan, seen) == plan.power
    for kind in ("probe", "loss"):
        hopeless = replace(plan, kind=kind, needed=plan.guesses + 1, power=1.0)
        assert evaluate._power(hopeless, seen) == 0.0


def test_a_run_that_ended_early_is_no_pass(tiny_path: Path, tmp_path: Path) -> None:
    """One round of four: so few steps could not tell half the noise from all of it."""
    scenario, plan = audited(tiny_path, tmp_path / "run", "stop_below_loss=100.0")
    found = evaluate.evaluate(scenario, tmp_path / "run")
    assert plan.power > LEAST_POWER
    assert found["power"] < 0.5
    assert found["verdict"] == "inconclusive"
    assert "in the steps that were taken" in found["reasons"][0]
    # What was attacked is the claim of the whole plan, which holds wherever the run ended.
    summary = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))
    assert found["claimed_epsilon"] == max(row["epsilon"] for row in summary["privacy"]) == pytest.approx(plan.epsilon)
    assert all(row["epsilon_of_steps_taken"] < row["epsilon"] for row in summary["privacy"])


def test_a_silo_that_never_took_part_claims_nothing_and_takes_power_away(tiny_path: Path, tmp_path: Path) -> None:
    scenario, plan = audited(tiny_path, tmp_path / "run", "budgets.north=0.01")
    found = evaluate.evaluate(scenario, tmp_path / "run")
    assert {gauge["silo"] for gauge in found["gauges"]} == {None, "south", "west"}
    assert found["power"] < plan.power
    assert [gauge for gauge in found["gauges"] if not gauge["passed"]] == []


def test_an_audited_runs_own_scenario_is_audited_again_as_it_was(
    run: tuple[Scenario, Plan, Path, dict[str, Any]],
) -> None:
    _, plan, out, _ = run
    again = read_scenario(str(out / "scenario.toml"))
    assert planning.planned(again, None, "probe", 0.05) == (again, plan)


def test_cohorts_are_planned_for_as_they_will_be_drawn(tiny_path: Path) -> None:
    """Two of three silos a round, of four rounds with two steps each: what each will be charged, and not all eight."""
    scenario, plan = planning.planned(
        read_scenario(str(tiny_path), [*SETTINGS, "federation.cohort=2"]), 600, "probe", 0.05
    )
    assert sum(one.steps for one in plan.silos) == 4 * 2 * 2
    assert max(one.steps for one in plan.silos) < 8
    whole = scenario.plan("north").steps
    assert whole == 8


def test_simulate_refuses_a_scenario_with_canaries(
    tiny_path: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("simulate", str(tiny_path), "--set", "audit.count=20", "--out", str(tmp_path / "run"))
    status, _, error = invoke(*words, capfd=capfd, monkeypatch=monkeypatch)
    assert status == 2
    assert "is for `fedmodel audit run`" in error
    assert not (tmp_path / "run").exists()


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
    # A standard error under the mean, which is just at what is needed.
    assert with_power(plan, [plan.needed - 6, plan.needed + 5]).power == pytest.approx(0.2398, abs=0.001)
