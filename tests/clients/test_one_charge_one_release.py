"""What a server could do, or whoever carries its messages without a key: each of these worked once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from clients.hiding import request_key
from clients.outbox import Release
from clients.silo import HELD, Silo
from fedmodel import wire
from fedmodel.config import Scenario, SiloFile, read_scenario, read_silo_file, silo_file_to_toml
from fedmodel.learning.models import build_model
from fedmodel.learning.vectors import flatten
from fedmodel.ledger import Asked, read_ledger, verify_ledger
from fedmodel.provision import law_of, provision, read_identity, scenario_hash
from fedmodel.secagg import Window
from scenarios.cli import main
from scenarios.runs.inspection import LedgerFiles
from server.lineages import Lineages
from tests.fakes import FaultyGrid, run_config
from tests.ledgers import budget_of

LEDGER = Path("ledgers") / "north.sqlite"


def model(scenario: Scenario, seed: int) -> np.ndarray:
    return flatten(build_model(scenario.model, scenario.data.shape, seed=seed))


def ask(grid: FaultyGrid, content: Any, kind: str, node: int = 2) -> Message:
    (reply,) = grid.send_and_receive([grid.asked(content, kind, node)])
    return reply


def train(
    grid: FaultyGrid, scenario: Scenario, seed: int, round_number: int = 1, lineages: Lineages | None = None
) -> bytes | str:
    """Return the update's bytes, or the code of the refusal; with `lineages`, of a round that goes on from the last."""
    request = wire.TrainRequest(round_number, model(scenario, seed))
    if lineages is not None:
        request = lineages.named(request, ["north"])
        lineages.answered(request, ["north"])
    reply = ask(grid, wire.train_request(request), wire.TRAIN)
    return wire.refusal_code(reply.error) if reply.has_error() else wire.read_train_reply(reply).update_P.tobytes()


def joined(scenario: Scenario, folder: Path) -> FaultyGrid:
    grid = FaultyGrid(scenario, folder)
    assert not ask(grid, wire.join_request(), wire.JOIN).has_error()
    return grid


def charges(folder: Path) -> int:
    standing = verify_ledger(folder / LEDGER).standing
    return sum(len(run.charges) for run in standing.runs.values())


def law(folder: Path, **keys: Any) -> None:
    path = folder / "silos" / "north" / "silo.toml"
    path.write_text(
        silo_file_to_toml(SiloFile.model_validate({**read_silo_file(path).model_dump(), **keys})), encoding="utf-8"
    )


def fedmodel(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["fedmodel", *arguments])
    with pytest.raises(SystemExit) as ended:
        main.main()
    return int(ended.value.code or 0)


def test_two_models_in_turn_get_no_more_updates_than_are_charged(tiny_file: Path, tmp_path: Path) -> None:
    """Each pushes the other's update out of the outbox."""
    scenario = read_scenario(str(tiny_file), ["rounds=3"])
    grid = joined(scenario, tmp_path)
    answers = [train(grid, scenario, seed=turn % 2) for turn in range(8)]
    updates = {answer for answer in answers if isinstance(answer, bytes)}
    assert len(updates) == charges(tmp_path) == 3
    assert set(answers[3::2]) == {"budget-exceeded"}  # and of the third the same bytes
    assert len(set(answers[2::2])) == 1


def test_carried_questions_asked_again_in_turn_get_no_more_updates_than_are_charged(
    tiny_file: Path, tmp_path: Path
) -> None:
    """Whoever carries messages needs no key to ask again. A round before the newest is not made again at all."""
    scenario = read_scenario(str(tiny_file), ["rounds=4"])
    grid = joined(scenario, tmp_path)
    questions = [grid.asked(wire.train_request(wire.TrainRequest(number, model(scenario, number))), wire.TRAIN, 2)
                 for number in (1, 2)]  # fmt: skip
    updates = set()
    for turn in range(10):
        question = questions[turn % 2]
        copy = grid.create_message(question.content, wire.TRAIN, 2, "1")
        (reply,) = grid.send_and_receive([copy])
        if not reply.has_error():
            updates.add(wire.read_train_reply(reply).update_P.tobytes())
    assert len(updates) == charges(tmp_path) == 2
    log = (tmp_path / "logs" / "north.log").read_text()
    assert "round 1 is asked for, where round 2 of the run was charged" in log


