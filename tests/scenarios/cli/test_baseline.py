"""A run without noise: nowhere deployed, nowhere finite, and the private run's pipeline but for one switch."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from typer.testing import CliRunner

from clients import policy
from clients.silo import Silo
from fedmodel import plans
from fedmodel.config import read_scenario
from fedmodel.crypto import SigningKey
from fedmodel.errors import ConfigError, LedgerError, PolicyRefused, PrivacyBudgetExceeded, PrivacyError
from fedmodel.learning import unclipped
from fedmodel.learning.dp_sgd import DpSgd
from fedmodel.learning.gradients import ClippedSum, kind
from fedmodel.learning.models import parameters_of
from fedmodel.ledger import Asked, Ledger, Scope, verify_ledger
from fedmodel.privacy import accounting, grid
from fedmodel.privacy.events import Baseline, event_to_json
from fedmodel.privacy.mechanisms import event_from_json, mechanism_of
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from fedmodel.privacy.mechanisms.none_unsafe import UnprotectedEvent
from fedmodel.privacy.noise import SeededNoise
from fedmodel.provision import SIMULATED, joint_law, law_of, provision, scenario_hash
from fedmodel.wire import TrainRequest
from scenarios.audit.planning import planned
from scenarios.cli.main import app
from scenarios.report import build
from scenarios.runs.summary import row_of
from tests.fakes import trained
from tests.ledgers import make_budget

PRIVATE = DpSgdEvent(1.0, 1.0, 0.5, 4, 10)
BARE = UnprotectedEvent(1.0, 0.5, 4, 10)
SCOPE = Scope("d", "record", 1, 1e-5, 1000.0, 8)


def test_no_figure_is_finite_over_a_release_without_noise() -> None:
    for events in ([BARE], [PRIVATE, BARE], [BARE, PRIVATE], [replace(BARE, max_grad_norm=None)]):
        assert accounting.epsilon(events, 1e-5) == math.inf
        assert accounting.least_epsilon(events, 1e-5) == math.inf
        assert accounting.gdp_mu(events, 1e-9) == math.inf
        assert accounting.deltas(events, [0.0, 700.0]) == [1.0, 1.0]
    assert accounting.renyi(BARE, 8) == math.inf
    assert accounting.odometer(BARE, 2, 1e-5).epsilon == math.inf


def test_the_event_reads_back_and_is_never_the_other() -> None:
    for event in (BARE, replace(BARE, max_grad_norm=None)):
        assert event_from_json(event_to_json(event)) == event
    for change in ({"mechanism": "dp-sgd"}, {"noise_multiplier": 1.0}, {"max_grad_norm": 0}, {"drawn_from": "me"}):
        with pytest.raises(LedgerError):
            event_from_json(json.dumps({**json.loads(event_to_json(BARE)), **change}))


def test_a_ledger_with_one_admits_nothing_more_and_bounds_nothing(tmp_path: Path) -> None:
    key = SigningKey.generate()
    with Ledger(tmp_path / "a.sqlite", "a", key, tmp_path / "head") as ledger:
        make_budget(ledger, SCOPE)
        ledger.reserve(Asked(SCOPE, "1", BARE, 1))
        ledger.charge("1", 1, 1, "k")
        for more in (PRIVATE, BARE):
            with pytest.raises(PrivacyBudgetExceeded, match="without noise"):
                ledger.reserve(Asked(SCOPE, "2", more, 1))
    found = verify_ledger(tmp_path / "a.sqlite", key.public, [(tmp_path / "head").read_bytes()]).standing
    assert found.bound(SCOPE.name) == found.cap_of(found.runs["1"]) == math.inf
    assert found.totals(SCOPE.name) == (SCOPE.cap, SCOPE.cap, SCOPE.cap)


def test_a_ledger_with_a_private_run_takes_none(tmp_path: Path) -> None:
    with Ledger(tmp_path / "a.sqlite", "a", SigningKey.generate(), tmp_path / "head") as ledger:
        make_budget(ledger, SCOPE)
        ledger.reserve(Asked(SCOPE, "1", PRIVATE, 1))
        with pytest.raises(PrivacyBudgetExceeded, match="protected"):
            ledger.reserve(Asked(SCOPE, "2", BARE, 1))


@pytest.mark.parametrize("baseline", ["no-noise", "no-noise-no-clip"])
def test_a_deployed_silo_refuses_it_whatever_its_law_says(baseline: str) -> None:
    scenario = read_scenario("quickstart", [f"privacy.baseline={baseline}"])
    law = law_of(scenario, "left", bytes(32))
    with pytest.raises(PolicyRefused, match=r"no key of silo\.toml allows it"):
        policy.check_baseline(scenario, simulated=False)
    policy.check_baseline(scenario, simulated=True)
    with pytest.raises(PolicyRefused, match="this silo is deployed"):
        policy.check_event(law, plans.planned_event(scenario.plan("left")))
    with pytest.raises(ConfigError, match="no deployed silo"):
        joint_law([scenario], "left", bytes(32))
    with pytest.raises(ConfigError, match="claims nothing that could be refuted"):
        planned(scenario, 1000, "probe", 1e-3)


def test_a_scenario_without_the_key_has_the_hash_that_it_had() -> None:
    plain = read_scenario("quickstart")
    assert "baseline" not in plain.model_dump_json()
    assert scenario_hash(plain) != scenario_hash(read_scenario("quickstart", ["privacy.baseline=no-noise"]))


@pytest.mark.parametrize("setting", ["privacy.epsilon=1000000", "privacy.silo.left.noise_multiplier=0"])
def test_what_asks_for_no_noise_is_told_how(setting: str) -> None:
    with pytest.raises(ConfigError, match=r"privacy\.baseline"):
        read_scenario("quickstart", [setting])


def _gradient(
    left_out: Baseline | None, clip: float, std: float, of: str = "per-sample"
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    torch.manual_seed(0)
    module = nn.Linear(5, 3)
    x_NF, y_N = torch.randn(12, 5), torch.randint(3, (12,))
    lot = np.array([0, 3, 4, 7, 9])
    (cross_entropy(module(x_NF[lot]), y_N[lot], reduction="sum") / 6).backward()
    plain = [parameter.grad.clone() for parameter in module.parameters() if parameter.grad is not None]
    module.zero_grad()
    losses: Callable[..., torch.Tensor] = lambda output, target: cross_entropy(output, target, reduction="none")  # noqa: E731
    optimizer = torch.optim.SGD(module.parameters(), lr=0.0)
    gradients = kind(of)(
        module,
        losses,
        max_grad_norm=math.inf if left_out == "no-noise-no-clip" else clip,
        unit=grid.fine(std * clip),
        rows=8,
    )
    bare = UnprotectedEvent(None if left_out == "no-noise-no-clip" else clip, 0.5, 1, 6)
    event = DpSgdEvent(std, clip, 0.5, 1, 6) if left_out is None else bare
    release = partial(mechanism_of(event).release, event, noise=SeededNoise(1))
    sgd = DpSgd(gradients, optimizer, release, noise_multiplier=std)
    seen: list[torch.Tensor] = []
    optimizer.register_step_pre_hook(
        lambda *_: seen.extend(p.grad.clone() for p in gradients.parameters if p.grad is not None)
    )
    sgd.step(x_NF, y_N, lot)
    return plain, seen


@pytest.mark.parametrize("of", ["per-sample", "book-keeping"])
def test_without_noise_and_clip_a_lot_s_gradient_is_plain_sgd_s(of: str) -> None:
    plain, seen = _gradient("no-noise-no-clip", 1e-3, 1.0, of)
    assert all(torch.allclose(one, other, rtol=1e-5, atol=1e-6) for one, other in zip(plain, seen, strict=True))
    _, clipped = _gradient("no-noise", 1e-3, 1.0, of)
    norm = torch.cat([one.flatten() for one in clipped]).norm()
    assert 0 < norm <= 5 * 1e-3 / 6


def test_the_switch_is_all_that_differs() -> None:
    _, bare = _gradient("no-noise", 1.0, 0.2)
    _, noised = _gradient(None, 1.0, 0.2)
    assert not torch.equal(bare[0], noised[0])
    noise_P = SeededNoise(1).gaussian(18, 0.2, torch.device("cpu")) / 6
    bare_P, noised_P = (torch.cat([one.flatten() for one in part]).double() for part in (bare, noised))
    assert torch.allclose(bare_P + noise_P, noised_P, atol=1e-5)


@pytest.mark.parametrize("left_out", [None, "no-noise", "no-noise-no-clip"])
def test_only_a_silo_that_leaves_its_clip_out_sums_up_without_norms(
    left_out: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of private silos and of those without noise alone, every sum is the kind's own."""
    ways: list[str] = []
    plain, own = unclipped.sums_of, ClippedSum.of
    monkeypatch.setattr(unclipped, "sums_of", lambda *given: ways.append("plain") or plain(*given))
    monkeypatch.setattr(ClippedSum, "of", lambda *given, **how: ways.append("own") or own(*given, **how))
    scenario = read_scenario("quickstart", [] if left_out is None else [f"privacy.baseline={left_out}"])
    provision(scenario, tmp_path)
    silo = Silo("left", scenario, "1", "cpu", tmp_path, tmp_path / "silos" / "left")
    plan = scenario.plan("left")
    event = plans.planned_event(plan).times(3)
    asked = TrainRequest(1, np.zeros(parameters_of(scenario.model, scenario.data.shape), np.float32))
    trained(silo, event, asked)
    ways.clear()  # of what was measured
    trained(silo, event, asked)
    assert ways == ["plain" if left_out == "no-noise-no-clip" else "own"] * 3


