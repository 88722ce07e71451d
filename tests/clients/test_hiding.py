"""A silo killed between masking and the outbox: the very same bytes again, for one charge, and no others.

Over the real app, asked as a server asks. A process that is killed is one in which a call raises what nothing catches:
what lies on disk is what was there at that call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from clients import aggregation_state
from clients.outbox import Outbox, Release
from clients.silo import Silo
from fedmodel import wire
from fedmodel.config import Scenario, read_scenario
from fedmodel.errors import AggregationRefused, CryptoError, LedgerError, Rule
from fedmodel.ledger import Entry, Ledger, verify_ledger
from fedmodel.provision import read_kit, scenario_hash
from fedmodel.secagg import Collection, Participant, Setting, Window
from scenarios.runs.inspection import LedgerFiles, give_back
from server.lineages import Lineages
from tests.clients.test_client_app import ask, model
from tests.fakes import FaultyGrid
from tests.server.aggregation.test_masked import NODE, ON

SILO = "west"
KEEPING = ["training.momentum=0.9", "training.keep_optimizer_state=true", "encryption.window=5"]
REFUSED = AggregationRefused.code


@dataclass
class Window5:
    """A silo that is dealt the shares of a window of five rounds.

    Attributes:
        masked: All that was masked there since, in words that could leave.
        before: Its state on disk when the last of it was masked.
    """

    scenario: Scenario
    home: Path
    grid: FaultyGrid
    shares: tuple[bytes, ...]
    masked: list[bytes] = field(default_factory=list)
    before: bytes = b""

    def ask(self, round_number: int = 1, seed: int = 1, lineage: bytes = b"") -> wire.MaskedReply | str:
        """Return the update that leaves for a model, or the code of the refusal."""
        request = wire.TrainRequest(round_number, model(self.scenario) + np.float32(seed), self.shares, lineage=lineage)
        reply = ask(self.grid, wire.train_request(request), wire.TRAIN, NODE[SILO])
        return wire.refusal_code(reply.error) if reply.has_error() else wire.read_masked_reply(reply, 32)

    @property
    def silo(self) -> Silo:
        return Silo.from_context(self.grid._contexts[NODE[SILO]])

    @property
    def state(self) -> Path:
        return self.home / "silos" / SILO / f"aggregation-{self.grid.run.run_id}.state"

    @property
    def outbox(self) -> Path:
        return self.home / "silos" / SILO / "outbox"

    @property
    def ledger(self) -> Path:
        return self.home / "ledgers" / f"{SILO}.sqlite"

    def charges(self) -> list[Entry]:
        """Verify the ledger, and return its charges."""
        return [entry for entry in verify_ledger(self.ledger).entries if entry.kind == "charge"]

    def void(self) -> None:
        give_back(LedgerFiles.of(self.ledger), self.silo.run, 1, "killed")

    def log(self) -> str:
        return (self.home / "logs" / f"{SILO}.log").read_text(encoding="utf-8")


@pytest.fixture
def window(tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Window5:
    scenario = read_scenario(str(tiny_file), [*ON, *KEEPING])
    grid = FaultyGrid(scenario, tmp_path)
    kit = read_kit(tmp_path / "silos" / SILO)
    five = Window(int(grid.run.run_id), 1, 1, 5)
    collection = Collection(Setting(kit.roster, kit.policy, five))
    for node in NODE.values():
        joined = ask(grid, wire.join_request(five), wire.JOIN, node)
        collection.add_advert(wire.read_join_reply(joined).advert)
    adverts = collection.close_adverts()
    for node in NODE.values():
        collection.add_shares(wire.read_protocol_reply(ask(grid, wire.share_request(adverts), wire.SHARE, node)))
    shares = tuple(collection.shares_for(kit.roster.number(kit.identity.public)))
    found, real = Window5(scenario, tmp_path, grid, shares), Participant.mask

    def mask(self: Participant, number: int, words_P: Any, *rest: bytes) -> bytes:
        found.before = found.state.read_bytes()
        told = real(self, number, words_P, *rest)
        found.masked.append(words_P.tobytes())
        return told

    monkeypatch.setattr(Participant, "mask", mask)
    return found


WRITE = (aggregation_state, "_write", lambda kit, path, run, kept: kept.silo.progress.masked)
ADVANCE = (Ledger, "advance", lambda ledger, run, progress: progress.masked)
KEEP = (Outbox, "keep", lambda outbox, release: True)
# By name, where the process dies, and whether the round was masked for good by then.
DEATHS = {
    "before the state is in place": (WRITE, "before", False),
    "once the state is in place": (WRITE, "after", True),
    "before the ledger knows": (ADVANCE, "before", True),
    "once the ledger knows": (ADVANCE, "after", True),
    "before the outbox is in place": (KEEP, "before", True),
    "once the outbox is in place": (KEEP, "after", True),
}
MASKED = [name for name, (_, _, is_masked) in DEATHS.items() if is_masked]


@contextmanager
def dying(name: str) -> Iterator[None]:
    """Have the process die there."""
    (owner, attribute, concerns), when, _ = DEATHS[name]
    real: Callable[..., Any] = getattr(owner, attribute)

    def call(*arguments: Any) -> Any:
        struck = concerns(*arguments)
        if struck and when == "before":
            raise KeyboardInterrupt
        done = real(*arguments)
        if struck:
            raise KeyboardInterrupt
        return done

    with mock.patch.object(owner, attribute, call), pytest.raises(KeyboardInterrupt):
        yield


@pytest.mark.parametrize("death", DEATHS)
def test_the_same_request_after_a_kill_gets_the_bytes_that_were_masked_for_one_charge(
    death: str, window: Window5
) -> None:
    """Where nothing was kept of the mask, nothing left either, and it is charged and masked again."""
    with dying(death):
        window.ask()
    is_masked = death in MASKED
    answers = [window.ask(), window.ask()]
    sent = {found.words_P.tobytes() for found in answers if isinstance(found, wire.MaskedReply)}
    assert sent == {window.masked[-1]}
    assert len(window.masked) == len(window.charges()) == (1 if is_masked else 2)
    masks = {found.mask for found in answers if isinstance(found, wire.MaskedReply)}
    assert len(masks) == 1
    # As if it had never been killed, also for the round after it: its state was carried.
    lineages = Lineages(window.scenario, int(window.silo.run))
    first = wire.TrainRequest(1, model(window.scenario) + np.float32(1))
    lineages.answered(first, [SILO])
    named = lineages.named(wire.TrainRequest(2, first.model_P), [SILO]).lineage
    assert named
    assert isinstance(window.ask(2, lineage=named), wire.MaskedReply)


@pytest.mark.parametrize("death", MASKED)
def test_whatever_else_is_asked_after_a_kill_is_not_masked_in_that_round(death: str, window: Window5) -> None:
    with dying(death):
        window.ask()
    assert [window.ask(seed=2), window.ask(lineage=bytes(32))] == [REFUSED, REFUSED]
    found = window.ask()
    assert isinstance(found, wire.MaskedReply)
    assert window.ask(seed=2) == REFUSED
    assert window.masked == [found.words_P.tobytes()]
    assert len(window.charges()) == 1


@pytest.mark.parametrize("death", ["once the state is in place", "before the outbox is in place"])
@pytest.mark.parametrize("again", MASKED)
def test_a_silo_that_is_killed_again_while_it_takes_up_what_it_masked_sends_the_same(
    again: str, death: str, window: Window5
) -> None:
    for name in (death, again):
        with dying(name):
            window.ask()
    found = window.ask()
    assert isinstance(found, wire.MaskedReply)
    assert window.masked == [found.words_P.tobytes()]
    assert len(window.charges()) == 1


def test_each_is_on_disk_before_the_next_and_all_before_anything_leaves(window: Window5) -> None:
    """The charge; the update with the state of its mask; what the ledger knows of the mask; the outbox."""
    order: list[str] = []

    def told(owner: Any, name: str, concerns: Callable[..., bool]) -> Any:
        real = getattr(owner, name)

        def call(*arguments: Any) -> Any:
            done = real(*arguments)
            order.extend([name] if concerns(*arguments) else [])
            return done

        return mock.patch.object(owner, name, call)

    with told(Ledger, "charge", lambda *_: True), told(*WRITE), told(*ADVANCE), told(*KEEP):
        assert isinstance(window.ask(), wire.MaskedReply)
    assert order == ["charge", "_write", "advance", "keep"]


@pytest.mark.parametrize("death", ["once the ledger knows", "before the outbox is in place"])
def test_a_state_from_before_the_mask_that_is_put_back_masks_nothing(death: str, window: Window5) -> None:
    """As where the disk lost the state's write: the ledger knows of the mask, and nobody has its bytes any more."""
    outbox = window.outbox.read_bytes()
    with dying(death):
        window.ask()
    window.state.write_bytes(window.before)
    assert [window.ask(), window.ask(seed=2)] == [REFUSED, REFUSED]
    assert Rule.STALE.value in window.log()
    assert window.outbox.read_bytes() == outbox
    assert len(window.masked) == len(window.charges()) == 1


