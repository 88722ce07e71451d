"""Rounds over the real apps with faulty replies: dropouts by code, deadlines of our own, and a closed failure."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Error, Message, RecordDict

from fedmodel import wire
from fedmodel.canaries.means import keep_mean, read_means
from fedmodel.config import AuditConfig, Scenario, read_scenario
from fedmodel.crypto import SigningKey
from fedmodel.errors import DropoutError, LedgerTampered, ProtocolError
from fedmodel.ledger import origin_of
from fedmodel.ledger.heads import Head, Proven, sign_head
from fedmodel.privacy.events import event_to_json
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from fedmodel.provision import read_roster
from fedmodel.secagg import Member, Roster
from server.beginning import begin
from server.exchange import Post
from server.joining import Joined, find_ready, join
from server.known_heads import KnownHeads
from server.server_app import run_federation
from server.strategies import strategy_of
from tests.clients.test_client_app import model
from tests.fakes import Fault, FaultyGrid, charged

CPU = torch.device("cpu")
NODE = {"north": 2, "south": 3, "west": 4}


def without(*silos: str, only: str = wire.TRAIN) -> Fault:
    """Replies of these silos to this kind of message never come."""
    gone = {NODE[silo] for silo in silos}
    return lambda node, reply: None if node in gone and reply.metadata.message_type == only else reply


def post(grid: FaultyGrid, scenario: Scenario) -> Post:
    """Return what carries the questions, and signs them as the server whom the silos' law names."""
    return Post(grid, scenario, grid._server)


def known_heads(run_dir: Path) -> KnownHeads:
    return KnownHeads(run_dir / "server" / "heads", read_roster(run_dir / "server"))


def joins(grid: FaultyGrid, scenario: Scenario, run_dir: Path) -> Joined:
    """Ask who could take part, and then those to join."""
    carried, heads = post(grid, scenario), known_heads(run_dir)
    return join(carried, scenario, heads, find_ready(carried, scenario, heads))


def quick(scenario: Scenario) -> Scenario:
    federation = scenario.federation.model_copy(update={"round_timeout_s": 0.3})
    return scenario.model_copy(update={"federation": federation})


