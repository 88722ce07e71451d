"""A sum of enough silos: by every public figure with which a scenario could make one update stand out in it."""

from __future__ import annotations

import contextlib
import itertools
import math
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clients import policy
from clients.sentences import sentences
from fedmodel import wire
from fedmodel.config import Scenario, SiloFile, builtin_scenarios, read_scenario, read_silo_file, silo_file_to_toml
from fedmodel.crypto import SigningKey
from fedmodel.errors import ConfigError, DropoutError, PolicyRefused
from fedmodel.learning.optimizers import hold_near
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from fedmodel.provision import influence, joint_law, law_of, scenario_hash, scenario_policy
from fedmodel.provision.influence import BEYOND_COLLUDERS, _momentum_sums, levels_of_noise, unevenness
from fedmodel.secagg import effective_silos, least_effective
from scenarios.simulation.simulate import check_scenario
from server.aggregation._sums import check_even_sum
from server.server_app import run_federation
from tests.clients.test_one_charge_one_release import fedmodel
from tests.fakes import FaultyGrid, charged
from tests.server.aggregation.test_masked import CPU, NODE, ON, lines, lost

SERVER = SigningKey(bytes(range(32)))
SILOS = tuple(NODE)
C1 = ["encryption.colluding=1", "federation.min_silos=3"]
HUNDRED = [
    "training.local_steps=", "training.local_epochs=1", "training.learning_rate=0.5", "privacy.sample_rate=0.01",
    "privacy.expected_batch_size=20", "privacy.silo.north.sample_rate=1.0", "privacy.silo.north.expected_batch_size=1",
]  # fmt: skip
EPOCHS = ["training.local_steps=", "training.local_epochs=1", "privacy.sample_rate=1.0"]


def scenario_of(tiny_file: Path, *settings: str) -> Scenario:
    return read_scenario(str(tiny_file), [*ON, *settings])


@given(
    st.lists(st.sampled_from([0.0, 1.0]) | st.floats(1e-6, 1e6), min_size=1, max_size=7).filter(any),
    st.integers(0, 6),
)
def test_the_least_even_list_of_all_is_found(weights: list[float], leaving: int) -> None:
    kept = len(weights) - leaving
    lists = itertools.combinations(weights, kept) if kept > 0 else []
    least = min((sum(one) ** 2 / (sum(w * w for w in one) or 1) for one in lists), default=0.0)
    assert least_effective(weights, leaving) == pytest.approx(least)
    assert 0 <= least_effective(weights, leaving) <= effective_silos(weights) * (1 + 1e-9)


@pytest.mark.parametrize("silos", [1, 2, 3, 49, 1_000])
@pytest.mark.parametrize("weight", [1.0, 0.1, 1e-9, 3e8])
def test_equal_weights_are_worth_as_many_silos_to_the_bit(silos: int, weight: float) -> None:
    assert effective_silos([weight] * silos) == silos


