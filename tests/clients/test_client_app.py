"""A silo charges before it trains, lets nothing but a code out when it fails, and answers only what it should."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message, MetricRecord, RecordDict

from clients.client_app import app
from clients.silo import Silo
from fedmodel import wire
from fedmodel.config import Scenario, read_scenario
from fedmodel.data import Records, silo_records
from fedmodel.errors import ConfigError, DataError
from fedmodel.kinds import own_code
from fedmodel.kinds.models.own import OwnConfig
from fedmodel.learning import models, pattern
from fedmodel.learning.jobs import training
from fedmodel.learning.models import build_model
from fedmodel.learning.vectors import flatten
from fedmodel.ledger import verify_ledger
from fedmodel.privacy import grid
from fedmodel.provision import SIMULATED, provision
from fedmodel.secagg import MOST_ATTEMPTS, Window
from scenarios.simulation.grid import delivered
from tests.fakes import FaultyGrid, charged

PATIENT = "Ada Lovelace, born 1815-12-10"


def ask(grid: FaultyGrid, content: RecordDict, kind: str, node: int = 2) -> Message:
    (reply,) = grid.send_and_receive([grid.asked(content, kind, node)])
    return reply


def model(scenario: Scenario) -> np.ndarray:
    return flatten(build_model(scenario.model, scenario.data.shape, seed=1))


def joined(scenario: Scenario, tmp_path: Path) -> FaultyGrid:
    grid = FaultyGrid(scenario, tmp_path)
    assert not ask(grid, wire.join_request(), wire.JOIN).has_error()
    return grid


def test_join_reserves_the_whole_plan_and_says_so(tiny: Scenario, tmp_path: Path) -> None:
    grid = FaultyGrid(tiny, tmp_path)
    answer = wire.read_join_reply(ask(grid, wire.join_request(), wire.JOIN, node=3))
    assert answer.silo == "south"
    assert (answer.plan.steps, answer.plan.noise_multiplier, answer.plan.denominator) == (4, 2.0, 10)
    # Asked again, it answers the same and reserves nothing more.
    assert wire.read_join_reply(ask(grid, wire.join_request(), wire.JOIN, node=3)) == answer


def test_a_silo_of_more_records_than_sums_are_exact_for_does_not_join_and_does_not_say_why(
    tiny: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid, "most_records", lambda _: len(silo_records(tiny, "north")) - 1)
    reply = ask(FaultyGrid(tiny, tmp_path), wire.join_request(), wire.JOIN)
    assert wire.refusal_code(reply.error) == "internal"
    assert charged(tmp_path / "ledgers" / "north.sqlite") == []
    assert "past which a sum would be rounded too far" in (tmp_path / "logs" / "north.log").read_text()


def test_training_charges_the_ledger_before_it_reads_records(
    tiny: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = joined(tiny, tmp_path)
    seen: list[int] = []

    def records(silo: Silo) -> Records:
        seen.append(sum(event.steps for event in charged(tmp_path / "ledgers" / "north.sqlite")))
        return silo_records(silo.scenario, silo.name)

    monkeypatch.setattr(Silo, "records", records)
    reply = ask(grid, wire.train_request(wire.TrainRequest(1, model(tiny))), wire.TRAIN)
    assert seen == [2]
    assert wire.read_train_reply(reply).charged.steps == 2


def test_a_round_that_fails_after_its_charge_stays_charged(
    tiny: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = joined(tiny, tmp_path)

    def fails(*_: object) -> None:
        raise RuntimeError(PATIENT)

    monkeypatch.setattr(training.Answering, "answer", fails)
    reply = ask(grid, wire.train_request(wire.TrainRequest(1, model(tiny))), wire.TRAIN)
    assert wire.refusal_code(reply.error) == "internal"
    assert sum(event.steps for event in charged(tmp_path / "ledgers" / "north.sqlite")) == 2


@pytest.mark.parametrize("stage", ["join", "train"])
def test_a_patients_name_in_an_exception_stays_at_the_silo(
    stage: str,
    tiny: Scenario,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    grid = joined(tiny, tmp_path) if stage == "train" else FaultyGrid(tiny, tmp_path)

    def fails(_: Silo) -> Records:
        raise ValueError(f"cannot parse row 17: {PATIENT}")

    monkeypatch.setattr(Silo, "records", fails)
    request = wire.join_request() if stage == "join" else wire.train_request(wire.TrainRequest(1, model(tiny)))
    reply = ask(grid, request, wire.JOIN if stage == "join" else wire.TRAIN)

    assert wire.refusal_code(reply.error) == "internal"
    everything = repr(reply) + caplog.text + "".join(capfd.readouterr())
    assert "Lovelace" not in everything
    assert "row 17" not in everything
    assert "Traceback" not in everything
    assert PATIENT in (tmp_path / "logs" / "north.log").read_text(encoding="utf-8")


def test_where_own_code_is_given_records_no_word_of_an_exception_is_in_the_silos_log(
    tiny: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: Silo) -> Records:
        try:
            raise ValueError(PATIENT)
        except ValueError as error:
            raise KeyError(PATIENT) from error

    monkeypatch.setattr(Silo, "records", fails)
    own = OwnConfig.model_validate({"kind": "own", "use": "mine:net"})
    reply = ask(FaultyGrid(tiny.model_copy(update={"model": own}), tmp_path), wire.join_request(), wire.JOIN)
    own_code.close()
    assert wire.refusal_code(reply.error) == "internal"
    log = (tmp_path / "logs" / "north.log").read_text(encoding="utf-8")
    assert "KeyError in line" in log
    assert "Lovelace" not in log
    assert "Traceback" not in log


def test_the_log_is_the_silos_own(tiny: Scenario, tmp_path: Path) -> None:
    grid = FaultyGrid(tiny, tmp_path)
    ask(grid, wire.train_request(wire.TrainRequest(1, model(tiny))), wire.TRAIN)
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["north.log"]


@pytest.mark.parametrize(
    ("request_", "kind", "code"),
    [
        (wire.train_request(wire.TrainRequest(1, np.zeros(5, dtype=np.float32))), wire.TRAIN, "protocol-violated"),
        (RecordDict(), wire.JOIN, "protocol-violated"),
    ],
)
def test_a_silo_that_has_not_joined_refuses(
    request_: RecordDict, kind: str, code: str, tiny: Scenario, tmp_path: Path
) -> None:
    reply = ask(FaultyGrid(tiny, tmp_path), request_, kind)
    assert wire.refusal_code(reply.error) == code


def test_a_round_past_the_plan_is_refused(tiny: Scenario, tmp_path: Path) -> None:
    grid = joined(tiny, tmp_path)
    reply = ask(grid, wire.train_request(wire.TrainRequest(3, model(tiny))), wire.TRAIN)
    assert wire.refusal_code(reply.error) == "protocol-violated"
    for number, code in enumerate((None, None, "budget-exceeded")):  # other models for one round end with the plan
        other = model(tiny) + np.float32(number)
        reply = ask(grid, wire.train_request(wire.TrainRequest(1, other)), wire.TRAIN)
        assert (wire.refusal_code(reply.error) if reply.has_error() else None) == code
    assert [event.steps for event in charged(tmp_path / "ledgers" / "north.sqlite")] == [2, 2]


def test_the_same_request_gets_the_same_bytes_and_is_charged_once(tiny: Scenario, tmp_path: Path) -> None:
    """Made again, its noise would be other noise, and two updates for one charge would leave."""
    grid = joined(tiny, tmp_path)
    asked = wire.train_request(wire.TrainRequest(1, model(tiny)))
    replies = [ask(grid, asked, wire.TRAIN) for _ in range(3)]
    vectors = [reply.content.array_records["fedmodel.arrays"]["vector"].data for reply in replies]
    assert len(vectors[0]) == 4 * len(model(tiny))
    assert vectors[1:] == [vectors[0]] * 2
    assert len({wire.read_train_reply(reply).charged for reply in replies}) == 1
    assert [event.steps for event in charged(tmp_path / "ledgers" / "north.sqlite")] == [2]


@pytest.mark.parametrize("between", ["another round", "another run"])
def test_an_earlier_round_asked_again_is_not_made_again_for_nothing(
    between: str, tiny_file: Path, tmp_path: Path
) -> None:
    """Asked for one and another in turn, a silo that did would release ever more updates under two charges."""
    scenario = read_scenario(str(tiny_file), ["budgets={north=30.0,south=30.0,west=30.0}"])
    grid = joined(scenario, tmp_path)
    other = grid if between == "another round" else joined(scenario, tmp_path)
    first, second = (wire.train_request(wire.TrainRequest(number, model(scenario))) for number in (1, 2))
    before = ask(grid, first, wire.TRAIN)
    assert not ask(other, second, wire.TRAIN).has_error()
    spent = charged(tmp_path / "ledgers" / "north.sqlite")
    assert [event.steps for event in spent] == [2, 2]
    after = ask(grid, first, wire.TRAIN)
    if after.has_content() and charged(tmp_path / "ledgers" / "north.sqlite") == spent:
        one, two = (wire.pack_update(wire.read_train_reply(reply)) for reply in (before, after))
        assert one == two, "another update of a round left, and nothing was charged for it"


def test_a_model_that_does_not_fit_is_refused(tiny: Scenario, tmp_path: Path) -> None:
    grid = joined(tiny, tmp_path)
    reply = ask(grid, wire.train_request(wire.TrainRequest(1, np.zeros(3, dtype=np.float32))), wire.TRAIN)
    assert wire.refusal_code(reply.error) == "protocol-violated"
    assert charged(tmp_path / "ledgers" / "north.sqlite") == []  # what could not be trained costs nothing


def test_a_low_rank_whose_model_cannot_be_built_again_costs_nothing(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its shapes are looked up before the charge, and known after it."""
    scenario = read_scenario(str(tiny_file), ["federation.update_rank=2"])
    grid, built = joined(scenario, tmp_path), [0]
    asked = wire.train_request(wire.TrainRequest(1, model(scenario)))

    def shapes(*_: object) -> tuple[tuple[int, ...], ...]:
        built[0] += 1
        if built[0] == 1:
            raise ConfigError("its folder is gone")
        return ((1, 4), (1,))

    pattern.forget_shapes()
    monkeypatch.setattr(models, "parameter_shapes", shapes)
    assert wire.refusal_code(ask(grid, asked, wire.TRAIN).error) == ConfigError.code
    assert charged(tmp_path / "ledgers" / "north.sqlite") == []
    assert len(wire.read_train_reply(ask(grid, asked, wire.TRAIN)).update_P) == 3
    assert built == [2]
    assert [event.steps for event in charged(tmp_path / "ledgers" / "north.sqlite")] == [2]