def test_what_is_asked_again_at_once_is_the_same_bytes_and_one_charge(tiny: Scenario, tmp_path: Path) -> None:
    grid = joined(tiny, tmp_path)
    assert train(grid, tiny, seed=1) == train(grid, tiny, seed=1)
    assert charges(tmp_path) == 1


@pytest.mark.parametrize("loss", ["deleted", "not to be opened"])
def test_an_update_that_is_lost_from_the_outbox_is_charged_again(loss: str, tiny: Scenario, tmp_path: Path) -> None:
    grid = joined(tiny, tmp_path)
    first = train(grid, tiny, seed=1)
    outbox = tmp_path / "silos" / "north" / "outbox"
    if loss == "deleted":
        outbox.unlink()
    else:
        outbox.write_bytes(outbox.read_bytes()[:-1])
    assert train(grid, tiny, seed=1) != first
    assert charges(tmp_path) == 2
    assert train(grid, tiny, seed=2) == "budget-exceeded"


def test_one_round_under_masks_gives_one_update_whatever_is_asked(tiny_file: Path, tmp_path: Path) -> None:
    scenario = read_scenario(
        str(tiny_file),
        ["encryption.secure_aggregation=on", "encryption.bound=9.0", "encryption.colluding=0", "rounds=4"],
    )
    grid = FaultyGrid(scenario, tmp_path)
    window = Window(grid.run.run_id, 1, 1, 4)
    adverts = [wire.read_join_reply(ask(grid, wire.join_request(window), wire.JOIN, node)).advert for node in (2, 3, 4)]
    dealt = [wire.read_protocol_reply(ask(grid, wire.share_request(adverts), wire.SHARE, node)) for node in (2, 3, 4)]
    from fedmodel.provision import read_roster, scenario_policy
    from fedmodel.secagg import Collection, Setting

    collection = Collection(Setting(read_roster(tmp_path / "server"), scenario_policy(scenario), window))
    for advert in adverts:
        collection.add_advert(advert)
    collection.close_adverts()
    for shares in dealt:
        collection.add_shares(shares)
    own = tuple(collection.shares_for(1))
    vectors = set()
    for turn in range(6):
        request = wire.TrainRequest(1, model(scenario, turn % 2), own)
        reply = ask(grid, wire.train_request(request), wire.TRAIN)
        if not reply.has_error():
            vectors.add(wire.read_masked_reply(reply, 32).words_P.tobytes())
    assert len(vectors) == charges(tmp_path) == 1


def test_a_run_is_trained_in_for_the_scenario_that_it_was_joined_for(tiny_file: Path, tmp_path: Path) -> None:
    """A law that admits two scenarios: the records of one, and the budget of the other."""
    mine = read_scenario(str(tiny_file))
    others = ["data.source=breast-cancer", "data.records=", "data.features=", "data.reference_range=[0.0, 100.0]"]
    other = read_scenario(str(tiny_file), others)
    provision(mine, tmp_path)
    both = law_of(other, "north", read_identity(tmp_path / "server").public)
    scenarios = [scenario_hash(one).hex() for one in (mine, other)]
    budgets = {**read_silo_file(tmp_path / "silos" / "north" / "silo.toml").model_dump()["budgets"],
               **both.model_dump()["budgets"]}  # fmt: skip
    law(tmp_path, scenarios=scenarios, budgets=budgets)
    grid = joined(mine, tmp_path)
    grid._contexts[2].run_config = run_config(other, tmp_path)
    grid._scenario = scenario_hash(other)
    assert train(grid, other, seed=1) == "protocol-violated"
    assert charges(tmp_path) == 0
    said = (tmp_path / "logs" / "north.log").read_text(encoding="utf-8")
    assert "joined the run for another scenario" in said