@pytest.mark.parametrize("death", ["once the state is in place", "once the outbox is in place"])
def test_an_outbox_that_is_lost_in_between_is_made_of_the_state(death: str, window: Window5) -> None:
    with dying(death):
        window.ask()
    window.outbox.unlink()
    found = window.ask()
    assert isinstance(found, wire.MaskedReply)
    assert window.masked == [found.words_P.tobytes()]
    assert len(window.charges()) == 1


@pytest.mark.parametrize("death", MASKED)
def test_what_is_voided_never_leaves_and_what_may_have_left_is_not_voided(death: str, window: Window5) -> None:
    """A person may void the charge only until the ledger knows of the mask."""
    with dying(death):
        window.ask()
    if death in {"once the state is in place", "before the ledger knows"}:
        window.void()
        assert [window.ask(), window.ask()] == [REFUSED, REFUSED]
        assert len(window.masked) == len(window.charges()) == 1
        return
    with pytest.raises(LedgerError):
        window.void()
    assert isinstance(window.ask(), wire.MaskedReply)
    with pytest.raises(LedgerError):
        window.void()


@pytest.mark.parametrize("is_same", [False, True], ids=["of another request", "of the same"])
def test_what_was_masked_is_not_sent_once_a_later_charge_was_made(is_same: bool, window: Window5) -> None:
    """Else the outbox would go back to an older charge, and the newest be voided though its update left."""
    with dying("once the state is in place"):
        window.ask()
    key = str(window.charges()[0].key) if is_same else "f" * 64
    with window.silo.ledger() as ledger:
        ledger.charge(window.silo.run, 1, window.silo.plan.steps_per_round, key)
    assert window.ask() == REFUSED
    assert len(window.masked) == 1