def test_no_weights_are_worth_nothing() -> None:
    assert effective_silos([]) == effective_silos([0.0, 0.0]) == least_effective([1.0], 1) == 0


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ([], None),
        (["federation.weights={north=3.0,west=0.5}"], None),
        (["federation.weights={north=1e9}"], "their weights are worth 1.00 equal silos, where 2 are needed"),
        (["federation.weights={north=1e-9,south=1e-9,west=1e-9}"], "worth 1.00 equal"),
        (["federation.weights={north=12.0}"], "their weights are worth 1.53"),
        # Two that weigh alike pass for two; one of them with the server leaves the other alone.
        (["federation.weights={north=1e3,south=1e3}"], None),
        ([*C1, "federation.weights={north=1e3,south=1e3}"], "their weights, less any 1 of them that work with the"),
        ([*C1, "federation.weights={north=2.0,south=2.0}"], None),
        # A batch of 10 beside batches of a million: every step of the others is as nothing.
        ([f"privacy.silo.{silo}.expected_batch_size=1000000" for silo in SILOS[1:]], "their moves by noise are worth"),
        (["privacy.expected_batch_size=15", "privacy.silo.north.expected_batch_size=1"], "by noise are worth 1.42"),
        (["privacy.silo.north.expected_batch_size=1"], None),
        ([*C1, "privacy.silo.north.expected_batch_size=1"], "their moves by noise, less any 1 of them"),
        # Adam divides by what it has accumulated.
        ([*C1, "privacy.silo.north.expected_batch_size=1", "training.optimizer=adam"], None),
        # Weights in proportion to batches make up for them.
        ([*C1, "privacy.silo.north.expected_batch_size=2", "federation.weights={north=0.2}"], None),
        # Three hundred steps beside one.
        ([*EPOCHS, "privacy.silo.north.sample_rate=0.003"], "their moves by noise are worth"),
        ([*EPOCHS, "privacy.silo.north.sample_rate=0.5"], None),
        # Thirteen steps beside one: noise of four steps' size, and thirteen where all gradients have one direction.
        ([*EPOCHS, "privacy.silo.north.sample_rate=0.0769"], "of one direction are worth 1.48"),
        ([*EPOCHS, "privacy.silo.north.sample_rate=0.0769", "training.optimizer=adagrad"], "of one direction"),
        ([*EPOCHS, "privacy.silo.north.sample_rate=0.0769", "training.optimizer=adam"], "of one direction"),
        ([*EPOCHS, "privacy.silo.north.sample_rate=0.25"], None),
        # Four steps with a momentum of 0.9 are worth ten, unless it is kept, and then the others' are too.
        ([*EPOCHS, "privacy.silo.north.sample_rate=0.25", "training.momentum=0.9", "federation.weights={north=2.0}"],
         "of one direction"),
        ([*EPOCHS, "privacy.silo.north.sample_rate=0.25", "training.momentum=0.9", "federation.weights={north=2.0}",
          "training.keep_optimizer_state=true"], None),
        # A hundred steps beside one, made up for by a divisor; a pull that forgets all but the last undoes that.
        (HUNDRED, None),
        ([*HUNDRED, "training.proximal=2.0"], "their moves by noise are worth"),
        ([*C1, *EPOCHS, "privacy.silo.north.sample_rate=0.111"], "direction, less any 1 of them that work with the"),
        # Some cohort of three has the heavy one in it.
        (["federation.cohort=3", "federation.weights={north=8.0}"], "their weights are worth 1.51"),
    ],
)  # fmt: skip
def test_a_scenario_that_could_leave_one_update_alone_is_refused_before_it_runs(
    settings: list[str], found: str | None, tiny_file: Path
) -> None:
    """By whoever runs it, by whoever writes laws from it, and by a silo whose law names it all the same."""
    scenario = scenario_of(tiny_file, *settings)
    even = law_of(scenario_of(tiny_file, *[one for one in settings if one in C1]), "north", SERVER.public)
    naming = even.model_copy(update={"scenarios": (scenario_hash(scenario).hex(),)})
    if found is None:
        check_scenario(scenario)
        policy.check_admitted(naming, scenario)
        return
    for refusing in (check_scenario, scenario_policy):
        with pytest.raises(ConfigError, match=found) as refused:
            refusing(scenario)
        assert len(str(refused.value).splitlines()) == 1
    with pytest.raises(ConfigError, match=found):
        law_of(scenario, "north", SERVER.public)
    with pytest.raises(PolicyRefused, match=found):
        policy.check_admitted(naming, scenario)


@pytest.mark.parametrize(
    ("steps", "momentum", "pull"),
    [
        *itertools.product([1, 2, 13, 200], [0.0, 0.5, 0.9, 0.999999999], [0.0]),
        *itertools.product([1, 2, 13], [0.0, 0.5, 0.9], [1e-6, 0.1, 1.0, 1.9]),
    ],
)
def test_momentum_moves_as_far_as_the_optimiser_itself_does(steps: int, momentum: float, pull: float) -> None:
    """A unit gradient at one step moves by what torch's SGD makes of it; alone, and with all others."""
    moved = []
    for at in range(steps):
        place = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.SGD([place], lr=1.0, momentum=momentum)
        hold_near(optimizer, pull)
        for step in range(steps):
            place.grad = torch.full_like(place, float(step == at))
            optimizer.step()
        moved.append(-place.item())
    noise, signal = _momentum_sums(steps, momentum, pull)
    assert noise == pytest.approx(math.sqrt(sum(one**2 for one in moved)), rel=1e-12)
    assert signal == pytest.approx(abs(sum(moved)), rel=1e-12, abs=1e-9 if pull else 0)