def test_a_carrier_cannot_say_that_a_question_was_about_another_scenario(tiny_file: Path, tmp_path: Path) -> None:
    mine, other = read_scenario(str(tiny_file)), read_scenario(str(tiny_file), ["rounds=1"])
    provision(mine, tmp_path)
    law(tmp_path, scenarios=[scenario_hash(one).hex() for one in (mine, other)])
    grid = FaultyGrid(mine, tmp_path)
    grid._contexts[2].run_config = run_config(other, tmp_path)
    assert wire.refusal_code(ask(grid, wire.join_request(), wire.JOIN).error) == "crypto-failed"


def test_a_budget_that_was_lowered_stops_a_run_that_has_joined(tiny: Scenario, tmp_path: Path) -> None:
    grid = joined(tiny, tmp_path)
    budgets = read_silo_file(tmp_path / "silos" / "north" / "silo.toml").model_dump()["budgets"]
    law(tmp_path, budgets={"synthetic": {**budgets["synthetic"], "epsilon": 0.01}})
    assert train(grid, tiny, seed=1) == "ledger-failed"
    assert charges(tmp_path) == 0
    assert "`fedmodel ledger override`" in (tmp_path / "logs" / "north.log").read_text(encoding="utf-8")


def test_a_join_that_cannot_be_reserves_nothing(
    tiny: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = FaultyGrid(tiny, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Silo, "records", lambda _: [][0])
        assert wire.refusal_code(ask(grid, wire.join_request(), wire.JOIN).error) == "internal"
    assert not read_ledger(tmp_path / LEDGER).runs
    assert not ask(grid, wire.join_request(), wire.JOIN).has_error()


def test_a_run_that_never_trained_is_given_back_by_a_person(
    tiny: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined(tiny, tmp_path)
    (run,) = read_ledger(tmp_path / LEDGER).runs
    again = FaultyGrid(tiny, tmp_path)
    assert wire.refusal_code(ask(again, wire.join_request(), wire.JOIN).error) == "budget-exceeded"
    assert fedmodel(monkeypatch, "ledger", "void", str(tmp_path / LEDGER), run, "--reason", "it never began") == 0
    assert not ask(again, wire.join_request(), wire.JOIN).has_error()
    assert isinstance(train(again, tiny, seed=1), bytes)
    (run,) = (name for name in read_ledger(tmp_path / LEDGER).runs if name != run)
    assert fedmodel(monkeypatch, "ledger", "void", str(tmp_path / LEDGER), run, "--reason", "no") == 4  # it was charged


def test_a_run_is_shown_and_given_back_by_what_its_server_calls_it(
    tiny: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Silo, "held", HELD)
    grid, name = FaultyGrid(tiny, tmp_path), "tiny-20300101-120000-ab12"
    assert not ask(grid, wire.join_request(None, name), wire.JOIN).has_error()
    assert fedmodel(monkeypatch, "budget", "show", str(tmp_path / LEDGER)) == 0
    shown = capsys.readouterr().out
    assert f"Run {name} was charged nothing" in " ".join(shown.split())
    assert str(grid.run.run_id) not in shown
    for unknown in ("tiny", ""):
        assert fedmodel(monkeypatch, "ledger", "void", str(tmp_path / LEDGER), unknown, "--reason", "no") == 2
        assert f"known: {name}" in " ".join(capsys.readouterr().err.split())
    assert fedmodel(monkeypatch, "ledger", "void", str(tmp_path / LEDGER), name, "--reason", "it never began") == 0
    assert read_ledger(tmp_path / LEDGER).runs[str(grid.run.run_id)].closed
    again = FaultyGrid(tiny, tmp_path)
    assert not ask(again, wire.join_request(None, name), wire.JOIN).has_error()
    arguments = ("ledger", "void", str(tmp_path / LEDGER), name, "--reason", "it never began")
    assert fedmodel(monkeypatch, *arguments) == 2  # two are called so
    assert "say one by its number" in " ".join(capsys.readouterr().err.split())


def test_a_run_that_is_called_by_anothers_number_is_not_taken_for_it(
    tiny: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server may not call its run so; a ledger of before may have one."""
    grid = FaultyGrid(tiny, tmp_path)
    assert not ask(grid, wire.join_request(None, "tiny-20300101-120000-ab12"), wire.JOIN).has_error()
    ledger, number = str(tmp_path / LEDGER), str(grid.run.run_id)
    (reserved,) = read_ledger(tmp_path / LEDGER).runs.values()
    place = LedgerFiles.of(tmp_path / LEDGER)
    with place.open() as found:
        plan = replace(reserved.plan, noise_multiplier=1000.0)
        assert wire.refusal_code(ask(FaultyGrid(tiny, tmp_path), wire.join_request(None, number), wire.JOIN).error) == (
            "protocol-violated"
        )
        found.override(reserved.scope, 50.0, "room for another", "Ada")
        found.reserve(Asked(budget_of(found, reserved.scope), "5", plan, 1, name=number))
    assert fedmodel(monkeypatch, "ledger", "void", ledger, number, "--reason", "no") == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "called tiny-20300101-120000-ab12, and what a server calls another: 5; say the first by its name" in told
    assert not any(run.closed for run in read_ledger(tmp_path / LEDGER).runs.values())
    for said, closed in (("5", "5"), ("tiny-20300101-120000-ab12", number)):
        assert fedmodel(monkeypatch, "ledger", "void", ledger, said, "--reason", "it never began") == 0
        assert read_ledger(tmp_path / LEDGER).runs[closed].closed


def test_the_documented_override_lets_a_silo_go_on(
    tiny: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = joined(tiny, tmp_path)
    change = ["ledger", "override", str(tmp_path / LEDGER), "synthetic/record", "--reason", "more data", "--by", "Ada"]
    assert fedmodel(monkeypatch, *change, "--epsilon", "20") == 0
    assert train(grid, tiny, seed=1) == "ledger-failed"  # until the law says the same
    budgets = read_silo_file(tmp_path / "silos" / "north" / "silo.toml").model_dump()["budgets"]
    law(tmp_path, budgets={"synthetic": {**budgets["synthetic"], "epsilon": 20.0}})
    assert isinstance(train(grid, tiny, seed=1), bytes)
    for epsilon in ("nan", "inf", "1e300", "-1", "0"):
        assert fedmodel(monkeypatch, *change, "--epsilon", epsilon) == 2
    assert fedmodel(monkeypatch, *change[:-1], " ", "--epsilon", "3") == 2


def test_only_what_surely_never_left_is_voided(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An update of one run leaves; then one of another, and the outbox forgets the first."""
    scenario = read_scenario(str(tiny_file), ["privacy.noise_multiplier=60.0"])
    provision(scenario, tmp_path)
    budgets = read_silo_file(tmp_path / "silos" / "north" / "silo.toml").model_dump()["budgets"]
    law(tmp_path, budgets={"synthetic": {**budgets["synthetic"], "epsilon": 3.0}})
    grids = [joined(scenario, tmp_path) for _ in range(2)]
    for grid in grids:
        assert isinstance(train(grid, scenario, seed=1), bytes)
    first, second = read_ledger(tmp_path / LEDGER).runs
    for run in (first, second):
        arguments = ("ledger", "void", str(tmp_path / LEDGER), run, "--round", "1", "--reason", "no")
        assert fedmodel(monkeypatch, *arguments) == 4
    assert charges(tmp_path) == 2
    assert fedmodel(monkeypatch, "ledger", "void", str(tmp_path / LEDGER), "0", "--round", "1", "--reason", "no") == 2
    # Charged, and killed before the outbox: that can be taken back, and what left before it still cannot.
    with monkeypatch.context() as patch:
        patch.setattr("fedmodel.learning.jobs.training.Answering.answer", lambda *_: [][0])
        assert train(grids[1], scenario, seed=2, round_number=2) == "internal"
    arguments = ("ledger", "void", str(tmp_path / LEDGER), second, "--round")
    outbox = tmp_path / "silos" / "north" / "outbox"
    whole = outbox.read_bytes()
    outbox.unlink()
    assert fedmodel(monkeypatch, *arguments, "2", "--reason", "no") == 4  # nothing shows what left
    outbox.write_bytes(whole[:-1])
    assert fedmodel(monkeypatch, *arguments, "2", "--reason", "no") == 4
    outbox.write_bytes(whole)
    assert fedmodel(monkeypatch, *arguments, "2", "--reason", "killed") == 0
    assert fedmodel(monkeypatch, *arguments, "1", "--reason", "no") == 4
    assert charges(tmp_path) == 2


def test_what_left_is_not_voided_where_the_outbox_is_lost(
    tiny: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A silo that was restored has none, as is documented; nor is one made for a ledger that was ever charged."""
    grid = joined(tiny, tmp_path)
    outbox = tmp_path / "silos" / "north" / "outbox"
    assert outbox.is_file()
    assert isinstance(train(grid, tiny, seed=1), bytes)
    (run,) = read_ledger(tmp_path / LEDGER).runs
    arguments = ("ledger", "void", str(tmp_path / LEDGER), run, "--round", "1", "--reason", "no")
    outbox.unlink()
    assert fedmodel(monkeypatch, *arguments) == 4
    assert "the outbox is missing" in capsys.readouterr().err
    # Neither by joining again, nor by another run.
    assert not ask(grid, wire.join_request(), wire.JOIN).has_error()
    ask(FaultyGrid(tiny, tmp_path), wire.join_request(), wire.JOIN)
    assert not outbox.exists()
    assert fedmodel(monkeypatch, *arguments) == 4
    assert charges(tmp_path) == 1


def test_the_first_charge_of_a_ledger_is_voided_where_its_update_was_never_made(
    tiny: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = joined(tiny, tmp_path)
    (run,) = read_ledger(tmp_path / LEDGER).runs
    arguments = ("ledger", "void", str(tmp_path / LEDGER), run, "--round", "1", "--reason", "killed")
    for _ in range(2):  # nothing stands after the first, and still nothing was made
        with monkeypatch.context() as patch:
            patch.setattr("fedmodel.learning.jobs.training.Answering.answer", lambda *_: [][0])
            assert train(grid, tiny, seed=1) == "internal"
        assert charges(tmp_path) == 1
        assert fedmodel(monkeypatch, *arguments) == 0
        assert charges(tmp_path) == 0
    assert isinstance(train(grid, tiny, seed=1), bytes)
    assert fedmodel(monkeypatch, *arguments) == 4


def test_a_folder_that_the_server_names_is_taken_only_where_simulate_made_it(tiny: Scenario, tmp_path: Path) -> None:
    grid = FaultyGrid(tiny, tmp_path)
    (tmp_path / "silos" / ".simulated").unlink()
    assert wire.refusal_code(ask(grid, wire.join_request(), wire.JOIN).error) == "config-refused"
    grid._contexts[2].node_config = {**grid._contexts[2].node_config, "home": str(tmp_path)}
    assert not ask(grid, wire.join_request(), wire.JOIN).has_error()


def test_the_same_ledger_is_found_from_inside_the_kit(
    tiny: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provision(tiny, tmp_path)
    monkeypatch.chdir(tmp_path / "silos" / "north")
    assert fedmodel(monkeypatch, "silo", "policy", ".", "--sign-off", "Ada") == 0
    assert read_ledger(tmp_path / LEDGER).size == 2
    assert not ask(FaultyGrid(tiny, tmp_path), wire.join_request(), wire.JOIN).has_error()
    monkeypatch.chdir(tmp_path / "ledgers")
    assert fedmodel(monkeypatch, "ledger", "verify", "north.sqlite") == 0


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('mechanisms = [\n    "dp-sgd",\n]', 'mechanisms = ["laplace"]', "known: dp-sgd"),
        ('noise_sources = [\n    "os",\n]', 'noise_sources = ["mersenne"]', "known: os, seeded-unsafe"),
        ("[budgets", '[hours]\ndays = ["monday"]\n\n[budgets', "did you mean 'mon'?"),
        ("[budgets", '[hours]\nstart = "25:00"\n\n[budgets', "hours.start = '25:00' is not accepted"),
    ],
)
def test_a_wrong_word_in_a_list_of_the_law_is_one_line(
    old: str, new: str, reason: str, tiny: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    provision(tiny, tmp_path)
    path = tmp_path / "silos" / "north" / "silo.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    assert fedmodel(monkeypatch, "silo", "policy", str(path.parent)) == 2
    err = capsys.readouterr().err
    assert reason in err
    assert len(err.strip().splitlines()) == 1


def test_what_a_failed_round_trained_is_not_in_the_next_ones_update(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state of the optimiser is noised, and released with an update: it is kept only with one that was."""
    settings = [
        "training.keep_optimizer_state=true",
        "training.momentum=0.9",
        "rounds=3",
        "privacy.noise=seeded-unsafe",
    ]
    scenario = read_scenario(str(tiny_file), settings)
    whole, failed = joined(scenario, tmp_path / "whole"), joined(scenario, tmp_path / "failed")
    with monkeypatch.context() as patch:
        patch.setattr("clients.outbox.Outbox.keep", lambda *_: [][0])
        assert train(failed, scenario, seed=1) == "internal"
    of_whole, of_failed = (Lineages(scenario, grid.run.run_id) for grid in (whole, failed))
    for number in (2, 3):
        updates = [train(failed, scenario, number, number, of_failed), train(whole, scenario, number, number, of_whole)]
        assert updates[0] == updates[1]
        assert isinstance(updates[0], bytes)


def test_a_round_that_was_released_leaves_its_state_to_the_next(tiny_file: Path, tmp_path: Path) -> None:
    settings = ["training.momentum=0.9", "rounds=2", "privacy.noise=seeded-unsafe"]
    updates = []
    for keep in ("true", "false"):
        scenario = read_scenario(str(tiny_file), [*settings, f"training.keep_optimizer_state={keep}"])
        grid = joined(scenario, tmp_path / keep)
        lineages = Lineages(scenario, grid.run.run_id)
        updates.append([train(grid, scenario, number, number, lineages) for number in (1, 2)])
    assert updates[0][0] == updates[1][0]
    assert updates[0][1] != updates[1][1]


def test_what_lies_in_the_outbox_and_was_never_charged_does_not_leave(tiny: Scenario, tmp_path: Path) -> None:
    grid = joined(tiny, tmp_path)
    silo = Silo.from_context(grid._contexts[2])
    request = wire.TrainRequest(1, model(tiny, 1))
    event = read_ledger(tmp_path / LEDGER).runs[silo.run].plan
    planted = wire.TrainReply(1, replace(event, steps=2), np.full(5, 7.0, dtype=np.float32))
    with silo.outbox() as outbox:
        outbox.keep(Release(request_key(silo, request), 3, wire.pack_update(planted)))
    assert train(grid, tiny, seed=1) != planted.update_P.tobytes()
    assert charges(tmp_path) == 1