@pytest.mark.parametrize("stage", ["advert", "witness"])
def test_a_later_stage_erases_what_was_masked_and_did_not_leave(stage: str, window: Window5) -> None:
    """With other secrets, or another round, it is of no use: it is not sent, and not masked again in that round."""
    with dying("once the state is in place"):
        window.ask()
    size = window.state.stat().st_size
    if stage == "advert":
        later = Window(int(window.silo.run), 1, 2, 5)
        advert = ask(window.grid, wire.advert_request(later), wire.ADVERT, NODE[SILO])
        assert not advert.has_error()
    else:
        survivors = wire.SurvivorsRequest(2, 1, bytes(32), (1, 2, 4), (), None)
        assert not ask(window.grid, wire.survivors_request(survivors), wire.COMMIT, NODE[SILO]).has_error()
    assert window.state.stat().st_size < size
    assert window.ask() == REFUSED
    assert len(window.masked) == 1


def test_a_release_is_read_as_it_was_written_and_needs_a_whole_key() -> None:
    made = Release("ab" * 32, 7, b"update", 2**64 - 1, b"state")
    assert Release.from_bytes(made.to_bytes()) == made
    with pytest.raises(CryptoError, match="a key of 2 characters"):
        Release("ab", 7, b"")


def another(window: Window5, kind: str, first: int = 1) -> str:
    """Ask the same silo the same server's question of another run, and return the code of the refusal."""
    run, context = int(window.silo.run) ^ 1, window.grid._contexts[NODE[SILO]]
    asked = Window(run, first, 1, 5)
    content = wire.join_request(asked) if kind == wire.JOIN else wire.advert_request(asked)
    question = wire.sign_request(content, kind, run, scenario_hash(window.scenario), window.grid._server)
    with mock.patch.dict(context.run_config, {"run": str(run)}):
        (reply,) = window.grid.send_and_receive([window.grid.create_message(question, kind, NODE[SILO], "1")])
    return wire.refusal_code(reply.error) if reply.has_error() else ""


@pytest.mark.parametrize(
    ("kind", "first", "code"),
    [
        (wire.JOIN, 1, "budget-exceeded"),  # the first run holds it
        (wire.JOIN, 10**5, "budget-exceeded"),
        (wire.ADVERT, 1, "protocol-violated"),  # it never joined
    ],
)
def test_another_run_that_is_refused_leaves_a_runs_secrets_and_what_it_masked(
    kind: str, first: int, code: str, window: Window5
) -> None:
    with dying("once the state is in place"):
        window.ask()
    before = window.state.read_bytes()
    assert another(window, kind, first) == code
    assert window.state.read_bytes() == before
    assert list(window.state.parent.glob("aggregation-*.state")) == [window.state]
    found = window.ask()
    assert isinstance(found, wire.MaskedReply)
    assert window.masked == [found.words_P.tobytes()]
    assert isinstance(window.ask(2), wire.MaskedReply)