@pytest.mark.parametrize("name", sorted(builtin_scenarios()))
def test_every_scenario_that_is_shipped_could_be_summed_by_its_public_figures(name: str) -> None:
    """Masks or not, and with one silo that works with the server where that leaves two."""
    scenario = read_scenario(name)
    colluding = 1 if len(scenario.federation.silos) > 2 else 0
    assert unevenness(scenario, scenario.federation.silos, 2.0, colluding) is None


def test_in_the_clear_no_sum_hides_anything_and_weights_are_free(tiny_file: Path) -> None:
    check_scenario(read_scenario(str(tiny_file), ["federation.weights={north=1e9}"]))


@pytest.mark.parametrize("kind", [wire.COMMIT, wire.REVEAL])
@pytest.mark.parametrize("consistency", ["commit", "quorum"])
def test_no_list_of_survivors_is_signed_or_opened_that_leaves_one_alone(
    kind: str, consistency: str, tiny_file: Path, tmp_path: Path
) -> None:
    """The whole roster is worth enough; two of it are not."""
    scenario = scenario_of(
        tiny_file, "federation.weights={north=3.0,west=0.5}", f"encryption.consistency={consistency}"
    )
    check_scenario(scenario)
    grid = FaultyGrid(scenario, tmp_path)
    asked = wire.survivors_request(wire.SurvivorsRequest(1, 1, bytes(32), (1, 3)))
    for silo in ("north", "east"):  # as one of the two, and as a witness
        (reply,) = grid.send_and_receive([grid.asked(asked, kind, NODE[silo])])
        assert wire.refusal_code(reply.error) == "policy-refused"
        log = (tmp_path / "logs" / f"{silo}.log").read_text()
        assert "a sum of 2 silos could be nearly one silo's update: their weights are worth 1.32 equal silos" in log
    fair = wire.survivors_request(wire.SurvivorsRequest(1, 1, bytes(32), (1, 2, 3, 4)))
    (reply,) = grid.send_and_receive([grid.asked(fair, kind, NODE["east"])])
    assert reply.has_content() or wire.refusal_code(reply.error) != "policy-refused"


def test_who_is_in_no_scenario_makes_a_sum_no_safer(tiny_file: Path) -> None:
    scenario = scenario_of(tiny_file)
    assert unevenness(scenario, ["north", "outsider", "another"], 2.0, 0) is not None
    assert unevenness(scenario, ["north", "south"], 2.0, 0) is None


def test_a_sum_is_looked_at_once_whichever_silos_ask_and_any_other_anew(tiny_file: Path) -> None:
    scenario, again = (scenario_of(tiny_file, "federation.weights={north=3.0,west=0.5}") for _ in range(2))
    assert again is not scenario
    influence._unevenness.cache_clear()
    with mock.patch.object(influence, "least_effective", side_effect=least_effective) as looked:
        everyone = unevenness(scenario, ["north", "south", "west", "east"], 2.0, 0)
        before = looked.call_count
        assert unevenness(again, ["north", "south", "west", "east"], 2.0, 0) == everyone is None
        assert looked.call_count == before > 0
        assert unevenness(scenario, ["north", "west"], 2.0, 0) is not None
        assert unevenness(scenario, ["north", "south", "west", "east"], 3.9, 0) is not None
        assert unevenness(scenario, ["north", "south", "west", "east"], 2.0, 3) is not None
        assert unevenness(scenario, ["north", "south", "west", "east"], 2.0, 0, 3) is not None
        heavy = scenario_of(tiny_file, "federation.weights={north=1e3,west=0.5}")
        assert unevenness(heavy, ["north", "south", "west", "east"], 2.0, 0) is not None


def test_a_law_of_its_own_asks_for_more_or_less(tiny_file: Path) -> None:
    scenario = scenario_of(tiny_file, "federation.min_silos=3")
    law = law_of(scenario, "north", SERVER.public)
    assert law.least_effective_silos == 2

    def checked(least: float, silos: tuple[str, ...], **weights: float) -> None:
        federation = scenario.federation.model_copy(update={"weights": weights})
        weighed = scenario.model_copy(update={"federation": federation})
        policy.check_survivors(
            SiloFile.model_validate({**law.model_dump(), "least_effective_silos": least}), weighed, silos
        )

    checked(3.0, SILOS[:3])
    for least, silos, weights in ((3.0, SILOS[:3], {"north": 1.1}), (2.0, SILOS[:3], {"north": 6.0})):
        with pytest.raises(PolicyRefused, match="could be nearly one silo's update"):
            checked(least, silos, **weights)
    checked(1.5, SILOS[:3], north=6.0)
    with pytest.raises(ValueError, match="least_effective_silos = 4 is more than min_silos = 3"):
        checked(4.0, SILOS)