def lines(run_dir: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_a_late_silo_is_left_behind_at_the_deadline(tiny: Scenario, tmp_path: Path) -> None:
    run_federation(FaultyGrid(quick(tiny), tmp_path, without("south")), quick(tiny), tmp_path, CPU)
    assert [line["dropouts"] for line in lines(tmp_path)] == [{"south": "late"}] * 2
    # What it released cannot be taken back: it stays charged.
    assert sum(event.steps for event in charged(tmp_path / "ledgers" / "south.sqlite")) == 4


@pytest.mark.parametrize("tolerated", [0, 2])
def test_a_round_that_fails_closed_leaves_no_mean_of_one_that_was_killed_before_its_checkpoint(
    tolerated: int, tiny: Scenario, tmp_path: Path
) -> None:
    federation = quick(tiny).federation.model_copy(update={"tolerated_failures": tolerated})
    audited = tiny.model_copy(update={"federation": federation, "audit": AuditConfig(canaries="probe", count=8)})
    grid = FaultyGrid(audited, tmp_path, without("south", "west"))
    for number in (1, 2):
        keep_mean(tmp_path / "server", number, np.ones(9, dtype=np.float32))
    with pytest.raises(DropoutError) if tolerated == 0 else nullcontext():
        run_federation(grid, audited, tmp_path, CPU)
    assert list(read_means(tmp_path / "server")) == ([] if tolerated else [2])  # the second was not begun


def test_too_few_answers_fail_the_round_and_leave_no_model(tiny: Scenario, tmp_path: Path) -> None:
    with pytest.raises(DropoutError, match=r"round 1 failed closed: 1 silo is too few .*south \(late\), west \(late\)"):
        run_federation(FaultyGrid(quick(tiny), tmp_path, without("south", "west")), quick(tiny), tmp_path, CPU)
    assert not (tmp_path / "model.safetensors").exists()
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_silo_that_never_joins_is_a_dropout_of_every_round(tiny: Scenario, tmp_path: Path) -> None:
    run_federation(FaultyGrid(quick(tiny), tmp_path, without("west", only=wire.JOIN)), quick(tiny), tmp_path, CPU)
    assert [line["dropouts"] for line in lines(tmp_path)] == [{"west": "late"}] * 2
    assert [line["cohort"] for line in lines(tmp_path)] == [["north", "south"]] * 2


def test_too_few_members_do_not_begin(tiny: Scenario, tmp_path: Path) -> None:
    grid = FaultyGrid(quick(tiny), tmp_path, without("north", "west", only=wire.JOIN))
    with pytest.raises(DropoutError, match="too few to begin"):
        joins(grid, quick(tiny), tmp_path)


def test_text_from_a_crashed_client_is_nowhere_on_the_servers_side(
    tiny: Scenario, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def crash(node: int, reply: Message) -> Message:
        if node == NODE["west"] and reply.metadata.message_type == wire.TRAIN:
            reply.__dict__.update(_content=None, _error=Error(8, "ClientApp crashed on patient Ada Lovelace"))
        return reply

    run_federation(FaultyGrid(tiny, tmp_path, crash), tiny, tmp_path, CPU)
    assert [line["dropouts"] for line in lines(tmp_path)] == [{"west": "lost"}] * 2
    written = "".join(path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*") if path.is_file())
    assert "Lovelace" not in written + caplog.text


def _spoil(kind: str) -> Fault:
    def fault(node: int, reply: Message) -> Message:
        if node != NODE["west"] or reply.metadata.message_type != wire.TRAIN:
            return reply
        answer = wire.read_train_reply(reply)
        update = answer.update_P
        number = answer.round_number
        if kind == "nan":
            update = np.full_like(update, np.nan)
        elif kind == "short":
            update = update[:-1]
        else:
            number += 1
        reply.content = wire.train_reply(replace(answer, round_number=number, update_P=update))
        return reply

    return fault


@pytest.mark.parametrize("kind", ["nan", "short", "other round"])
def test_a_spoiled_update_drops_its_silo_and_nothing_else(kind: str, tiny: Scenario, tmp_path: Path) -> None:
    run_federation(FaultyGrid(tiny, tmp_path, _spoil(kind)), tiny, tmp_path, CPU)
    assert [line["dropouts"] for line in lines(tmp_path)] == [{"west": "protocol-violated"}] * 2


def _joins_as(change: Callable[[wire.JoinReply], RecordDict], kind: str = wire.JOIN) -> Fault:
    def fault(node: int, reply: Message) -> Message:
        if node == NODE["west"] and reply.metadata.message_type == kind:
            reply.content = change(wire.read_join_reply(reply))
        return reply

    return fault


def _with_text(answer: wire.JoinReply, key: str, text: str) -> RecordDict:
    content = wire.join_reply(answer)
    content.config_records["fedmodel"][key] = text
    return content


@pytest.mark.parametrize("kind", [wire.READY, wire.JOIN])
@pytest.mark.parametrize(
    "change",
    [
        lambda answer: _with_text(answer, "silo", "Ada Lovelace"),
        lambda answer: _with_text(answer, "plan", '{"mechanism":"Ada Lovelace"}'),
        lambda answer: _with_text(answer, "Ada Lovelace", "x"),
        lambda answer: _with_text(answer, "plan", "[" * 200_000),
        lambda answer: wire.join_reply(replace(answer, plan=replace(answer.plan, noise_multiplier=1.9))),
        lambda answer: wire.join_reply(replace(answer, plan=replace(answer.plan, steps=10**6))),
        lambda answer: wire.join_reply(replace(answer, plan=replace(answer.plan, noise_source="seeded-unsafe"))),
        lambda _: RecordDict(),
    ],
)
def test_a_bad_answer_to_join_leaves_out_one_silo_and_its_words(
    change: Callable[[wire.JoinReply], RecordDict],
    kind: str,
    tiny: Scenario,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run_federation(FaultyGrid(tiny, tmp_path, _joins_as(change, kind)), tiny, tmp_path, CPU)
    assert [line["cohort"] for line in lines(tmp_path)] == [["north", "south"]] * 2
    assert "Lovelace" not in caplog.text


def _trains_with(change: Callable[[RecordDict], None]) -> Fault:
    def fault(node: int, reply: Message) -> Message:
        if node == NODE["west"] and reply.metadata.message_type == wire.TRAIN:
            change(reply.content)
        return reply

    return fault


def _array(dtype: str, shape: tuple[int, ...], stype: str, data: bytes) -> Callable[[RecordDict], None]:
    def change(content: RecordDict) -> None:
        content["fedmodel.arrays"] = ArrayRecord({"vector": Array(dtype, shape, stype, data)})

    return change


def _charged(text: str) -> Callable[[RecordDict], None]:
    def change(content: RecordDict) -> None:
        content.config_records["fedmodel"]["charged"] = text

    return change


_HONEST = event_to_json(DpSgdEvent(2.0, 1.0, 0.5, 2, 10))


@pytest.mark.parametrize(
    "change",
    [
        _array("float32", (5,), "numpy.ndarray", b"PK\x03\x04 an archive"),
        _array("float32", (10**15,), "fedmodel/v1/f32le", b"\0" * 20),
        _array("Ada Lovelace", (5,), "fedmodel/v1/f32le", b"\0" * 20),
        _array("float32", (5,), "fedmodel/v1/f32le", b"\0" * 21),
        _charged(_HONEST.replace('"noise_multiplier":2.0', '"noise_multiplier":1' + "0" * 400)),
        _charged(_HONEST.replace('"noise_multiplier":2.0', '"noise_multiplier":1e-6')),
        _charged(_HONEST.replace('"noise_multiplier":2.0', '"noise_multiplier":3.0')),
        _charged(_HONEST.replace('"steps":2', '"steps":' + "9" * 5001)),
        _charged(_HONEST.replace('"steps":2', '"steps":5')),
        _charged("[" * 200_000),
        _charged(_HONEST.replace('"dp-sgd"', '"Ada Lovelace"')),
    ],
)
def test_a_hostile_update_drops_its_silo_and_nothing_else(
    change: Callable[[RecordDict], None], tiny: Scenario, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_federation(FaultyGrid(tiny, tmp_path, _trains_with(change)), tiny, tmp_path, CPU)
    assert [set(line["dropouts"]) for line in lines(tmp_path)] == [{"west"}] * 2  # type: ignore[call-overload]
    assert "Lovelace" not in caplog.text


def test_a_silo_that_plans_other_noise_than_its_target_needs_is_left_out(tiny_file: Path, tmp_path: Path) -> None:
    """With less its epsilon would be past the scenario's; with more no report could hold it to the scenario."""
    scenario = read_scenario(str(tiny_file), ["privacy.noise_multiplier=", "privacy.epsilon=2.0"])
    little = _joins_as(lambda answer: wire.join_reply(replace(answer, plan=replace(answer.plan, noise_multiplier=0.2))))
    run_federation(FaultyGrid(scenario, tmp_path, little), scenario, tmp_path, CPU)
    assert [line["cohort"] for line in lines(tmp_path)] == [["north", "south"]] * 2
    more = _joins_as(lambda answer: wire.join_reply(replace(answer, plan=replace(answer.plan, noise_multiplier=50.0))))
    grid = FaultyGrid(scenario, tmp_path / "more", more)
    joined = joins(grid, scenario, tmp_path / "more")
    assert set(joined.members) == {"north", "south"}


@pytest.mark.parametrize(("head", "left"), [("its own", 0), ("another's", 1), ("none", 1)])
def test_two_nodes_with_one_name_are_refused(head: str, left: int, tiny: Scenario, tmp_path: Path) -> None:
    """With a head of the name's own, which whoever carries it can show, nobody knows which of them is the silo."""
    heads: dict[int, bytes] = {}

    def impostor(node: int, reply: Message) -> Message:
        answer = wire.read_join_reply(reply)
        heads[node] = answer.head
        if node != NODE["north"]:
            shown = {"its own": heads[NODE["north"]], "another's": answer.head, "none": b""}[head]
            reply.content = wire.join_reply(replace(answer, silo="north", head=shown))
        return reply

    with pytest.raises(DropoutError, match=f"^{'1 silo is' if left == 1 else '0 silos are'} too few to begin"):
        joins(FaultyGrid(tiny, tmp_path, impostor), tiny, tmp_path)


def test_a_node_is_the_silo_that_its_key_is_registered_for(tiny_file: Path, tmp_path: Path) -> None:
    """Where that is known, a name's signed head, which others may have too, is not enough."""
    scenario = read_scenario(str(tiny_file), ["federation.min_silos=1", "federation.round_timeout_s=1.0"])

    def impostor(node: int, reply: Message) -> Message | None:
        answer = wire.read_join_reply(reply)
        heads[node] = answer.head
        if node == NODE["north"]:
            return None  # away
        if node == NODE["south"]:
            reply.content = wire.join_reply(replace(answer, silo="north", head=heads[NODE["north"]]))
        return reply

    for known, members in ((False, {"north", "west"}), (True, {"west"})):
        heads: dict[int, bytes] = {}
        grid = FaultyGrid(scenario, tmp_path / str(known), impostor)
        if known:
            grid.owners = {node: silo for silo, node in NODE.items()}  # type: ignore[attr-defined]
        joined = joins(grid, scenario, tmp_path / str(known))
        assert set(joined.members) == members


def test_the_average_of_the_replies_is_what_is_applied(tiny: Scenario, tmp_path: Path) -> None:
    grid = FaultyGrid(tiny, tmp_path)
    rounds = begin(post(grid, tiny), tiny, strategy_of(tiny), tmp_path / "server")
    assert rounds.taking.joined.absent == {}
    result = rounds.round(["north", "west"], wire.TrainRequest(1, model(tiny)))
    updates = [
        wire.read_train_reply(reply).update_P for reply in grid.seen if reply.metadata.message_type == wire.TRAIN
    ]
    assert len(updates) == 2
    assert result.mean_P is not None
    assert np.allclose(result.mean_P, np.mean(updates, axis=0), atol=1e-6)


def test_only_the_cohort_trains_and_is_charged(tiny_file: Path, tmp_path: Path) -> None:
    scenario = read_scenario(str(tiny_file), ["federation.cohort=2"])
    run_federation(FaultyGrid(scenario, tmp_path), scenario, tmp_path, CPU)
    rounds: dict[str, int] = dict.fromkeys(NODE, 0)
    for line in lines(tmp_path):
        assert isinstance(line["cohort"], list)
        for silo in line["cohort"]:
            rounds[silo] += 1
    for silo, count in rounds.items():
        assert len(charged(tmp_path / "ledgers" / f"{silo}.sqlite")) == count
    assert sum(rounds.values()) == 4


def test_training_stops_below_the_loss_threshold(tiny_file: Path, tmp_path: Path) -> None:
    scenario = read_scenario(str(tiny_file), ["stop_below_loss=100.0"])
    run_federation(FaultyGrid(scenario, tmp_path), scenario, tmp_path, CPU)
    assert len(lines(tmp_path)) == 1
    assert sum(event.steps for event in charged(tmp_path / "ledgers" / "north.sqlite")) == 2


def test_a_diverged_model_is_a_clear_failure(tiny: Scenario, tmp_path: Path) -> None:
    """Each update is finite, and so is the model; its loss is not."""

    def huge(_: int, reply: Message) -> Message:
        if reply.metadata.message_type == wire.TRAIN:
            answer = wire.read_train_reply(reply)
            reply.content = wire.train_reply(replace(answer, update_P=np.full_like(answer.update_P, 2e38)))
        return reply

    with pytest.raises(ProtocolError, match="the model diverged: its outputs or its loss are not finite"):
        run_federation(FaultyGrid(tiny, tmp_path, huge), tiny, tmp_path, CPU)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_silo_whose_ledger_went_back_does_not_join(tmp_path: Path) -> None:
    """A backup of all that it has was put back: only who kept a newer head sees that."""
    identity, rotated = SigningKey.generate(), SigningKey.generate()
    known = KnownHeads(tmp_path, Roster("fed", (Member("north", identity.public),)))
    notes = [sign_head(Head(origin_of("north"), size, bytes([size]) * 32), identity) for size in (1, 2, 3)]
    known.check("north", notes[0])
    known.follow("north", Proven(notes[1], 0, ()).to_bytes())
    for note in (notes[1], notes[2]):
        known.check("north", note)
    fork = sign_head(Head(origin_of("north"), 2, bytes(32)), identity)
    for note in (notes[0], fork):
        with pytest.raises(LedgerTampered, match="is not the one whose head of 2 is kept here"):
            known.check("north", note)
    # With new keys it has a new ledger.
    again = KnownHeads(tmp_path, Roster("fed", (Member("north", rotated.public),)))
    again.check("north", sign_head(Head(origin_of("north"), 1, bytes(32)), rotated))


def test_an_update_comes_with_a_charge_more_in_its_silos_ledger(tmp_path: Path) -> None:
    """The same head once more is of an update that nobody paid for; but a run that is taken up reads its own again."""
    identity = SigningKey.generate()
    roster = Roster("fed", (Member("north", identity.public),))
    note = sign_head(Head(origin_of("north"), 1, bytes(32)), identity)
    first, again = Proven(note, 0, ()).to_bytes(), Proven(note, 1, ()).to_bytes()
    known = KnownHeads(tmp_path, roster)
    known.follow("north", first)
    with pytest.raises(LedgerTampered, match="the head that came with the one before"):
        known.follow("north", again)
    KnownHeads(tmp_path, roster).follow("north", first)


def test_heads_that_come_together_are_held_to_each_other_at_once_and_on_disk_at_the_end(tmp_path: Path) -> None:
    """Whatever ends the block, but for what kills the process; see the next test."""
    identity = SigningKey.generate()
    roster = Roster("fed", (Member("north", identity.public),))
    note = sign_head(Head(origin_of("north"), 1, bytes(32)), identity)
    known = KnownHeads(tmp_path, roster)
    with suppress(KeyboardInterrupt), known.kept_together():
        known.follow("north", Proven(note, 0, ()).to_bytes())
        assert (known.known("north"), (tmp_path / "north").exists()) == (note, False)
        raise KeyboardInterrupt
    assert (tmp_path / "north").read_bytes() == note == known.known("north")
    with pytest.raises(LedgerTampered, match="the head that came with the one before"):
        known.follow("north", Proven(note, 1, ()).to_bytes())


def test_a_process_that_is_killed_among_heads_that_come_together_forgets_none(tmp_path: Path) -> None:
    """Else a silo could put a backup of its ledger back, and answer a round for which nobody was charged."""
    identity = SigningKey.generate()
    roster = Roster("fed", (Member("north", identity.public),))
    note, fork = (sign_head(Head(origin_of("north"), 1, bytes([part]) * 32), identity) for part in (1, 2))
    killed = os.fork()
    if killed == 0:
        known = KnownHeads(tmp_path, roster)
        with known.kept_together():
            known.follow("north", Proven(note, 0, ()).to_bytes())
            os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(killed, 0)[1]) == 7
    with (tmp_path / ".coming").open("ab") as file:
        file.write(b"north " + note.hex().encode()[:9])  # half a line
    known = KnownHeads(tmp_path, roster)
    assert [path.name for path in tmp_path.iterdir()] == ["north"]
    with pytest.raises(LedgerTampered, match="is not the one whose head of 1 is kept here"):
        known.check("north", fork)
    known.follow("north", Proven(note, 0, ()).to_bytes())
    with pytest.raises(LedgerTampered):
        known.follow("north", Proven(fork, 0, ()).to_bytes())