@pytest.mark.usefixtures("same_bytes")  # lots of which the figures have no 0.0000
def test_a_run_says_everywhere_that_it_protects_nobody(tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = ["--set", "rounds=1", "--set", "privacy.baseline=no-noise-no-clip"]
    told = CliRunner().invoke(app, ["simulate", "quickstart", *settings, "--out", str(out)], catch_exceptions=False)
    assert told.exit_code == 0
    assert "This run protects nobody" in told.output
    assert "0.0000" not in told.output
    summary = json.loads((out / "summary.json").read_text())
    assert all(row["epsilon"] is None and not row["protects"] for row in summary["privacy"])
    assert {row["target_epsilon"] for row in summary["privacy"]} == {None}
    line = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["noise"] == "none-unsafe"
    assert set(line["epsilon"].values()) == {None}
    assert b"none-unsafe" in (out / "model.safetensors").read_bytes()
    checked = build.verify(out)
    report = checked.report
    assert "It protects nobody" in dict(checked.items)["claim"]
    assert not report.claim.protects
    assert {one.target_epsilon for one in report.claim.silos} == {None}
    assert report.claim.epsilon is None
    assert report.scope.largest_bound is None
    page = (out / "report.html").read_text()
    assert "This run protects nobody: no noise was added" in page
    assert "WITHOUT noise: protects nobody" in page
    for told_of_noise in ("is protected", "Noise is drawn", "Noise makes", "noised sum", "bounds it", "0.0000"):
        assert told_of_noise not in page
        assert told_of_noise not in (out / "registry.yaml").read_text()
    ledger = str(out / "ledgers" / "left.sqlite")
    shown = CliRunner().invoke(app, ["budget", "show", ledger, "--json"], catch_exceptions=False)
    (scope,) = json.loads(shown.stdout)["scopes"]
    assert scope["epsilon"] is None
    assert scope["without_noise"]
    assert (scope["divergence"]["reserved"], scope["divergence"]["spent"]) == (None, None)
    law = CliRunner().invoke(app, ["silo", "policy", str(out / "silos" / "left"), "--json"], catch_exceptions=False)
    assert "privacy.baseline" in json.loads(law.stdout)["sentences"][-1]


def test_a_silo_that_released_nothing_is_not_said_to_be_protected_by_a_baseline() -> None:
    plan = read_scenario("quickstart", ["privacy.baseline=no-noise"]).plan("left")
    assert row_of(plan, plan.delta, [], [0])["protects"] is False
    assert row_of(replace(plan, baseline=None), plan.delta, [], [0])["protects"] is True


def test_a_silo_is_simulated_only_in_a_folder_that_is_marked_and_never_where_it_is_its_own_home(tmp_path: Path) -> None:
    scenario = read_scenario("quickstart")
    provision(scenario, tmp_path)
    kit = tmp_path / "silos" / "left"
    assert Silo("left", scenario, "1", "cpu", tmp_path, kit).simulated
    (kit / SIMULATED).parent.mkdir()
    (kit / SIMULATED).touch()  # whatever a deployed silo's kit holds
    deployed = Silo("left", scenario, "1", "cpu", kit, kit)
    assert not deployed.simulated
    (tmp_path / SIMULATED).unlink()
    assert not Silo("left", scenario, "1", "cpu", tmp_path, kit).simulated


def test_a_deployed_silo_trains_nothing_without_noise_whoever_let_it_come_this_far(tmp_path: Path) -> None:
    """The last of three refusals, in the silo's own process: its policy may be bypassed, and its ledger be charged."""
    scenario = read_scenario("quickstart", ["privacy.baseline=no-noise"])
    provision(scenario, tmp_path)
    kit = tmp_path / "silos" / "left"
    event = plans.planned_event(scenario.plan("left"))
    model_P = np.zeros(parameters_of(scenario.model, scenario.data.shape), np.float32)
    for home, refused in ((tmp_path, False), (kit, True)):
        silo = Silo("left", scenario, "1", "cpu", home, kit)
        with pytest.raises(PrivacyError, match=r"never left out.* at a deployed silo") if refused else nullcontext():
            update_P = trained(silo, event, TrainRequest(1, model_P))
    assert np.any(update_P)  # of the simulated one