@pytest.mark.parametrize("least", ["0.0", "-1.0", "nan", "100001.0"])
def test_a_law_that_asks_for_no_number_of_silos_is_refused(least: str, tiny_file: Path, tmp_path: Path) -> None:
    law = law_of(scenario_of(tiny_file), "north", SERVER.public)
    text = silo_file_to_toml(law)
    assert "least_effective_silos = 2.0" in text
    path = tmp_path / "silo.toml"
    path.write_text(text.replace("least_effective_silos = 2.0", f"least_effective_silos = {least}"), encoding="utf-8")
    with pytest.raises(ConfigError, match="least_effective_silos"):
        read_silo_file(path)
    path.write_text(text.replace("least_effective_silos = 2.0\n", ""), encoding="utf-8")
    assert read_silo_file(path) == law  # one from before there was the key


def test_the_law_says_it_and_a_joint_law_takes_the_loosest(tiny_file: Path) -> None:
    law = law_of(scenario_of(tiny_file), "north", SERVER.public)
    (sentence,) = [one for one in sentences(law) if "equal silos" in one]
    assert "No sum is opened whose weights are worth fewer than 2 equal silos" in sentence
    first = scenario_of(tiny_file)
    assert joint_law([first, scenario_of(tiny_file, "name=other")], "north", SERVER.public).least_effective_silos == 2


def test_simulate_refuses_lopsided_weights_in_one_line(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = itertools.chain(*(("--set", one) for one in [*ON, "federation.weights={north=1e9}"]))
    assert fedmodel(monkeypatch, "simulate", str(tiny_file), *settings, "--out", "r") == 2
    err = capsys.readouterr().err.strip()
    assert len(err.splitlines()) == 1
    assert "could be nearly one silo's update" in err
    assert not (tmp_path / "r").exists()


LOPSIDED_LATER = ["federation.weights={north=3.0,west=0.5}", "federation.tolerated_failures=1", "rounds=3"]


@pytest.mark.parametrize("mode", ["on", "simulated"])
def test_a_round_whose_survivors_leave_one_alone_fails_closed_and_the_next_goes_on(
    mode: str, tiny_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scenario = scenario_of(tiny_file, *LOPSIDED_LATER, f"encryption.secure_aggregation={mode}")
    fault = lost(wire.TRAIN, "south", "east", rounds=("2",))
    grid = FaultyGrid(scenario, tmp_path, fault)
    run_federation(grid, scenario, tmp_path, CPU)
    assert [line.get("failed", False) for line in lines(tmp_path)] == [False, True, False]
    assert "round 2 failed closed: a sum of 2 silos could be nearly one" in caplog.text
    asked = [reply.metadata.group_id for reply in grid.seen if reply.metadata.message_type == wire.COMMIT]
    assert "2" not in asked


def test_a_round_that_could_only_leave_one_alone_charges_nobody(tiny_file: Path, tmp_path: Path) -> None:
    scenario = scenario_of(tiny_file, *LOPSIDED_LATER, "federation.tolerated_failures=0")
    with pytest.raises(DropoutError, match="round 1 failed closed: a sum of 3 silos could be nearly one"):
        run_federation(FaultyGrid(scenario, tmp_path, lost(wire.SHARE, "south")), scenario, tmp_path, CPU)
    assert all(charged(tmp_path / "ledgers" / f"{silo}.sqlite") == [] for silo in NODE)


def test_a_stricter_law_than_the_servers_refuses_before_it_pays_and_not_at_commit(
    tiny_file: Path, tmp_path: Path
) -> None:
    """The server counts with 2 and asks; a silo whose law says 3 sees that the three who are left are worth 2.95."""
    settings = ["federation.weights={north=1.3}", "federation.min_silos=3", "federation.tolerated_failures=1"]
    scenario = scenario_of(tiny_file, *settings)
    grid = FaultyGrid(scenario, tmp_path, lost(wire.SHARE, "south"))
    law = tmp_path / "silos" / "north" / "silo.toml"
    text = law.read_text(encoding="utf-8")
    assert "least_effective_silos = 2.0" in text
    law.write_text(text.replace("least_effective_silos = 2.0", "least_effective_silos = 3.0"), encoding="utf-8")
    with contextlib.suppress(DropoutError):
        run_federation(grid, scenario, tmp_path, CPU)
    assert "a sum of 3 silos could be nearly one silo's update" in (tmp_path / "logs" / "north.log").read_text()
    assert charged(tmp_path / "ledgers" / "north.sqlite") == []
    assert charged(tmp_path / "ledgers" / "east.sqlite")


def test_the_server_does_not_ask_for_a_sum_that_no_silo_opens(tiny_file: Path) -> None:
    scenario = scenario_of(tiny_file, "federation.weights={north=3.0,west=0.5}")
    check_even_sum(scenario, SILOS)
    with pytest.raises(DropoutError, match=r"worth 1\.32 equal silos"):
        check_even_sum(scenario, ["north", "west"])


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        ([], False),
        (["encryption.bound=5e7"], False),
        (["encryption.bound=6e7"], True),
        (["encryption.ring_bits=16"], False),
        (["encryption.ring_bits=16", "encryption.bound=1000.0"], True),
        (["privacy.expected_batch_size=1000000000"], True),
        (["training.learning_rate=1e-9"], True),
        (["training.optimizer=adam", "privacy.expected_batch_size=1000000000"], True),
    ],
)
def test_a_silo_whose_update_would_be_quantised_to_nothing_is_refused_and_refuses(
    settings: list[str], refused: bool, tiny_file: Path
) -> None:
    scenario = scenario_of(tiny_file, *settings)
    levels = levels_of_noise(scenario, "north", 2.0, scenario_policy(scenario).quantizer)
    assert (levels < 1) == refused
    law = law_of(scenario_of(tiny_file), "north", SERVER.public)
    law = law.model_copy(update={"encryption": law.encryption.model_copy(update={
        key: getattr(scenario.encryption, key) for key in ("bound", "ring_bits")})})  # fmt: skip
    event = DpSgdEvent(2.0, 1.0, 0.5, 2, scenario.privacy.expected_batch_size)
    if not refused:
        law_of(scenario, "north", SERVER.public)
        policy.check_noise_levels(law, scenario, event)
        return
    with pytest.raises(ConfigError, match="rounded to nothing"):
        law_of(scenario, "north", SERVER.public)
    with pytest.raises(PolicyRefused, match="rounded to nothing"):
        policy.check_noise_levels(law, scenario, event)