def test_a_figure_of_training_data_in_an_answer_does_not_leave(
    tiny: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever adds one finds no record for it: the silo's door refuses the whole answer, which stays charged."""
    grid = joined(tiny, tmp_path)
    encode = wire.train_reply

    def telling(reply: wire.TrainReply) -> RecordDict:
        content = encode(reply)
        content["training"] = MetricRecord({"loss": 0.25})
        return content

    monkeypatch.setattr(wire, "train_reply", telling)
    reply = ask(grid, wire.train_request(wire.TrainRequest(1, model(tiny))), wire.TRAIN)
    assert wire.refusal_code(reply.error) == "protocol-violated"
    log = (tmp_path / "logs" / "north.log").read_text(encoding="utf-8")
    assert "train: ProtocolError: what was to be answered did not leave, it is no answer to train" in log
    assert [event.steps for event in charged(tmp_path / "ledgers" / "north.sqlite")] == [2]


def test_no_answer_hangs_on_how_many_records_there_are(tiny: Scenario, tmp_path: Path) -> None:
    """A server that names a lot between two neighbours' counts must not learn which one it talks to."""
    count = len(silo_records(tiny, "north"))
    for batch in (count, count + 1, 1000):
        privacy = tiny.privacy.model_copy(update={"expected_batch_size": batch})
        grid = FaultyGrid(tiny.model_copy(update={"privacy": privacy}), tmp_path / str(batch))
        assert not ask(grid, wire.join_request(), wire.JOIN).has_error()


def test_a_bad_record_looks_like_any_other_failure(
    tiny: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = set()
    for error in (DataError("a feature is NaN"), ValueError("a bug")):

        def fails(_: Silo, error: Exception = error) -> Records:
            raise error

        monkeypatch.setattr(Silo, "records", fails)
        codes.add(wire.refusal_code(ask(FaultyGrid(tiny, tmp_path), wire.join_request(), wire.JOIN).error))
    assert codes == {"internal"}


@pytest.mark.parametrize("obstacle", ["logs is a file", "log is full"])
def test_the_wall_holds_when_the_silos_own_log_fails(
    obstacle: str,
    tiny: Scenario,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if obstacle == "logs is a file":
        (tmp_path / "logs").write_text("in the way")
    else:
        (tmp_path / "logs").mkdir()
        (tmp_path / "logs" / "north.log").symlink_to("/dev/full")

    def fails(_: Silo) -> Records:
        raise ValueError(PATIENT)

    monkeypatch.setattr(Silo, "records", fails)
    grid = FaultyGrid(tiny, tmp_path)
    reply = app(delivered(grid.asked(wire.join_request(), wire.JOIN, 2), "1"), grid._contexts[2])
    assert wire.refusal_code(reply.error) == "internal"
    assert "Lovelace" not in repr(reply) + "".join(capfd.readouterr())


def test_a_scenario_made_to_break_the_parser_is_a_refusal(tiny: Scenario, tmp_path: Path) -> None:
    grid = FaultyGrid(tiny, tmp_path)
    request = grid.asked(wire.join_request(), wire.JOIN, 2)
    grid._contexts[2].run_config = {**grid._contexts[2].run_config, "scenario": "[" * 200_000}
    assert wire.refusal_code(app(delivered(request, "1"), grid._contexts[2]).error) == "config-refused"


def test_a_node_without_configuration_refuses(tiny: Scenario, tmp_path: Path) -> None:
    grid = FaultyGrid(tiny, tmp_path)
    grid._contexts[2].run_config = {}
    assert wire.refusal_code(ask(grid, wire.join_request(), wire.JOIN).error) == "config-refused"


@pytest.mark.parametrize(
    "setting",
    ["federation.weights={north=1.0,south=1e-3,west=1e-3}", "privacy.noise=seeded-unsafe", "rounds=3",
     "privacy.silo.south.expected_batch_size=100000000"],
)  # fmt: skip
def test_a_scenario_that_the_silos_law_does_not_name_is_refused(
    setting: str, tiny_file: Path, tiny: Scenario, tmp_path: Path
) -> None:
    """With weights or denominators of its own choosing, a server makes a sum of many into the update of one."""
    provision(tiny, tmp_path)
    grid = FaultyGrid(read_scenario(str(tiny_file), [setting]), tmp_path)
    reply = ask(grid, wire.join_request(), wire.JOIN)
    assert wire.refusal_code(reply.error) == "policy-refused"
    assert not (tmp_path / "ledgers").exists()


def test_a_node_with_a_home_of_its_own_reads_nothing_elsewhere(tiny: Scenario, tmp_path: Path) -> None:
    """The run's folder is the server's word: it could name one where the law is another, or the ledger empty."""
    elsewhere = tmp_path / "elsewhere"
    grid = FaultyGrid(tiny, elsewhere)
    shutil.copytree(elsewhere / "silos", tmp_path / "home" / "silos")
    grid._contexts[2].node_config["home"] = str(tmp_path / "home")
    assert not ask(grid, wire.join_request(), wire.JOIN).has_error()
    assert (tmp_path / "home" / "ledgers" / "north.sqlite").exists()
    assert not (elsewhere / "ledgers").exists()


def test_a_node_that_is_not_simulated_needs_a_home(tiny: Scenario, tmp_path: Path) -> None:
    grid = FaultyGrid(tiny, tmp_path)
    (tmp_path / SIMULATED).unlink()
    assert wire.refusal_code(ask(grid, wire.join_request(), wire.JOIN).error) == "config-refused"
    assert not (tmp_path / "ledgers").exists()


@pytest.mark.parametrize("kind", [wire.COMMIT, wire.REVEAL])
def test_a_round_past_the_scenarios_is_not_signed_for(kind: str, tiny_file: Path, tmp_path: Path) -> None:
    """Signed, it would leave the silo out of every round that is left."""
    on = ["encryption.secure_aggregation=on", "encryption.bound=9.0", "encryption.colluding=0"]
    grid = joined(read_scenario(str(tiny_file), on), tmp_path)
    asked = wire.survivors_request(wire.SurvivorsRequest(3, 1, bytes(32), (2, 3)))
    assert wire.refusal_code(ask(grid, asked, kind).error) == "protocol-violated"
    within = wire.survivors_request(wire.SurvivorsRequest(2, 1, bytes(32), (2, 3)))
    assert ask(grid, within, wire.COMMIT).has_content()
    late = wire.advert_request(Window(1, 2, 1, 2))
    assert wire.refusal_code(ask(grid, late, wire.ADVERT).error) == "protocol-violated"


def test_a_server_cannot_make_a_ledger_grow_without_end(tiny_file: Path, tmp_path: Path) -> None:
    """Nothing is entered of a run that was not joined; and of a witness's lists, one a round and attempt."""
    on = ["encryption.secure_aggregation=on", "encryption.bound=9.0", "encryption.colluding=0"]
    scenario = read_scenario(str(tiny_file), on)
    grid = FaultyGrid(scenario, tmp_path)

    def committed(most: int) -> list[str]:
        requests = [
            wire.survivors_request(wire.SurvivorsRequest(number, attempt, bytes(32), (2, 3)))
            for number in range(1, scenario.rounds + 3)
            for attempt in range(1, most)
        ]
        replies = [ask(grid, request, wire.COMMIT) for request in requests]
        return [wire.refusal_code(reply.error) if reply.has_error() else "signed" for reply in replies]

    def size() -> int:
        return verify_ledger(tmp_path / "ledgers" / "north.sqlite").head.size

    assert set(committed(5)) == {"protocol-violated"}
    assert size() == 1
    assert not ask(grid, wire.join_request(), wire.JOIN).has_error()
    before = size()
    assert committed(8).count("signed") == scenario.rounds * MOST_ATTEMPTS
    assert committed(8).count("signed") == 1  # the last one, asked again, gets the same bytes
    assert size() == before + scenario.rounds * MOST_ATTEMPTS
    late = wire.advert_request(Window(grid.run.run_id, 1, MOST_ATTEMPTS + 1, 1))
    assert wire.refusal_code(ask(grid, late, wire.ADVERT).error) == "protocol-violated"
