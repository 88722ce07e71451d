"""Secure aggregation over the real apps: the right sums, nothing in the clear, silos that vanish, closed failures."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from flwr.app import Message

from clients import hiding, policy
from clients.silo import Silo as SiloOfApp
from fedmodel import wire
from fedmodel.config import Scenario, read_scenario
from fedmodel.errors import ConfigError, DropoutError
from fedmodel.learning.pattern import Pattern, noise_grows, pattern_of
from fedmodel.provision import scenario_policy
from fedmodel.secagg import Participant as Protocol
from fedmodel.secagg import shamir
from fedmodel.secagg.messages import MessageScope, Share
from scenarios.simulation.simulate import check_scenario
from server.aggregation import RoundResult, put_back
from server.aggregation._sums import mean_of_sum
from server.aggregation.masked import Rounds
from server.server_app import run_federation
from tests.fakes import Fault, FaultyGrid, charged

CPU = torch.device("cpu")
ON = [
    "encryption.secure_aggregation=on",
    "encryption.bound=50.0",
    "encryption.colluding=0",
    'federation.silos=["north","south","west","east"]',
    "federation.min_silos=2",
    "data.partition.min_records=10",
    "rounds=5",
    "encryption.window=3",
]
SEEDED = "privacy.noise=seeded-unsafe"
NODE = {"north": 2, "south": 3, "west": 4, "east": 5}


def lines(run_dir: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def lost(kind: str, *silos: str, rounds: tuple[str, ...] = ()) -> Fault:
    """Answers of these silos to this stage, in these rounds or in all, come back as errors at once."""

    def fault(node: int, reply: Message) -> Message:
        metadata = reply.metadata
        here = metadata.message_type == kind and (not rounds or metadata.group_id in rounds)
        if here and node in {NODE[silo] for silo in silos}:
            reply.__dict__.update(_content=None, _error=wire.refusal("internal"))
        return reply

    return fault


class Lying(FaultyGrid):
    """The grid of a server that acts on one scenario, and signs that it is the one that the silos read."""

    def push_messages(self, messages):  # type: ignore[no-untyped-def]
        for message in (messages := list(messages)):
            self.sign_again(message)
        return super().push_messages(messages)


class Spy:
    """Keeps every update's words before they are masked, and every sum that the server opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.words: dict[int, dict[str, np.ndarray]] = defaultdict(dict)
        self.updates: dict[int, dict[str, np.ndarray]] = defaultdict(dict)
        self.results: dict[int, tuple[list[str], RoundResult]] = {}
        quantised, train = hiding._quantised, Rounds.round

        def spied(silo: SiloOfApp, charged: object, number: int, update_P: np.ndarray) -> np.ndarray:
            words_P = quantised(silo, charged, number, update_P)  # type: ignore[arg-type]
            self.words[number][silo.name] = words_P.copy()
            self.updates[number][silo.name] = update_P.copy()
            return words_P

        def trained(rounds: Rounds, cohort: list[str], request: wire.TrainRequest) -> RoundResult:
            result = train(rounds, cohort, request)
            self.results[request.round_number] = cohort, result
            return result

        monkeypatch.setattr(hiding, "_quantised", spied)
        monkeypatch.setattr(Rounds, "round", trained)

    def check(self, scenario: Scenario) -> int:
        """Hold every sum that was opened against the words that went into it; return how many there were."""
        whole = 0
        for number, (cohort, result) in self.results.items():
            if result.mean_P is None:
                continue
            survivors = [silo for silo in cohort if silo not in result.dropouts]
            total_P = np.sum([self.words[number][silo] for silo in survivors], axis=0, dtype=np.uint64)
            dtype = self.words[number][survivors[0]].dtype
            policy = scenario_policy(scenario)
            assert len(survivors) >= policy.n_min
            expected = mean_of_sum(total_P.astype(dtype), survivors, policy.quantizer, scenario.federation)
            pattern = pattern_of(scenario, number, len(result.mean_P))
            assert np.array_equal(result.mean_P, put_back(expected, pattern))
            # And that is the weighted mean, to a step of the quantiser for each silo.
            weights = [scenario.federation.weight(silo) for silo in survivors]
            mean_P = np.average([self.updates[number][silo] for silo in survivors], axis=0, weights=weights)
            step = max(weights) / sum(weights) * len(survivors) / policy.quantizer.scale
            # A word of a matrix is put back from as many as the rank, along a row that is no longer than 1.
            times = noise_grows(scenario, len(result.mean_P))[1] * (scenario.federation.update_rank or 1) ** 0.5
            assert np.abs(result.mean_P - put_back(mean_P, pattern)).max() <= times * (step + 1e-6)
            whole += 1
        return whole


