"""A window's last REVEAL, over the real app: remembered where new keys replace at once the state that tells of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from flwr.app import Message

from fedmodel import wire
from fedmodel.config import read_scenario
from fedmodel.errors import AggregationRefused, Rule
from fedmodel.ledger import Ledger, verify_ledger
from fedmodel.ledger.entries import AGGREGATION_SUBJECT, progress_of
from fedmodel.provision import read_kit
from fedmodel.secagg import Participant, Progress, Setting, Tally, Window
from fedmodel.secagg.collection import Collection
from fedmodel.secagg.messages import Commit, MessageScope, survivors_digest
from tests.clients.test_client_app import ask, model
from tests.fakes import FaultyGrid
from tests.server.aggregation.test_masked import NODE, ON

SILO = "west"


@dataclass
class Round:
    """A round that everybody but one silo has signed the list of; it was asked for nothing but its update.

    Attributes:
        grid: Asks.
        home: The run's folder.
        first: What that silo is asked to reveal for, with the next window.
        second: The same on another list, which colluders signed as well.
        state: Its state before either.
    """

    grid: FaultyGrid
    home: Path
    first: wire.SurvivorsRequest
    second: wire.SurvivorsRequest
    state: bytes

    @property
    def path(self) -> Path:
        return self.home / "silos" / SILO / f"aggregation-{self.grid.run.run_id}.state"

    def reveal(self, asked: wire.SurvivorsRequest) -> Message:
        return ask(self.grid, wire.survivors_request(asked), wire.REVEAL, NODE[SILO])

    def progress(self) -> list[Progress]:
        entries = verify_ledger(self.home / "ledgers" / f"{SILO}.sqlite").entries
        told = (entry for entry in entries if entry.kind == "audit")
        return [progress_of(entry) for entry in told if entry.content["subject"] == AGGREGATION_SUBJECT]

    def log(self) -> str:
        return (self.home / "logs" / f"{SILO}.log").read_text(encoding="utf-8")


@pytest.fixture(params=["commit", "quorum"])
def round_(request: pytest.FixtureRequest, tiny_file: Path, tmp_path: Path) -> Round:
    scenario = read_scenario(str(tiny_file), [*ON, f"encryption.consistency={request.param}"])
    grid = FaultyGrid(scenario, tmp_path)
    kits = {silo: read_kit(tmp_path / "silos" / silo) for silo in NODE}
    roster, policy, run = kits[SILO].roster, kits[SILO].policy, int(grid.run.run_id)
    window = Window(run, 1, 1, 1)
    collection = Collection(Setting(roster, policy, window))
    for node in NODE.values():
        joined = ask(grid, wire.join_request(window), wire.JOIN, node)
        collection.add_advert(wire.read_join_reply(joined).advert)
    adverts = collection.close_adverts()
    for node in NODE.values():
        collection.add_shares(wire.read_protocol_reply(ask(grid, wire.share_request(adverts), wire.SHARE, node)))
    tally = Tally(collection, 1)
    numbers = {silo: roster.number(kit.identity.public) for silo, kit in kits.items()}
    for silo, node in NODE.items():
        train = wire.TrainRequest(1, model(scenario), tuple(collection.shares_for(numbers[silo])))
        update = wire.read_masked_reply(ask(grid, wire.train_request(train), wire.TRAIN, node), policy.ring_bits)
        tally.add_masked(update.mask, update.words_P)
    survivors = tally.close_masked()
    fewer = tuple(number for number in survivors if number != numbers["north"])
    assert len(fewer) == len(NODE) - 1

    def signed(survivors: tuple[int, ...]) -> tuple[bytes, ...]:
        told = Commit(1, tally.context, survivors_digest(survivors))
        return tuple(
            replace(told, sender=numbers[silo]).sign(MessageScope(collection.setting, 1), kit.identity)
            for silo, kit in kits.items()
            if silo != SILO
        )

    lists = [
        wire.SurvivorsRequest(1, 1, tally.context, alive, signed(alive), Window(run, 2, 1, 1))
        for alive in (survivors, fewer)
    ]
    found = Round(grid, tmp_path, *lists, b"")
    found.state = found.path.read_bytes()
    return found


def test_no_second_list_is_revealed_for_where_the_state_before_is_put_back(round_: Round) -> None:
    answered = round_.reveal(round_.first)
    assert wire.read_reveal_reply(answered).advert
    assert round_.progress()[-1].signed
    entered = len(round_.progress())
    # Asked again, the very same; and nothing more is entered.
    assert wire.read_reveal_reply(round_.reveal(round_.first)) == wire.read_reveal_reply(answered)
    assert len(round_.progress()) == entered
    round_.path.write_bytes(round_.state)
    again = round_.reveal(round_.second)
    assert wire.refusal_code(again.error) == AggregationRefused.code
    assert Rule.STALE.value in round_.log()


def test_without_it_the_second_list_is_one_that_could_be_revealed_for(round_: Round) -> None:
    """Nothing else about the second list is refused."""
    assert wire.read_reveal_reply(round_.reveal(round_.second)).reveal


@pytest.mark.parametrize("at", ["state", "ledger", "advert"])
def test_a_silo_killed_between_its_shares_and_its_keys_gives_both_when_asked_again(
    at: str, round_: Round, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, for one list: at each point, what lies on disk says so, or no share left."""
    kills = {
        "state": ("clients.aggregation_state._write", None),
        "ledger": (Ledger, "advance"),
        "advert": (Participant, "advert"),
    }

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        owner, name = kills[at]
        if name is None:
            patch.setattr(owner, killed)
        else:
            patch.setattr(owner, name, killed)
        with pytest.raises(KeyboardInterrupt):
            round_.reveal(round_.first)
    if at != "state":  # the list is settled
        assert wire.refusal_code(round_.reveal(round_.second).error) == AggregationRefused.code
    answered = wire.read_reveal_reply(round_.reveal(round_.first))
    assert answered.reveal
    assert answered.advert
    assert round_.progress()[-1].signed
    assert wire.read_reveal_reply(round_.reveal(round_.first)) == answered
    round_.path.write_bytes(round_.state)
    assert wire.refusal_code(round_.reveal(round_.second).error) == AggregationRefused.code


def test_keys_that_are_refused_leave_the_shares_given_once(round_: Round) -> None:
    """A window that is not a new one: the shares never left, and are not given for another list."""
    assert round_.first.window is not None
    past = replace(round_.first, window=replace(round_.first.window, first=1))
    assert wire.refusal_code(round_.reveal(past).error) == AggregationRefused.code
    assert wire.refusal_code(round_.reveal(round_.second).error) == AggregationRefused.code