def test_a_light_silo_has_as_many_levels_as_its_weight_leaves_it(tiny_file: Path) -> None:
    scenario = scenario_of(tiny_file, "federation.weights={north=1.0,south=0.25}")
    quantizer = scenario_policy(scenario).quantizer
    heavy, light = (levels_of_noise(scenario, silo, 2.0, quantizer) for silo in ("north", "south"))
    step = 0.5 * 2.0 * 1.0 / 10  # rate, noise over the clip, clip, batch
    assert heavy == pytest.approx(step * quantizer.scale)
    assert light == pytest.approx(heavy / 4)


def test_a_silo_refuses_to_join_and_to_train_what_would_be_rounded_to_nothing(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = scenario_of(tiny_file)
    grid = FaultyGrid(scenario, tmp_path)
    model = wire.train_request(wire.TrainRequest(1, np.zeros(5, dtype=np.float32)))

    def code(content: Any, kind: str) -> str:
        (reply,) = grid.send_and_receive([grid.asked(content, kind, NODE["north"])])
        return "" if reply.has_content() else wire.refusal_code(reply.error)

    def nothing(*_: object) -> float:
        return 0.0

    with monkeypatch.context() as patch:
        patch.setattr("fedmodel.provision.influence.levels_of_noise", nothing)
        assert code(wire.join_request(), wire.JOIN) == "policy-refused"
        assert not (tmp_path / "ledgers").exists()
    assert code(wire.join_request(), wire.JOIN) == ""
    monkeypatch.setattr("fedmodel.provision.influence.levels_of_noise", nothing)
    assert code(model, wire.TRAIN) == "policy-refused"
    assert charged(tmp_path / "ledgers" / "north.sqlite") == []


def test_of_two_that_are_left_none_has_more_than_the_docs_say() -> None:
    assert effective_silos([3.73, 1.0]) > BEYOND_COLLUDERS > effective_silos([3.74, 1.0])