VARIANTS = [
    [],
    ["encryption.post_quantum=true"],
    ["encryption.ring_bits=16", "federation.update_rank=2"],
    ["encryption.ring_bits=12", "federation.update_share=0.5"],
    ["encryption.consistency=quorum"],
    ["encryption.window=1"],
    ["federation.cohort=3"],
    ["federation.weights={north=3.0,west=0.5}"],
]


def check_masked(replies: Iterable[Message], spy: Spy, scenario: Scenario) -> None:
    """What crossed is never what was summed: the masks differ in all but a word in 2^16 or 2^32."""
    answers = [
        wire.read_masked_reply(reply, scenario.encryption.ring_bits)
        for reply in replies
        if reply.metadata.message_type == wire.TRAIN
    ]
    assert answers
    for answer in answers:
        told = spy.words[answer.round_number].values()
        assert all(np.count_nonzero(answer.words_P == words_P) <= 1 for words_P in told)


@pytest.mark.usefixtures("same_bytes")
@pytest.mark.parametrize("settings", VARIANTS, ids=lambda settings: "".join(settings) or "plain")
def test_every_opened_sum_is_that_of_the_silos_in_it(
    settings: list[str], tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = read_scenario(str(tiny_file), [*ON, *settings])
    spy = Spy(monkeypatch)
    grid = FaultyGrid(scenario, tmp_path)
    run_federation(grid, scenario, tmp_path, CPU)
    assert spy.check(scenario) == 5
    check_masked(grid.seen, spy, scenario)


@pytest.mark.parametrize("settings", VARIANTS, ids=lambda settings: "".join(settings) or "plain")
def test_simulated_is_the_real_protocols_result_bit_for_bit(
    settings: list[str], tiny_file: Path, tmp_path: Path
) -> None:
    models = []
    for mode in ("on", "simulated"):
        changes = [*ON, SEEDED, *settings, f"encryption.secure_aggregation={mode}"]
        scenario = read_scenario(str(tiny_file), changes)
        folder = tmp_path / mode
        folder.mkdir()
        run_federation(FaultyGrid(scenario, folder, lost(wire.TRAIN, "west", rounds=("2", "4"))), scenario, folder, CPU)
        models.append(
            safetensors.numpy.load((folder / "model.safetensors").read_bytes())
        )  # whose metadata name the scenario
    assert {name: value.tobytes() for name, value in models[0].items()} == {
        name: value.tobytes() for name, value in models[1].items()
    }


def test_the_rehearsal_of_loss_ends_with_right_sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every stage of it loses somebody, and some round fails closed; every sum that is opened is right."""
    scenario = read_scenario("dropout")
    assert scenario.faults is not None
    assert all(rate > 0 for rate in scenario.faults.model_dump().values())
    spy = Spy(monkeypatch)
    run_federation(FaultyGrid(scenario, tmp_path), scenario, tmp_path, CPU)
    whole = spy.check(scenario)
    failed = [line for line in lines(tmp_path) if "failed" in line]
    assert whole == scenario.rounds - len(failed)
    assert 0 < len(failed) <= scenario.federation.tolerated_failures
    assert sum(bool(line["dropouts"]) for line in lines(tmp_path)) > 10


@pytest.mark.parametrize(
    ("fault", "dropouts"),
    [
        (lost(wire.SHARE, "west"), {"west": "internal"}),
        (lost(wire.TRAIN, "west"), {"west": "internal"}),
        (lost(wire.COMMIT, "west"), {}),
        (lost(wire.REVEAL, "west"), {}),
    ],
)
def test_one_silo_lost_at_any_stage_costs_its_own_update_at_most(
    fault: Fault, dropouts: dict[str, str], tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = read_scenario(str(tiny_file), ON)
    spy = Spy(monkeypatch)
    run_federation(FaultyGrid(scenario, tmp_path, fault), scenario, tmp_path, CPU)
    assert spy.check(scenario) == 5
    assert [line["dropouts"] for line in lines(tmp_path)] == [dropouts] * 5


@pytest.mark.parametrize("stage", [wire.TRAIN, wire.COMMIT, wire.REVEAL])
def test_a_round_below_threshold_fails_closed_and_the_next_goes_on(stage: str, tiny_file: Path, tmp_path: Path) -> None:
    scenario = read_scenario(str(tiny_file), [*ON, "federation.tolerated_failures=1"])
    fault = lost(stage, "north", "south", "west", rounds=("2",))
    run_federation(FaultyGrid(scenario, tmp_path, fault), scenario, tmp_path, CPU)
    told = lines(tmp_path)
    assert [line.get("failed", False) for line in told] == [False, True, False, False, False]
    # What was trained stays charged, also for the round that came to nothing.
    for silo in NODE:
        assert len(charged(tmp_path / "ledgers" / f"{silo}.sqlite")) == 5


def test_a_failed_round_leaves_the_model_as_it_was(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = read_scenario(str(tiny_file), [*ON, "federation.tolerated_failures=1", "rounds=3"])
    sent: dict[int, np.ndarray] = {}
    train = Rounds.round

    def spied(rounds: Rounds, cohort: list[str], request: wire.TrainRequest) -> RoundResult:
        sent[request.round_number] = request.model_P.copy()
        return train(rounds, cohort, request)

    monkeypatch.setattr(Rounds, "round", spied)
    fault = lost(wire.REVEAL, "north", "south", "west", rounds=("2",))
    run_federation(FaultyGrid(scenario, tmp_path, fault), scenario, tmp_path, CPU)
    assert np.array_equal(sent[2], sent[3])
    assert not np.array_equal(sent[1], sent[2])


def test_more_failures_than_tolerated_end_the_run_with_the_reason(tiny_file: Path, tmp_path: Path) -> None:
    scenario = read_scenario(str(tiny_file), ON)
    fault = lost(wire.COMMIT, "north", "south", "west")
    with pytest.raises(DropoutError, match=r"round 1 failed closed: 1 of 4 silos signed the list, where 3 are needed"):
        run_federation(FaultyGrid(scenario, tmp_path, fault), scenario, tmp_path, CPU)
    assert not (tmp_path / "model.safetensors").exists()


def test_a_failed_dealing_is_begun_again_with_fresh_adverts(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = read_scenario(str(tiny_file), ON)
    spy = Spy(monkeypatch)
    asked: list[int] = []

    def once(node: int, reply: Message) -> Message:
        if reply.metadata.message_type == wire.SHARE and node != NODE["east"] and len(asked) < 3:
            asked.append(node)
            reply.__dict__.update(_content=None, _error=wire.refusal("internal"))
        return reply

    grid = FaultyGrid(scenario, tmp_path, once)
    run_federation(grid, scenario, tmp_path, CPU)
    assert spy.check(scenario) == 5
    assert all(line["dropouts"] == {} for line in lines(tmp_path))
    adverts = [data for reply in grid.seen if reply.metadata.message_type == wire.ADVERT and reply.has_content()
               for data in wire.read_protocol_reply(reply)]  # fmt: skip
    assert [int.from_bytes(data[20:22], "big") for data in adverts[:4]] == [2] * 4


def test_a_steady_round_is_three_exchanges(tiny_file: Path, tmp_path: Path) -> None:
    scenario = read_scenario(str(tiny_file), [*ON, "rounds=6"])
    grid = FaultyGrid(scenario, tmp_path)
    run_federation(grid, scenario, tmp_path, CPU)
    kinds = [reply.metadata.message_type for reply in grid.seen]
    # Adverts ride on joining and on the last reveal of a window; a window of three rounds costs one dealing.
    assert kinds.count(wire.ADVERT) == 0
    assert kinds.count(wire.JOIN) == 4
    assert kinds.count(wire.SHARE) == 2 * 4
    assert kinds.count(wire.TRAIN) == 6 * 4
    assert 6 * 3 <= kinds.count(wire.COMMIT) <= 6 * 4
    assert 6 * 3 <= kinds.count(wire.REVEAL) <= 6 * 4


def test_a_silo_that_insists_on_masks_sends_none_of_its_update_in_the_clear(tiny_file: Path, tmp_path: Path) -> None:
    """The scenario is the server's word, and it asks for plain updates; `silo.toml` is the silo's."""
    law = read_scenario(str(tiny_file), ON)
    loose = law.model_copy(update={"encryption": law.encryption.model_copy(update={"secure_aggregation": "off"})})
    with pytest.raises(DropoutError, match=r"0 silos are too few to begin.*crypto-failed"):
        run_federation(FaultyGrid(law, tmp_path), loose, tmp_path, CPU)
    grid = Lying(law, tmp_path)
    with pytest.raises(DropoutError, match="aggregation-refused"):
        run_federation(grid, loose, tmp_path, CPU)
    trained = [reply for reply in grid.seen if reply.metadata.message_type == wire.TRAIN]
    assert [wire.refusal_code(reply.error) for reply in trained] == ["aggregation-refused"] * 4
    # It was refused before anything was spent on it.
    assert all(charged(tmp_path / "ledgers" / f"{silo}.sqlite") == [] for silo in NODE)


def test_a_law_stricter_than_the_scenario_that_it_names_is_kept(tiny_file: Path, tmp_path: Path) -> None:
    scenario = read_scenario(str(tiny_file))
    grid = FaultyGrid(scenario, tmp_path)
    for silo in scenario.federation.silos:
        law = tmp_path / "silos" / silo / "silo.toml"
        strict = (
            law.read_text().replace('"off"', '"on"').replace("[encryption]", "[encryption]\nbound = 9.0\ncolluding = 0")
        )
        law.write_text(strict, encoding="utf-8")
    with pytest.raises(DropoutError, match=r"0 silos are too few to begin.*policy-refused"):
        run_federation(grid, scenario, tmp_path, CPU)
    assert [wire.refusal_code(reply.error) for reply in grid.seen] == ["policy-refused"] * 3
    model_P = np.zeros(5, dtype=np.float32)
    for silo in scenario.federation.silos:  # asked to train all the same
        question = grid.asked(wire.train_request(wire.TrainRequest(1, model_P)), wire.TRAIN, NODE[silo])
        (reply,) = grid.send_and_receive([question])
        assert wire.refusal_code(reply.error) == "policy-refused"
        log = (tmp_path / "logs" / f"{silo}.log").read_text()
        assert "secure aggregation 'off' is asked for, where this silo's law says 'on'" in log
    assert not (tmp_path / "ledgers").exists()


@pytest.mark.usefixtures("same_bytes")
def test_what_leaves_a_silo_is_masked_as_its_law_says_and_not_its_scenario(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server deals and trains as it should; the scenario that the silos read has masks off, and their law on.

    The law's policy refuses that; and were it not there, masks would not hang on the scenario.
    """
    scenario = read_scenario(str(tiny_file), ON)
    off = scenario.encryption.model_copy(update={"secure_aggregation": "off"})
    read = scenario.model_copy(update={"encryption": off})
    grid = Lying(read, tmp_path)
    for silo in NODE:
        law = tmp_path / "silos" / silo / "silo.toml"
        law.write_text(law.read_text().replace('secure_aggregation = "off"', 'secure_aggregation = "on"'))
    with pytest.raises(DropoutError, match=r"0 silos are too few to begin.*policy-refused"):
        run_federation(grid, scenario, tmp_path, CPU)
    monkeypatch.setattr(policy, "check_admitted", lambda *_: None)
    spy = Spy(monkeypatch)
    run_federation(grid, scenario, tmp_path, CPU)
    assert spy.check(scenario) == 5
    check_masked(grid.seen, spy, scenario)


def test_a_silo_asked_to_train_a_round_twice_sends_one_update(tiny_file: Path, tmp_path: Path) -> None:
    """Two masked updates of one round would differ by the difference of what is under the masks.

    The same question gets the same bytes, and another for the same round gets nothing.
    """
    scenario = read_scenario(str(tiny_file), ON)
    again: list[tuple[bytes, bytes]] = []
    codes: list[str] = []

    class Twice(FaultyGrid):
        def push_messages(self, messages):  # type: ignore[no-untyped-def]
            messages = list(messages)
            ids = list(super().push_messages(messages))
            for message, message_id in zip(messages, ids, strict=True):
                if message.metadata.message_type != wire.TRAIN:
                    continue
                (reply,) = self.pull_messages(super().push_messages([message]))
                again.append((left(self._replies[message_id]), left(reply)))
                request = wire.read_train_request(message)
                other = wire.train_request(replace(request, model_P=request.model_P + np.float32(0.25)))
                question = self.asked(other, wire.TRAIN, message.metadata.dst_node_id)
                (reply,) = self.pull_messages(super().push_messages([question]))
                codes.append(wire.refusal_code(reply.error))
            return ids

    def left(reply: Message) -> bytes:
        return wire.pack_update(wire.read_masked_reply(reply, 32))

    run_federation(Twice(scenario, tmp_path), scenario, tmp_path, CPU)
    assert codes == ["aggregation-refused"] * 20
    assert len(again) == 20
    assert all(first == second for first, second in again)
    for silo in NODE:
        assert len(charged(tmp_path / "ledgers" / f"{silo}.sqlite")) == 5


def test_a_silo_that_brings_anothers_message_is_left_out(tiny_file: Path, tmp_path: Path) -> None:
    scenario = read_scenario(str(tiny_file), ON)
    masks: dict[str, bytes] = {}

    def swap(node: int, reply: Message) -> Message:
        if reply.metadata.message_type == wire.TRAIN:
            answer = wire.read_masked_reply(reply, 32)
            if node == NODE["north"]:
                masks[reply.metadata.group_id] = answer.mask
            if node == NODE["west"]:
                reply.content = wire.masked_reply(replace(answer, mask=masks[reply.metadata.group_id]))
        return reply

    run_federation(FaultyGrid(scenario, tmp_path, swap), scenario, tmp_path, CPU)
    assert [line["dropouts"] for line in lines(tmp_path)] == [{"west": "protocol-violated"}] * 5


@pytest.mark.parametrize("answers", ["as another", "before the other"])
def test_a_name_is_its_keys_and_no_other_nodes(answers: str, tiny_file: Path, tmp_path: Path) -> None:
    """A node that joins under another's name costs itself its part, and the other nothing."""
    scenario = read_scenario(str(tiny_file), ON)
    thief = NODE["east"] if answers == "as another" else NODE["north"]
    name = "north" if answers == "as another" else "east"

    def steal(node: int, reply: Message) -> Message:
        if reply.metadata.message_type == wire.JOIN and node == thief:
            answer = wire.read_join_reply(reply)
            reply.content = wire.join_reply(replace(answer, silo=name))
        return reply

    run_federation(FaultyGrid(scenario, tmp_path, steal), scenario, tmp_path, CPU)
    left_out = {node: silo for silo, node in NODE.items()}[thief]
    assert [set(line["dropouts"]) for line in lines(tmp_path)] == [{left_out}] * 5  # type: ignore[call-overload]


def test_an_object_that_flower_cannot_read_costs_its_silo_its_answer(tiny_file: Path, tmp_path: Path) -> None:
    scenario = read_scenario(str(tiny_file), ON)

    class Malformed(FaultyGrid):
        def pull_messages(self, message_ids):  # type: ignore[no-untyped-def]
            replies = list(super().pull_messages(message_ids))
            for reply in replies:
                if reply.metadata.src_node_id == NODE["west"] and reply.metadata.message_type == wire.TRAIN:
                    self._replies.update({one.metadata.reply_to_message_id: one for one in replies})
                    raise KeyError("CustomDataClass")
            return replies

    run_federation(Malformed(scenario, tmp_path), scenario, tmp_path, CPU)
    assert [line["dropouts"] for line in lines(tmp_path)] == [{"west": "late"}] * 5


def test_a_node_that_left_is_late_and_not_forgotten(tiny_file: Path, tmp_path: Path) -> None:
    """Flower gives every message to a node that is gone the same empty id."""
    scenario = read_scenario(str(tiny_file), [*ON, "rounds=1"])

    class Leaving(FaultyGrid):
        def push_messages(self, messages):  # type: ignore[no-untyped-def]
            messages = list(messages)
            ids = list(super().push_messages(messages))
            gone = {NODE["west"], NODE["east"]}
            kinds = {wire.COMMIT}
            return [
                "" if one.metadata.dst_node_id in gone and one.metadata.message_type in kinds else message_id
                for one, message_id in zip(messages, ids, strict=True)
            ]

    with pytest.raises(DropoutError, match="2 of 4 silos signed the list, where 3 are needed"):
        run_federation(Leaving(scenario, tmp_path), scenario, tmp_path, CPU)


def test_a_model_sent_to_one_silo_alone_opens_nothing_of_it(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pasquini et al. 2022: the server sends one silo another model to tell its update from the others'."""
    scenario = read_scenario(str(tiny_file), [*ON, "rounds=1"])

    class TwoModels(FaultyGrid):
        def push_messages(self, messages):  # type: ignore[no-untyped-def]
            for message in (messages := list(messages)):
                if message.metadata.message_type == wire.TRAIN and message.metadata.dst_node_id == NODE["west"]:
                    head = message.content.array_records["fedmodel.arrays"]["vector"]
                    other = np.frombuffer(head.data, dtype="<f4") + np.float32(0.25)
                    request = wire.TrainRequest(1, other.astype(np.float32))
                    message.content["fedmodel.arrays"] = wire.train_request(request)["fedmodel.arrays"]
                    self.sign_again(message)
            return super().push_messages(messages)

    spy = Spy(monkeypatch)
    run_federation(TwoModels(scenario, tmp_path), scenario, tmp_path, CPU)
    assert lines(tmp_path)[0]["dropouts"] == {"west": "aggregation-refused"}
    assert spy.check(scenario) == 1


@pytest.mark.parametrize("said", ["update_share=0.5", "update_rank=2"])
def test_a_silo_of_another_pattern_is_left_out_of_the_sum(
    said: str, tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its words would be added to words of other things; its masks hang on its pattern, so that they do not cancel."""
    scenario = read_scenario(str(tiny_file), [*ON, "rounds=1", f"federation.{said}"])
    hide, whose = hiding.hide, [""]

    def hidden(silo: SiloOfApp, *rest: Any) -> Any:
        whose[0] = silo.name
        return hide(silo, *rest)

    def drawn(of: Scenario, number: int, size: int) -> Pattern | None:
        seed = 99 if whose == ["west"] else of.seed
        return pattern_of(of.model_copy(update={"seed": seed}), number, size)

    monkeypatch.setattr(hiding, "hide", hidden)
    monkeypatch.setattr(hiding, "pattern_of", drawn)
    spy = Spy(monkeypatch)
    run_federation(FaultyGrid(scenario, tmp_path), scenario, tmp_path, CPU)
    assert lines(tmp_path)[0]["dropouts"] == {"west": "aggregation-refused"}
    assert spy.check(scenario) == 1


def test_a_false_dealer_costs_a_round_and_is_left_out_of_the_next_window(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = read_scenario(str(tiny_file), [*ON, "federation.tolerated_failures=1"])
    deal = Protocol.deal

    def falsely(silo: Protocol, adverts: Sequence[bytes]) -> list[bytes]:
        with monkeypatch.context() as patch:
            if silo.number == 3:
                patch.setattr(shamir, "split", lambda _, __, points: {one: shamir.random_element() for one in points})
            return deal(silo, adverts)

    monkeypatch.setattr(Protocol, "deal", falsely)
    spy = Spy(monkeypatch)
    run_federation(FaultyGrid(scenario, tmp_path), scenario, tmp_path, CPU)
    assert [line.get("failed", False) for line in lines(tmp_path)] == [True, False, False, False, False]
    assert [line["dropouts"] for line in lines(tmp_path)[1:]] == [{"west": "aggregation-refused"}] * 4
    assert spy.check(scenario) == 4


def test_a_silo_that_false_dealers_have_left_out_pays_once_a_window_and_not_every_round(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two deal falsely to one, which is at odds with both then: it cannot be told who of them lies."""
    six = 'federation.silos=["north","south","west","east","near","far"]'  # four shares of six bring a secret back
    scenario = read_scenario(str(tiny_file), [*ON, six])  # windows of rounds 1 to 3, and 4 and 5
    deal = Protocol.deal

    def falsely(silo: Protocol, adverts: Sequence[bytes]) -> list[bytes]:
        messages = deal(silo, adverts)
        if silo.number not in (3, 4):
            return messages
        window, setting = silo._window()
        place = MessageScope(setting, window.first)
        shares = [Share.read(data, place) for data in messages]
        spoilt = [replace(one, envelope=bytes(len(one.envelope))) if one.receiver == 1 else one for one in shares]
        return [one.sign(place, silo._identity) for one in spoilt]

    monkeypatch.setattr(Protocol, "deal", falsely)
    spy = Spy(monkeypatch)
    run_federation(FaultyGrid(scenario, tmp_path), scenario, tmp_path, CPU)
    assert [line["dropouts"] for line in lines(tmp_path)] == [{"north": "aggregation-refused"}] * 5
    assert spy.check(scenario) == 5
    assert [number for number in spy.updates if "north" in spy.updates[number]] == [1, 4]
    assert len(charged(tmp_path / "ledgers" / "north.sqlite")) == 2
    assert len(charged(tmp_path / "ledgers" / "south.sqlite")) == 5


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        (["encryption.bound="], "needs bound"),
        (["encryption.colluding=1"], "min_silos = 2 with 1 colluding"),
        (['federation.silos=["north","south"]'], "too few to hide"),
        (["federation.cohort=2"], "too few to hide"),
        (["encryption.colluding=2", "federation.min_silos=4"], None),
        (["encryption.colluding=3", "federation.min_silos=4"], "min_silos = 4 with 3 colluding"),
        (["encryption.bound=1e-31"], "bound"),
    ],
)
def test_a_scenario_that_could_hide_nothing_is_refused_before_it_runs(
    settings: list[str], match: str | None, tiny_file: Path
) -> None:
    if match is None:
        check_scenario(read_scenario(str(tiny_file), [*ON, *settings]))
        return
    with pytest.raises(ConfigError, match=match):
        check_scenario(read_scenario(str(tiny_file), [*ON, *settings]))


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3))])
def test_hospitals_learn_as_well_under_masks_as_without(seed: int, tmp_path: Path) -> None:
    """With one noise in both, what differs is the quantisation: a millionth of a model's weight, no patient of 143."""
    accuracies, models = [], []
    for mode in ("on", "off"):
        scenario = read_scenario("hospitals", [f"seed={seed}", SEEDED, f"encryption.secure_aggregation={mode}"])
        folder = tmp_path / mode
        folder.mkdir()
        run_federation(FaultyGrid(scenario, folder), scenario, folder, CPU)
        accuracies.append(lines(folder)[-1]["accuracy"])
        models.append(safetensors.numpy.load_file(folder / "model.safetensors"))
    assert abs(accuracies[0] - accuracies[1]) <= 0.01  # type: ignore[operator]
    for name, weights in models[0].items():
        assert np.abs(weights - models[1][name]).max() < 1e-4
